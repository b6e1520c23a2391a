"""Which weights act in a run, and the policies that they make."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from rro import plugins
from rro.config import parse_options
from rro.episodes.experts import Conversation
from rro.errors import RroError, UsageError
from rro.files import damaged_file, publish
from rro.pipeline.rounds import taught
from rro.pipeline.run import Run
from rro.policies.base import Policy, PolicyContext, Updatable
from rro.policies.prices import priced
from rro.processes import rank, wait_for_all
from rro.runs.folder import START
from rro.runs.journal import without_envelope

log = logging.getLogger(__name__)

UNTRAINED = "a model from scratch knows nothing before SFT; run rro sft first"
"""Why a stage cannot begin with `model.name = "tiny"`."""


def weights_after(run: Run, iteration: int) -> Path | None:
    """The checkpoint after a round; None: the untrained model, where SFT was not run. A round that
    taught nothing has that of the round before it."""
    iteration = taught(run, iteration)
    stage = "sft" if iteration == 0 else f"optimise-{iteration}"
    if run.is_done(stage):
        checkpoint = run.folder.checkpoint(run.label(iteration))
        if damaged := damaged_file(checkpoint):
            raise RroError(
                f"{checkpoint / damaged} is damaged, as by a power cut; train it again: rro run "
                f"--resume {run.folder.path}"
            )
        return checkpoint
    if iteration:
        raise UsageError(
            f"{run.folder.path}: iteration {iteration} is not optimised yet; run rro optimise first"
        )
    if run.config.model.name == "tiny":
        raise UsageError(f"{run.folder.path}: {UNTRAINED}")
    if run.config.sft is not None:
        name = run.config.model.name
        log.warning("no SFT in this run: %s acts as it is, and is called base", name)
    return None


def make_base(run: Run, conversations: Sequence[Conversation]) -> Path | None:
    """A model from scratch is made once, its tokenizer trained on the experts' text; others are
    loaded by name."""
    if run.config.model.name != "tiny":
        return None
    folder = run.folder.checkpoint("base")
    set_aside_if_damaged(folder)
    if rank() == 0 and not folder.exists():
        from rro.models.loading import build_tiny

        messages = [message for turns in conversations for message in turns]
        texts = [m.text for m in messages] + [m.tools for m in messages if m.tools]
        partial = folder.with_name("base.partial")
        shutil.rmtree(partial, ignore_errors=True)
        build_tiny(run.config.model.tiny, texts, run.config.seed, partial)
        publish(partial, folder)
    wait_for_all()
    return folder


def set_aside_if_damaged(checkpoint: Path) -> bool:
    """Rename a checkpoint that is no longer what was written, as after a power cut, so that it is
    made again. Every process of a training calls this."""
    damaged = damaged_file(checkpoint)
    wait_for_all()
    if damaged is None:
        return False
    if rank() == 0:
        aside = checkpoint.with_name(f"{checkpoint.name}.damaged")
        log.warning("%s is damaged, as by a power cut: made again", checkpoint / damaged)
        shutil.rmtree(aside, ignore_errors=True)
        checkpoint.rename(aside)
    wait_for_all()
    return True


def open_policy(run: Run, label: str) -> Policy:
    """The policy that acts with the weights called `label`; its name in records is `RUN/LABEL`. Its
    answers have no price yet."""
    section = run.config.policy
    log.info("loading the policy %s ...", label)
    if section.placement == "ray":
        from rro.policies.ray.policy import RayPolicy

        return RayPolicy(_context(run, label))
    plugin = plugins.POLICIES.find(section.backend)
    policy: Policy = plugin.make(parse_options(section, plugin, "policy"), _context(run, label))
    return policy


def _acting_policy(run: Run, label: str) -> Policy:
    """The policy with the weights called `label`. In a run of several rounds it is the one that is
    open already, if it can take them over."""
    live, context = run.live, _context(run, label)
    if live is not None and live.name != context.name and not _takes_over(live, context):
        run.live = None
        asyncio.run(live.close())
    policy = run.live or open_policy(run, label)
    if run.config.rounds.count > 1 and isinstance(policy, Updatable):
        run.live = policy
    return policy


def _takes_over(live: Policy, context: PolicyContext) -> bool:
    """Whether an open policy now answers with the context's weights."""
    weights = context.find_weights()
    if weights is None or not isinstance(live, Updatable):
        return False
    try:
        asyncio.run(live.update(weights, context.name))
    except UsageError as error:
        log.info("%s; it is opened anew", error)
        return False
    return True


def _context(run: Run, label: str) -> PolicyContext:
    config = run.config

    def find_weights() -> Path | None:
        return weights_after(run, 0) if label in START else run.folder.checkpoint(label)

    return PolicyContext(
        name=f"{config.name}/{label}",
        label=label,
        model=config.model,
        settings=config.policy,
        find_weights=find_weights,
        start=_below_adapters(run),
        threads=config.threads,
        logs=run.folder.logs,
        live=run.config.rounds.count > 1,
    )


def _below_adapters(run: Run) -> Path | None:
    """The whole model that a run's LoRA adapters go on top of, so that a frozen pricer needs no
    engine of its own: the SFT policy, or the base model."""
    model = run.config.model
    if model.lora is None:
        return None
    if run.is_done("sft") or model.name == "tiny":
        return run.folder.checkpoint("sft")
    from rro.models.loading import find_sources

    return Path(find_sources(model, None)[0])


class Policies:
    """The policies of one stage, closed at its end but for the one that lives on in the run.

    `explorer` acts; `pricer` rolls out: the same, or the frozen model that the run starts from
    where the recipe says so (IPR)."""

    def __init__(self, run: Run, label: str, stage: str, *, frozen_pricer: bool = False) -> None:
        """`stage` is what the journal calls this use of them."""
        prices, acting = run.config.policy.prices, _acting_policy(run, label)
        self.explorer = self.pricer = priced(acting, prices)
        self._own = [] if acting is run.live else [acting]
        try:
            if frozen_pricer and label not in START:
                self._own.append(open_policy(run, run.label(0)))
                self.pricer = priced(self._own[-1], prices)
            _journal_provenance(run, f"{stage}/explorer", self.explorer)
            _journal_provenance(run, f"{stage}/pricer", self.pricer)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for policy in self._own:
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
