"""Which weights act in a run, and the policies that they make."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from rro.errors import UsageError
from rro.experts import Conversation
from rro.policies.base import Policy
from rro.processes import rank, wait_for_all
from rro.run import Run

log = logging.getLogger(__name__)


def weights_after(run: Run, iteration: int) -> Path | None:
    """The checkpoint after an iteration; None: the model as it comes, where SFT was not run."""
    label = run.folder.trained(iteration)
    stage = "sft" if iteration == 0 else f"optimise-{iteration}"
    if run.is_done(stage):
        return run.folder.checkpoint(label)
    if iteration:
        raise UsageError(f"{run.folder.path}: iteration {iteration} is not optimised yet; run rro optimise first")
    if run.config.model.name == "tiny":
        raise UsageError(f"{run.folder.path}: a model from scratch knows nothing before SFT; run rro sft first")
    log.warning("no SFT in this run: the model acts as it comes")
    return None


def make_base(run: Run, conversations: Sequence[Conversation]) -> Path | None:
    """A model from scratch is made once, its tokenizer trained on the experts' text; others are loaded by name."""
    if run.config.model.name != "tiny":
        return None
    folder = run.folder.checkpoint("base")
    if rank() == 0 and not folder.exists():
        from rro.policies.models import build_tiny

        texts = [message.content for turns in conversations for message in turns]
        partial = folder.with_name("base.partial")
        build_tiny(run.config.model.tiny, texts, run.config.seed, partial)
        partial.rename(folder)
    wait_for_all()
    return folder


def open_policy(run: Run, label: str) -> Policy:
    """The policy that acts with the weights called `label`; its name in records is `run name/label`."""
    from rro.policies.models import load_model
    from rro.policies.transformers import TransformersPolicy

    config = run.config.policy
    if config.backend != "transformers":
        raise UsageError(f"policy.backend = {config.backend!r} is not there yet: use transformers")
    weights = weights_after(run, 0) if label == "sft" else run.folder.checkpoint(label)
    model, tokenizer = load_model(run.config.model, weights, train=False)
    return TransformersPolicy(
        model,
        tokenizer,
        f"{run.config.name}/{label}",
        max_batch=config.max_batch,
        prefix_cache_tokens=config.prefix_cache_tokens,
        max_context=config.max_context,
    )


class Policies:
    """The policies of one stage, closed together at its end.

    `explorer` acts; `pricer` rolls out: the same, or the frozen SFT model where the recipe says so (IPR)."""

    def __init__(self, run: Run, label: str, *, frozen_pricer: bool = False) -> None:
        self.explorer = open_policy(run, label)
        self.pricer = open_policy(run, "sft") if frozen_pricer and label != "sft" else self.explorer

    def close(self) -> None:
        for policy in {id(policy): policy for policy in (self.explorer, self.pricer)}.values():
            asyncio.run(policy.close())
