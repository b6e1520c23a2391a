"""vLLM in a process of its own, for environments whose pins do not agree with it: started, watched
and ended here.

The process answers OpenAI's API on loopback; token ids go in and out through `openai.py`. It hangs
on a leash (`leash.py`): however this process ends, the server and all that it started end too."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from rro.config import OpenAIConfig, VllmConfig
from rro.errors import PolicyError, RroError, UsageError
from rro.models.chat import ChatFormat
from rro.policies.api.policy import Listed, OpenAIPolicy, open_served
from rro.policies.vllm import watchdog
from rro.policies.vllm.options import Weights, arguments
from rro.policies.vllm.shared import give_back
from rro.types import Completion, Message, SamplingParams

WHOLE = "whole"  # what a server calls its whole model; adapters go by their folders
_KEY = "RRO_VLLM_KEY"  # the environment variable of this process that holds the key to its servers
_SAID = re.compile(r"(?:\w*Error|\w*Exception|error): .+")
_EMPTY = (
    "Engine core initialization failed",
    "WorkerProc initialization failed",
    "EngineCore encountered",
)


class ServedEngine:
    """A running server with one whole model. `url` is where it answers, `log` the file of what it
    says."""

    def __init__(
        self,
        settings: VllmConfig,
        options: Mapping[str, Any],
        environment: Mapping[str, str],
        log: Path,
    ) -> None:
        """Starts it and waits until it answers. Raises UsageError where settings.python is no
        interpreter with vLLM, RroError where the server ends or is not ready within
        settings.start_timeout."""
        self.options, self.log = dict(options), log
        self._adapters: set[Path] = set()
        python = _interpreter(settings)
        key = os.environ.setdefault(
            _KEY, secrets.token_urlsafe(24)
        )  # nobody else on this machine may ask or load
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}/v1"
        words = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", WHOLE]
        words += [
            "--enable-prompt-tokens-details",
            *arguments(options),
        ]  # or usage would not tell what was cached
        command = [str(python), "-m", "vllm.entrypoints.openai.api_server", *words]
        variables = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_API_KEY": key, **environment}
        self._process = _start(command, variables, log)
        try:
            self._wait(settings.start_timeout)
        except BaseException:
            self.stop()
            raise

    def client_settings(self, concurrency: int) -> OpenAIConfig:
        """How `openai.py` is to talk to it."""
        return OpenAIConfig(
            base_url=self.url,
            key_variable=_KEY,
            tokens="require",
            concurrency=concurrency,
            timeout=1800.0,
            retries=2,
        )

    def load(self, adapter: Path) -> None:
        """As rro.policies.vllm.shared.Engine says."""
        if adapter in self._adapters:
            return
        body = {"lora_name": str(adapter), "lora_path": str(adapter.resolve())}
        try:
            _request(f"{self.url}/load_lora_adapter", body)
        except HTTPError as error:
            said = " ".join(error.read().decode("utf-8", "replace").split())[:300]
            raise RroError(
                f"vLLM cannot load the adapter {adapter}: {said} (its log is {self.log})"
            ) from None
        except OSError as error:
            raise RroError(
                f"vLLM cannot load the adapter {adapter}: {error}; {self.last_words()}"
            ) from None
        self._adapters.add(adapter)

    def check(self, wait: float = 0.0) -> None:
        """Raises RroError if it is not running any more, or ends within `wait` seconds."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(wait)
            raise RroError(f"vLLM's server ended by itself: {self.last_words()}")

    def last_words(self) -> str:
        """What its log says of its end, and where the log is."""
        return f"{_last_words(self.log)} (the whole of it is in {self.log})"

    def stop(self) -> None:
        """End the server and its processes; returns when they are gone."""
        assert self._process.stdin is not None
        self._process.stdin.close()  # the leash
        try:
            self._process.wait(watchdog.GRACE + 5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait(self, limit: float) -> None:
        deadline = time.monotonic() + limit
        while not _answers(self.url.removesuffix("/v1") + "/health"):
            if self._process.poll() is not None:
                raise RroError(f"vLLM's server did not start: {self.last_words()}")
            if time.monotonic() > deadline:
                raise RroError(
                    f"vLLM's server was not ready after {limit:g} s: {self.last_words()}; "
                    "policy.vllm.start_timeout gives it longer"
                )
            time.sleep(0.25)


class ServedVllmPolicy:
    """Samples from a server that rro started, as `rro.policies.base.Policy` says; see OpenAIPolicy
    for what its answers hold."""

    def __init__(
        self, engine: ServedEngine, weights: Weights, chat: ChatFormat, name: str, max_batch: int
    ) -> None:
        """`engine` must run `weights.whole` and have loaded `weights.adapter`; closing the policy
        gives it back. Raises UsageError or RroError where the server does not answer as vLLM
        should."""
        self.name, self._engine, self._open = name, engine, True
        model = WHOLE if weights.adapter is None else str(weights.adapter)
        context = int(engine.options["max_model_len"])
        # As many requests as keep the engine's batch full, and some that wait inside.
        settings = engine.client_settings(2 * max_batch)
        try:
            self._inner: OpenAIPolicy = open_served(
                settings, Listed(model, "vllm", context), name, chat
            )
        except UsageError:
            engine.check(
                wait=5.0
            )  # a model that vLLM loads but cannot run ends it at the first question
            raise
        self.provenance: Mapping[str, Any] = MappingProxyType(
            {
                **{
                    key: value
                    for key, value in self._inner.provenance.items()
                    if key not in ("base_url", "served_as")
                },
                "backend": "vllm",
                "engine": "server",
                "dtype": engine.options["dtype"],
                "model": weights.whole,
                "adapter": str(weights.adapter or ""),
            }
        )

    async def sample(
        self, messages: Sequence[Message], n: int, params: SamplingParams, seed: int
    ) -> list[Completion]:
        """Draw `n` answers. Raises PolicyError where a request failed, RroError if the server is
        gone."""
        try:
            return await self._inner.sample(messages, n, params, seed)
        except PolicyError:
            self._engine.check()
            raise

    async def close(self) -> None:
        """Give the server back; the last of its policies ends it."""
        if self._open:
            self._open = False
            await self._inner.close()
            await asyncio.to_thread(give_back, self._engine)


def _interpreter(settings: VllmConfig) -> Path:
    python = Path(
        os.path.abspath(settings.python or sys.executable)
    )  # no symbolic links resolved: that leaves a venv
    if not os.access(python, os.X_OK) or python.is_dir():
        raise UsageError(
            f"policy.vllm.python {python} is no interpreter: name bin/python of an environment with vLLM"
        )
    return python


def _start(
    command: Sequence[str], variables: Mapping[str, str], log: Path
) -> subprocess.Popen[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    # What this process imports from must not reach an environment with other pins.
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "PYTHONHOME")
    }
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, watchdog.__file__, "run", *command],
            stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT, env={**inherited, **variables},
            start_new_session=True,  # Ctrl-C is for rro, which then ends the server in order
        )  # fmt: skip


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        _request(url)
    except OSError:  # nobody there yet, or not ready
        return False
    return True


def _request(url: str, body: Mapping[str, str] | None = None) -> None:
    """GET, or POST of a body; raises OSError, of which HTTPError is one, unless all is well."""
    headers = {"Authorization": f"Bearer {os.environ[_KEY]}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with build_opener(ProxyHandler({})).open(Request(url, data, headers), timeout=300) as response:
        response.read()


def _last_words(log: Path) -> str:
    """The errors in the end of a log, the telling ones first; else its last lines."""
    text = log.read_bytes()[-40_000:].decode("utf-8", "replace")
    found = dict.fromkeys(match[0].strip()[:300] for match in _SAID.finditer(text))
    told = [line for line in found if not any(empty in line for empty in _EMPTY)]
    lines = told[-3:] or [line.strip()[:200] for line in text.splitlines() if line.strip()][-5:]
    return " | ".join(lines) or "it said nothing"
