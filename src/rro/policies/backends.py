"""rro's own policy backends: how each opens a policy with a run's weights.

Found through `rro.plugins.POLICIES`. Each imports what it needs when it is called. Knows a run only
by its `PolicyContext`."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rro.errors import UsageError
from rro.plugins import checked_by, needing
from rro.policies.api.settings import OpenAIConfig
from rro.policies.base import Policy, PolicyContext
from rro.policies.vllm.settings import VllmConfig

if TYPE_CHECKING:
    from rro.models.chat import ChatFormat
    from rro.policies.api.endpoint import ServedModel

log = logging.getLogger(__name__)


@needing("weights")
def open_transformers(context: PolicyContext) -> Policy:
    """A Transformers model in this process, or in several (`policy.replicas`)."""
    from rro.models.loading import load_model
    from rro.policies.local.policy import TransformersPolicy
    from rro.policies.local.replicas import ReplicatedPolicy

    replicas, weights = context.settings.replicas, context.find_weights()
    settings = context.settings.model_dump(
        include={"max_batch", "prefix_cache_tokens", "max_context"}
    )
    if replicas > 1:
        return ReplicatedPolicy(
            context.model, weights, context.name, replicas, context.threads, settings
        )
    model, tokenizer = load_model(context.model, weights, train=False)
    return TransformersPolicy(model, tokenizer, context.name, **settings)


def check_vllm(options: VllmConfig) -> str:
    """Where vLLM runs. Raises UsageError if its interpreter is missing, or has no vLLM."""
    from rro.policies.vllm.server import find_interpreter

    python = find_interpreter(options)
    command = [
        str(python),
        "-c",
        "import importlib.util as u; print(u.find_spec('vllm') is not None)",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.stdout.strip() != "True":
        raise UsageError(f"policy.vllm.python {python} has no vLLM: make vllm, or name another")
    return f"vLLM of {python}"


def check_openai(options: OpenAIConfig) -> str:
    """What the server lists. Raises UsageError if it does not answer, or refuses our key."""
    from rro.policies.api.client import connect, disconnect
    from rro.policies.api.endpoint import list_models

    client = connect(options)
    try:
        names = [model.id for model in list_models(client)]
    finally:
        disconnect(client)
    return f"{options.base_url} lists {', '.join(names) or 'no models'}"


@needing("weights")
@checked_by(check_vllm)
def open_vllm(options: VllmConfig, context: PolicyContext) -> Policy:
    """A vLLM server that rro starts. Raises UsageError if the settings do not fit, RroError if the
    server does not start."""
    from rro.policies.vllm.policy import open_vllm as start

    _one_process(context, "vllm", "; vLLM has data_parallel_size in policy.vllm.options")
    return start(options, context)


@checked_by(check_openai)
def open_openai(options: OpenAIConfig, context: PolicyContext) -> Policy:
    """A model on a server that runs already. Raises UsageError if the server does not answer, or
    does not have the run's weights."""
    from rro.policies.api.client import connect, disconnect
    from rro.policies.api.endpoint import list_models
    from rro.policies.api.opening import open_served

    _one_process(context, "openai", "")
    client = connect(options)
    try:
        weights = _trained_weights(context)
        model = _served_model(options, context, weights, list_models(client))
        chat = None if options.tokens == "none" else _chat_format(options, context, weights)
        limit = context.settings.max_context
        return open_served(options, model, context.name, chat, limit, context.model)
    finally:
        disconnect(client)


def _one_process(context: PolicyContext, backend: str, hint: str) -> None:
    if context.settings.replicas > 1:
        raise UsageError(
            f'policy.replicas is for backend = "transformers", not for "{backend}"{hint}'
        )
    if backend == "openai" and context.settings.placement == "ray":
        raise UsageError(
            'policy.placement = "ray" is for models that rro runs: leave it out, a served model '
            "has its own machines"
        )


def _trained_weights(context: PolicyContext) -> Path | None:
    """The run's checkpoint; None if there was no SFT: the served model then acts untrained."""
    try:
        return context.find_weights()
    except UsageError:
        if context.label != "base":
            raise
        log.warning("no SFT in this run: the served model acts untrained")
        return None


def _served_model(
    options: OpenAIConfig,
    context: PolicyContext,
    weights: Path | None,
    models: Sequence[ServedModel],
) -> ServedModel:
    """The name of the weights among `models`, which the server lists. Raises UsageError if it does
    not serve them by name, because another model's answers would be taken for theirs."""
    from rro.policies.api.endpoint import ServedModel

    label, listed = context.label, {model.id: model for model in models}
    names = [options.models[label]] if label in options.models else []
    if weights is not None:
        names = names or [name for name in (context.name, str(weights), label) if name in listed]
    else:
        names = names or [name for name in (options.model,) if name] or list(listed)
    ids = ", ".join(listed) or "no models"
    if weights is not None and not names:
        raise UsageError(
            f"{options.base_url} does not serve this run's weights {label!r} (it lists {ids}): "
            f"serve {weights} and name it in policy.openai.models.{label}, or let rro serve it "
            'with policy.backend = "vllm"'
        )
    if len(names) != 1:
        raise UsageError(f"{options.base_url} lists {ids}: choose one in policy.openai.model")
    if listed and names[0] not in listed:
        raise UsageError(
            f"{options.base_url} has no model {names[0]!r}; it lists {ids}: set policy.openai.model"
        )
    return listed.get(names[0], ServedModel(names[0]))


def _chat_format(
    options: OpenAIConfig, context: PolicyContext, weights: Path | None
) -> ChatFormat | None:
    """The format of the weights' own tokenizer; None if it is not on this machine."""
    from rro.models.chat import ChatFormat
    from rro.models.loading import load_tokenizer

    if weights is None and context.model.name == "tiny":
        # made from the experts' text, so not what a server has
        return None
    try:
        return ChatFormat(load_tokenizer(context.model, weights))
    except UsageError as error:
        if weights is not None or options.tokens == "require":
            raise
        log.warning("no tokenizer for token ids: %s", error)
        return None
