"""vLLM's server in a process of its own, in any environment that has vLLM: started, watched and
ended here.

It speaks OpenAI's API on loopback. `watchdog.py` ends it with all its processes, however this
process ends. Knows nothing of messages and sampling."""

from __future__ import annotations

import importlib.util
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
from typing import Any

from rro.errors import RroError, UsageError
from rro.policies.api.secret import Secret
from rro.policies.api.settings import OpenAIConfig
from rro.policies.api.transport import BodyError, exchange_blocking
from rro.policies.vllm import watchdog
from rro.policies.vllm.options import command_line
from rro.policies.vllm.settings import VllmConfig
from rro.runs.log_file import rotate

# what a server calls its whole model; adapters go by their folders
WHOLE_MODEL = "whole"
# the environment variable of this process that holds the key to its servers
_KEY_VARIABLE = "RRO_VLLM_KEY"
_GUARD = Path(__file__).parent / "guard"
_ERROR_LINE = re.compile(r"(?:\w*Error|\w*Exception|error): .+")
# errors that only say that there was another one
_FOLLOW_UPS = (
    "Engine core initialization failed",
    "WorkerProc initialization failed",
    "EngineCore encountered",
)


class VllmServer:
    """A running server with one whole model. `url` is its address, `options` are its engine
    arguments, `log` is the file that it writes to."""

    def __init__(
        self,
        settings: VllmConfig,
        options: Mapping[str, Any],
        environment: Mapping[str, str],
        log: Path,
        *,
        stays: bool = False,
    ) -> None:
        """Start the server and wait until it answers. `environment`: variables added to its
        environment. `stays`: whether it is going to `reload`. Raises UsageError if settings.python
        is no interpreter, RroError if the server ends or is not ready within
        settings.start_timeout seconds."""
        if importlib.util.find_spec("httpx2") is None:
            raise UsageError('policy.backend = "vllm" needs httpx2: pip install "rro[vllm]"')
        self.options, self.log = dict(options), log
        self._adapters: set[Path] = set()
        # nobody else on this machine may send requests or load adapters
        key = os.environ.setdefault(_KEY_VARIABLE, secrets.token_urlsafe(24))
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}/v1"
        command = [
            str(find_interpreter(settings)), "-m", "vllm.entrypoints.openai.api_server",
            "--host", "127.0.0.1", "--port", str(port), "--served-model-name", WHOLE_MODEL,
            # without it, usage does not say how much of a prompt was cached
            "--enable-prompt-tokens-details",
            *(("--middleware", "rro_guard.RequireKey") if stays else ()),
            *command_line(options),
        ]  # fmt: skip
        variables = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_API_KEY": key, **environment}
        # another environment has packages of its own: what this process imports from stays here
        hidden = () if settings.python is None else ("PYTHONPATH", "PYTHONHOME")
        inherited = {name: value for name, value in os.environ.items() if name not in hidden}
        if stays:
            # the endpoints that replace weights, which vLLM itself leaves open to everybody
            variables["VLLM_SERVER_DEV_MODE"] = "1"
            paths = (str(_GUARD), inherited.get("PYTHONPATH"))
            variables["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        self._process = _start(command, {**inherited, **variables}, log)
        try:
            self._wait(settings.start_timeout)
        except BaseException:
            self.stop()
            raise

    def client_settings(self, concurrency: int) -> OpenAIConfig:
        """How the API's client is to talk to it, with `concurrency` requests in flight."""
        return OpenAIConfig(
            base_url=self.url,
            key_variable=_KEY_VARIABLE,
            tokens="require",
            concurrency=concurrency,
            timeout=1800.0,
            retries=2,
            # one that ends does not come back
            outage=0,
        )

    def load(self, adapter: Path) -> None:
        """As `rro.policies.vllm.server_pool.Server` says."""
        if adapter in self._adapters:
            return
        body = {"lora_name": str(adapter), "lora_path": str(adapter.resolve())}
        self._ask(f"{self.url}/load_lora_adapter", body, f"load the adapter {adapter}")
        self._adapters.add(adapter)

    def reload(self, whole: str) -> None:
        """Serve the whole model in the folder `whole` from now on, of the same shape; keys and
        values of the old weights are forgotten. The server must have been started with `stays`,
        and answer nothing meanwhile. Raises RroError if it cannot."""
        doing, base = f"take over the weights {whole}", self.url.removesuffix("/v1")
        body = {"method": "reload_weights", "kwargs": {"weights_path": os.path.abspath(whole)}}
        self._ask(f"{base}/collective_rpc", body, doing)
        if '"success":true' not in self._ask(f"{base}/reset_prefix_cache", {}, doing):
            raise RroError(f"vLLM cannot {doing}: its prefix cache is in use (see {self.log})")

    def _ask(self, url: str, body: Mapping[str, Any], doing: str) -> str:
        """The text of a good answer, without spaces. Raises RroError that says what it was
        `doing`."""
        import httpx2

        try:
            response = exchange_blocking(url, body, _our_key(), 300.0)
        except (TimeoutError, BodyError, httpx2.TransportError) as error:
            raise RroError(f"vLLM cannot {doing}: {error}; {self.last_errors()}") from None
        if response.status // 100 != 2:
            text = Secret(os.environ[_KEY_VARIABLE]).clean(response.text)
            raise RroError(f"vLLM cannot {doing}: {text} (see {self.log})")
        return "".join(response.text.split())

    def check(self, wait: float = 0.0) -> None:
        """Raises RroError if the server has ended, or ends within `wait` seconds."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(wait)
            raise RroError(f"vLLM's server ended by itself: {self.last_errors()}")

    def last_errors(self) -> str:
        """The errors at the end of its log, and where the log is."""
        return f"{_last_errors(self.log)} (the whole log is {self.log})"

    def stop(self) -> None:
        """End the server and its processes; returns when they have ended."""
        assert self._process.stdin is not None
        # the watchdog's input
        self._process.stdin.close()
        try:
            self._process.wait(watchdog.GRACE + 5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait(self, limit: float) -> None:
        deadline = time.monotonic() + limit
        while not self._is_healthy():
            if self._process.poll() is not None:
                raise RroError(f"vLLM's server did not start: {self.last_errors()}")
            if time.monotonic() > deadline:
                raise RroError(
                    f"vLLM's server was not ready after {limit:g} s: {self.last_errors()}; "
                    "policy.vllm.start_timeout allows more"
                )
            time.sleep(0.25)

    def _is_healthy(self) -> bool:
        import httpx2

        try:
            health = self.url.removesuffix("/v1") + "/health"
            return exchange_blocking(health, None, _our_key(), 10.0).status // 100 == 2
        except (TimeoutError, BodyError, httpx2.TransportError):
            return False


def _our_key() -> dict[str, str]:
    return {"Authorization": f"Bearer {os.environ[_KEY_VARIABLE]}"}


def find_interpreter(settings: VllmConfig) -> Path:
    """The interpreter that runs the server. Raises UsageError if it is none."""
    # symbolic links are not resolved: that would leave a virtual environment
    python = Path(os.path.abspath(settings.python or sys.executable))
    if not os.access(python, os.X_OK) or python.is_dir():
        raise UsageError(
            f"policy.vllm.python {python} is no interpreter: name bin/python of an environment "
            "with vLLM"
        )
    return python


def _start(
    command: Sequence[str], variables: Mapping[str, str], log: Path
) -> subprocess.Popen[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    rotate(log)
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, watchdog.__file__, *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(variables),
            # Ctrl-C is for rro, which then ends the server in order
            start_new_session=True,
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _last_errors(log: Path) -> str:
    """The last three errors of a log, without those that only report another; if there is none,
    the last five lines."""
    text = log.read_bytes()[-40_000:].decode("utf-8", "replace")
    errors = dict.fromkeys(match[0].strip()[:300] for match in _ERROR_LINE.finditer(text))
    causes = [line for line in errors if not any(phrase in line for phrase in _FOLLOW_UPS)]
    lines = causes[-3:] or [line.strip()[:200] for line in text.splitlines() if line.strip()][-5:]
    return " | ".join(lines) or "the log is empty"
