"""What the pipeline tells an exploration and a training of the run. Starts neither."""

from __future__ import annotations

from dataclasses import replace

from rro.codec import total_usage, usage_of
from rro.exploration.predictions import Predictor
from rro.exploration.sampler import ExplorationContext
from rro.exploration.strategies.base import Strategy
from rro.learning.base import TrainingContext
from rro.pipeline.run import Run
from rro.policies.base import Policy
from rro.types import Usage


def spent(run: Run, iteration: int) -> Usage:
    """What earlier processes of this run spent on an exploration."""
    kinds = ("candidate", "rollout", "episode", "prediction")
    records = (record for kind in kinds for record in run.journal.records(kind, f"{iteration}/"))
    return total_usage(records)


def exploration_context(
    run: Run,
    explorer: Policy,
    pricer: Policy,
    iteration: int,
    strategy: Strategy,
    predictor: Predictor | None = None,
    logprobs: bool = False,
) -> ExplorationContext:
    """What samplers share: candidates at the recipe's temperature for them, or the strategy's.
    `logprobs`: whether those of sampled tokens are kept."""
    params = replace(run.params, logprobs=logprobs)
    temperature = run.config.explore.proposal_temperature
    if temperature is None:
        temperature = strategy.proposal_temperature
    proposals = params if temperature is None else replace(params, temperature=temperature)
    return ExplorationContext(
        run.benchmark,
        explorer,
        pricer,
        run.journal,
        params,
        proposals,
        run.limits,
        run.config.seed,
        iteration,
        predictor=predictor,
    )


def progress_before(run: Run, iteration: int) -> float:
    """How much of the rounds is behind a round, 0 to 1: of the generated tokens that end them, or
    of their number."""
    rounds = run.config.rounds
    if rounds.generated_tokens is None:
        return min(1.0, max(0, iteration - 1) / rounds.count)
    stages = (run.journal.get("stage", f"explore-{number}") for number in range(1, iteration))
    generated = sum(usage_of(stage).generated_tokens for stage in stages if stage)
    return min(1.0, generated / rounds.generated_tokens)


def training_context(run: Run, iteration: int = 0) -> TrainingContext:
    """What a learner is told of the run; metrics go to the run folder."""
    config = run.config
    return TrainingContext(
        model=config.model,
        seed=config.seed,
        run=config.name,
        iteration=iteration,
        progress=progress_before(run, iteration),
        temperature=config.policy.temperature or 1.0,
        report_to=config.report_to,
        observe=lambda metric: run.folder.write_metric({"iteration": iteration, **metric}),
    )
