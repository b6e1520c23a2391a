"""Which weights act in a run, and the policies that they make."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from rro import plugins
from rro.config import parse_options
from rro.episodes.experts import Conversation
from rro.errors import UsageError
from rro.pipeline.run import Run
from rro.policies.base import Policy, PolicyContext
from rro.policies.prices import priced
from rro.processes import rank, wait_for_all
from rro.runs.journal import without_envelope

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
    """The policy that acts with the weights called `label`; its name in records is `RUN/LABEL`."""
    section = run.config.policy
    log.info("loading the policy %s ...", label)
    plugin = plugins.POLICIES.find(section.backend)
    policy: Policy = plugin.make(parse_options(section, plugin, "policy"), _context(run, label))
    return priced(policy, section.prices)


def _context(run: Run, label: str) -> PolicyContext:
    config = run.config

    def find_weights() -> Path | None:
        return weights_after(run, 0) if label == "sft" else run.folder.checkpoint(label)

    return PolicyContext(
        name=f"{config.name}/{label}",
        label=label,
        model=config.model,
        settings=config.policy,
        find_weights=find_weights,
        # LoRA adapters go on top of the SFT policy, so that a frozen pricer needs no engine of its
        # own.
        start=run.folder.checkpoint("sft") if config.model.lora is not None else None,
        threads=config.threads,
        logs=run.folder.logs,
    )


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
