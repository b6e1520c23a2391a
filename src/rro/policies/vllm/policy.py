"""vLLM as a policy: a server that rro starts in an environment with vLLM, asked by token ids.

Knows which weights to serve and how to ask for them. How the process is started and ended is in
`server.py`, how requests travel in `rro.policies.api`."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from rro.errors import PolicyError, UsageError
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
    weights = find_weights(context.model, checkpoint, context.start)
    options = server_options(context.model, context.settings, settings, weights.whole)
    key = json.dumps([options, str(settings.python or sys.executable)], sort_keys=True, default=str)
    log = context.logs / f"vllm-{name.replace('/', '-')}.log"
    options = {**lora_options(weights.rank), **options}
    server: VllmServer = server_pool.acquire(
        key, weights, lambda: VllmServer(settings, options, environment(context.threads), log)
    )
    try:
        return VllmPolicy(server, weights, chat, name, context.settings.max_batch)
    except BaseException:
        server_pool.release(server)
        raise


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
        try:
            return await self._inner.sample(messages, n, params, seed)
        except PolicyError:
            self.server.check()
            raise

    async def close(self) -> None:
        """Release the server; the last of its policies ends it."""
        if self._open:
            self._open = False
            await self._inner.close()
            await asyncio.to_thread(server_pool.release, self.server)
