"""vLLM as a policy: a server that rro starts in an environment with vLLM, asked by token ids.

Knows which weights to serve and how to ask for them. How the process is started and ended is in
`server.py`, how requests travel in `rro.policies.api`."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rro.errors import PolicyError, RroError, UsageError
from rro.models.chat import ChatFormat
from rro.policies.api.endpoint import ServedModel
from rro.policies.api.opening import open_served
from rro.policies.base import PolicyContext
from rro.policies.vllm import server_pool
from rro.policies.vllm.options import (
    ServedWeights,
    environment,
    find_weights,
    lora_options,
    server_options,
)
from rro.policies.vllm.server import WHOLE_MODEL, VllmServer
from rro.policies.vllm.settings import VllmConfig
from rro.types import Completion, Message, SamplingParams


def open_vllm(settings: VllmConfig, context: PolicyContext) -> VllmPolicy:
    """A policy with the context's weights, on top of the checkpoint `context.start` if adapters
    lead from there to them.

    Waits until the server answers, so call it outside any event loop. Raises UsageError if there is
    no vLLM or the settings do not fit, RroError if the server does not start."""
    from rro.models.loading import load_tokenizer

    name, checkpoint = context.name, context.find_weights()
    if settings.python is None and importlib.util.find_spec("vllm") is None:
        raise UsageError(
            'policy.backend = "vllm", but this environment has no vLLM: run make vllm and set '
            'policy.vllm.python = ".venv-vllm/bin/python"'
        )
    chat = ChatFormat(load_tokenizer(context.model, checkpoint))
    stays = context.live and _stays(settings, context)
    # One that stays is given whole models: adapters on adapters grow with the rounds.
    weights = find_weights(context.model, checkpoint, None if stays else context.start)
    options = server_options(context.model, context.settings, settings, weights.whole)
    log = context.logs / f"vllm-{name.replace('/', '-')}.log"
    arguments = {**lora_options(weights.rank), **options}
    server: VllmServer = server_pool.acquire(
        _key(settings, options, stays),
        weights,
        lambda: VllmServer(settings, arguments, environment(context.threads), log, stays=stays),
    )
    try:
        if stays:
            return LiveVllmPolicy(server, weights, chat, settings, context)
        return VllmPolicy(server, weights, chat, name, context.settings.max_batch)
    except BaseException:
        server_pool.release(server)
        raise


def _stays(settings: VllmConfig, context: PolicyContext) -> bool:
    from rro.models.loading import resolve_device

    on_cpu = resolve_device(context.model.device).type == "cpu"
    return on_cpu if settings.stay == "auto" else settings.stay


def _key(settings: VllmConfig, options: Mapping[str, Any], stays: bool) -> str:
    """What tells servers apart, apart from adapters."""
    parts = [options, str(settings.python or sys.executable), stays]
    return json.dumps(parts, sort_keys=True, default=str)


class VllmPolicy:
    """Samples from a server that rro started, as `rro.policies.base.Policy` says. `OpenAIPolicy`
    says what its completions hold. `server` is the process; other policies may use it, too."""

    def __init__(
        self,
        server: VllmServer,
        weights: ServedWeights,
        chat: ChatFormat,
        name: str,
        max_batch: int,
    ) -> None:
        """`server` must serve `weights.whole` and have loaded `weights.adapter`; closing the policy
        releases it. `max_batch`: answers that the server draws together. Raises UsageError or
        RroError if the server does not answer as vLLM should."""
        self.name, self.server, self._open = name, server, True
        self._in_flight = 0
        model = WHOLE_MODEL if weights.adapter is None else str(weights.adapter)
        context = int(server.options["max_model_len"])
        # as many requests as fill the server's batch, and as many that wait inside
        settings = server.client_settings(2 * max_batch)
        try:
            self._inner = open_served(settings, ServedModel(model, "vllm", context), name, chat)
        except UsageError:
            # a model that vLLM loads but cannot run ends the server at the first request
            server.check(wait=5.0)
            raise
        inner = dict(self._inner.provenance)
        # a free port and our own name for the model say nothing
        del inner["base_url"], inner["served_as"]
        self.provenance: Mapping[str, Any] = MappingProxyType(
            {
                **inner,
                "backend": "vllm",
                "engine": "server",
                "dtype": server.options["dtype"],
                "model": weights.whole,
                "adapter": str(weights.adapter or ""),
            }
        )

    async def sample(
        self, messages: Sequence[Message], n: int, params: SamplingParams, seed: int
    ) -> list[Completion]:
        """Draw `n` answers. Raises PolicyError if a request failed, RroError if the server
        ended."""
        self._in_flight += 1
        try:
            return await self._inner.sample(messages, n, params, seed)
        except PolicyError:
            self.server.check()
            raise
        finally:
            self._in_flight -= 1

    async def close(self) -> None:
        """Release the server; the last of its policies ends it."""
        if self._open:
            self._open = False
            await self._inner.close()
            await asyncio.to_thread(server_pool.release, self.server)


class LiveVllmPolicy(VllmPolicy):
    """A policy whose server stays up and takes over new weights in place."""

    def __init__(
        self,
        server: VllmServer,
        weights: ServedWeights,
        chat: ChatFormat,
        settings: VllmConfig,
        context: PolicyContext,
    ) -> None:
        """As `VllmPolicy`; the server must have been started to stay."""
        super().__init__(server, weights, chat, context.name, context.settings.max_batch)
        self._settings, self._context = settings, context

    async def update(self, weights: Path, name: str) -> None:
        """As `Updatable.update` says. Raises UsageError where the server cannot take over the
        weights: they are an adapter, of another shape, or other policies use it."""
        if self._in_flight:
            raise RroError(f"policy {self.name} is answering: its weights cannot change now")
        whole = find_weights(self._context.model, weights)
        options = server_options(
            self._context.model, self._context.settings, self._settings, whole.whole
        )
        same = {**self.server.options, "model": whole.whole} == options
        if whole.adapter is not None or not same:
            raise UsageError(f"the server of {self.name} cannot take over {weights}")
        server_pool.rename(self.server, _key(self._settings, options, True))
        await asyncio.to_thread(self.server.reload, whole.whole)
        self.server.options["model"] = whole.whole
        self.name = self._inner.name = name
        self.provenance = MappingProxyType({**self.provenance, "model": whole.whole})
