"""Which weights act in a run, and the policies that they make."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rro.episodes.experts import Conversation
from rro.errors import UsageError
from rro.pipeline.run import Run
from rro.policies.base import Policy
from rro.policies.prices import priced
from rro.processes import rank, wait_for_all
from rro.runs.journal import without_envelope

if TYPE_CHECKING:
    from rro.models.chat import ChatFormat
    from rro.policies.api.endpoint import ServedModel

log = logging.getLogger(__name__)


def weights_after(run: Run, iteration: int) -> Path | None:
    """The checkpoint after an iteration; None: the model as it comes, where SFT was not run."""
    label = run.folder.trained(iteration)
    stage = "sft" if iteration == 0 else f"optimise-{iteration}"
    if run.is_done(stage):
        return run.folder.checkpoint(label)
    if iteration:
        raise UsageError(
            f"{run.folder.path}: iteration {iteration} is not optimised yet; run rro optimise first"
        )
    if run.config.model.name == "tiny":
        raise UsageError(
            f"{run.folder.path}: a model from scratch knows nothing before SFT; run rro sft first"
        )
    log.warning("no SFT in this run: the model acts as it comes")
    return None


def make_base(run: Run, conversations: Sequence[Conversation]) -> Path | None:
    """A model from scratch is made once, its tokenizer trained on the experts' text; others are
    loaded by name."""
    if run.config.model.name != "tiny":
        return None
    folder = run.folder.checkpoint("base")
    if rank() == 0 and not folder.exists():
        from rro.models.loading import build_tiny

        texts = [message.content for turns in conversations for message in turns]
        partial = folder.with_name("base.partial")
        build_tiny(run.config.model.tiny, texts, run.config.seed, partial)
        partial.rename(folder)
    wait_for_all()
    return folder


def open_policy(run: Run, label: str) -> Policy:
    """The policy that acts with the weights called `label`; its name in records is `run
    name/label`."""
    config = run.config.policy
    return priced(_BACKENDS[config.backend](run, label), config.prices)


def _transformers(run: Run, label: str) -> Policy:
    from rro.models.loading import load_model
    from rro.policies.local.policy import TransformersPolicy
    from rro.policies.local.replicas import ReplicatedPolicy

    config, name = run.config.policy, f"{run.config.name}/{label}"
    weights = weights_after(run, 0) if label == "sft" else run.folder.checkpoint(label)
    settings = config.model_dump(include={"max_batch", "prefix_cache_tokens", "max_context"})
    if config.replicas > 1:
        return ReplicatedPolicy(
            run.config.model, weights, name, config.replicas, run.config.threads, settings
        )
    model, tokenizer = load_model(run.config.model, weights, train=False)
    return TransformersPolicy(model, tokenizer, name, **settings)


def _openai(run: Run, label: str) -> Policy:
    from rro.policies.api.client import connect, disconnect
    from rro.policies.api.endpoint import list_models
    from rro.policies.api.opening import open_served

    config = run.config.policy
    server = connect(config.openai)
    try:
        weights = _trained_weights(run, label)
        model = _served_model(run, label, weights, list_models(server))
        chat = _chat_format(run, weights) if config.openai.tokens != "none" else None
        return open_served(
            config.openai, model, f"{run.config.name}/{label}", chat, config.max_context
        )
    finally:
        disconnect(server)


def _vllm(run: Run, label: str) -> Policy:
    from rro.policies.vllm.policy import open_vllm

    weights = weights_after(run, 0) if label == "sft" else run.folder.checkpoint(label)
    # What LoRA made of the SFT policy goes on top of it, so that the frozen pricer needs no engine
    # of its own.
    start = run.folder.checkpoint("sft") if run.config.model.lora is not None else None
    return open_vllm(run.config, weights, f"{run.config.name}/{label}", run.folder.logs, start)


# By policy.backend: run and label to the policy. Each imports what it needs when it is called.
_BACKENDS: dict[str, Callable[[Run, str], Policy]] = {
    "transformers": _transformers,
    "vllm": _vllm,
    "openai": _openai,
}


def _trained_weights(run: Run, label: str) -> Path | None:
    """This run's checkpoint; None where it has none of its own, so that the model acts as it
    comes."""
    if label == "sft" and not run.is_done("sft"):
        log.warning("no SFT in this run: the served model acts as it comes")
        return None
    return run.folder.checkpoint(label)


def _served_model(
    run: Run, label: str, weights: Path | None, models: Sequence[ServedModel]
) -> ServedModel:
    """What the server, which lists `models`, calls the weights `label`. Raises UsageError where it
    does not serve them by name: another model's answers would be taken for theirs."""
    from rro.policies.api.endpoint import ServedModel

    settings, listed = run.config.policy.openai, {model.id: model for model in models}
    names = [settings.models[label]] if label in settings.models else []
    if weights is not None:
        names = names or [
            name for name in (f"{run.config.name}/{label}", str(weights), label) if name in listed
        ]
    else:
        names = names or [name for name in (settings.model,) if name] or list(listed)
    ids = ", ".join(listed) or "no models"
    if weights is not None and not names:
        raise UsageError(
            f"{settings.base_url} does not serve this run's weights {label!r} (it lists {ids}): serve {weights} and name "
            f'it in policy.openai.models.{label}, or let rro serve it with policy.backend = "vllm"'
        )
    if len(names) != 1:
        raise UsageError(f"{settings.base_url} lists {ids}: choose one in policy.openai.model")
    if listed and names[0] not in listed:
        raise UsageError(
            f"{settings.base_url} has no model {names[0]!r}; it lists {ids}: set policy.openai.model"
        )
    return listed.get(names[0], ServedModel(names[0]))


def _chat_format(run: Run, weights: Path | None) -> ChatFormat | None:
    """The format of the weights' own tokenizer; None where the model is not here to read it
    from."""
    from rro.models.chat import ChatFormat
    from rro.models.loading import load_tokenizer

    if weights is None and run.config.model.name == "tiny":
        return None  # made from the experts' text, so not what a server has
    try:
        return ChatFormat(load_tokenizer(run.config.model, weights))
    except UsageError as error:
        if weights is not None or run.config.policy.openai.tokens == "require":
            raise
        log.warning("no tokenizer for token ids: %s", error)
        return None


class Policies:
    """The policies of one stage, closed together at its end.

    `explorer` acts; `pricer` rolls out: the same, or the frozen SFT model where the recipe says so
    (IPR)."""

    def __init__(self, run: Run, label: str, stage: str, *, frozen_pricer: bool = False) -> None:
        """`stage` is what the journal calls this use of them."""
        self.explorer = self.pricer = open_policy(run, label)
        try:
            if frozen_pricer and label != "sft":
                self.pricer = open_policy(run, "sft")
            _journal_provenance(run, f"{stage}/explorer", self.explorer)
            _journal_provenance(run, f"{stage}/pricer", self.pricer)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for policy in {id(policy): policy for policy in (self.explorer, self.pricer)}.values():
            asyncio.run(policy.close())


def _journal_provenance(run: Run, what: str, policy: Policy) -> None:
    """One record per policy of a stage, and another where a resumed stage meets something else than
    before."""
    now = {"policy": policy.name, **policy.provenance}
    before = list(run.journal.records("policy", f"{what}/"))
    if before and without_envelope(before[-1]) == now:
        return
    if before:
        log.warning("%s: the policy is not served as before: %s", what, dict(policy.provenance))
    run.journal.append("policy", f"{what}/{len(before)}", now)
