"""vLLM as a policy: in this process where it is installed here, else in one of its own that rro
starts and stops."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING

from rro.config import Config
from rro.errors import UsageError
from rro.policies.vllm.options import engine_options, environment, find_weights, lora_options
from rro.policies.vllm.shared import borrow, give_back

if TYPE_CHECKING:
    from rro.policies.base import Policy


def open_vllm(
    config: Config, checkpoint: Path | None, name: str, logs: Path, start: Path | None = None
) -> Policy:
    """A policy called `name` of the weights in the folder `checkpoint` (None: those that
    config.model.name means). A server writes to the folder `logs`. Policies of the same whole model
    share an engine, whatever their adapters; where adapters lead from the checkpoint `start` to
    this one, the whole model is that one.

    Waits for the engine, so call it outside any event loop. Raises UsageError where there is no
    vLLM or the settings do not fit, RroError where it does not start."""
    from rro.models.chat import ChatFormat
    from rro.models.loading import load_tokenizer

    settings = config.policy.vllm
    if settings.python is None and importlib.util.find_spec("vllm") is None:
        raise UsageError(
            'policy.backend = "vllm", but this environment has no vLLM: install it in one of its own (make vllm, or see '
            "docs/policies.md) and name its interpreter in policy.vllm.python"
        )
    chat = ChatFormat(load_tokenizer(config.model, checkpoint))
    weights = find_weights(config.model, checkpoint, start)
    options, variables = (
        engine_options(config.model, config.policy, weights.whole),
        environment(config.threads),
    )
    key = json.dumps([options, str(settings.python)], sort_keys=True, default=str)
    options = {**lora_options(weights.rank), **options}
    if settings.python is None:
        from rro.policies.vllm.engine import LocalEngine, VllmPolicy

        local = borrow(key, weights, lambda: LocalEngine(options, variables))
        return VllmPolicy(local, weights, chat, name)
    from rro.policies.vllm.server import ServedEngine, ServedVllmPolicy

    log = logs / f"vllm-{name.replace('/', '-')}.log"
    served = borrow(key, weights, lambda: ServedEngine(settings, options, variables, log))
    try:
        return ServedVllmPolicy(served, weights, chat, name, config.policy.max_batch)
    except BaseException:
        give_back(served)
        raise
