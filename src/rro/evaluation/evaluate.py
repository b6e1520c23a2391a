"""How good a policy is: episodes on the test tasks, journalled one by one, summed up with intervals
by task.

A failed episode is missing: it is counted, and enters no mean.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rro.codec import to_plain
from rro.environments.base import Benchmark
from rro.episodes.loop import Limits, attempt_episode, open_environment, reset_checked, run_episode
from rro.errors import RroError
from rro.evaluation.statistics import Interval, PairedDifference, bootstrap_mean
from rro.policies.base import Policy
from rro.runs.journal import Journal
from rro.runs.progress import Progress
from rro.seeds import derive_seed
from rro.types import SamplingParams, StopReason, Task, Trajectory, Usage

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """One policy in one mode ("sampled" or "greedy"). `rewards` by task hold one value per episode
    that did not fail; `steps` and `invalid` are means per episode. `stops` counts why episodes
    ended."""

    label: str
    mode: str
    reward: Interval
    success: Interval
    steps: float
    invalid: float
    episodes: int
    failed: int
    stops: Mapping[str, int]
    usage: Usage
    rewards: Mapping[str, Sequence[float]]


async def evaluate(
    tasks: Sequence[Task],
    benchmark: Benchmark,
    policy: Policy,
    journal: Journal,
    *,
    label: str,
    mode: str,
    episodes: int,
    params: SamplingParams,
    limits: Limits,
    seed: int,
    concurrency: int,
    progress: Progress,
) -> None:
    """Run `episodes` per task into the journal, under `label` and `mode`; those that it holds
    already are not repeated.

    Failed episodes are not journalled: they are missing, and tried again when this is called again.
    Seeds depend on task and number, not on the label: two policies meet the same random numbers."""
    jobs = ((task, number) for number in range(episodes) for task in tasks)

    async def worker() -> None:
        for task, number in jobs:
            key = f"{label}/{mode}/{task.id}/{number}"
            if ("evaluation", key) not in journal:
                trajectory = await attempt_episode(
                    lambda task=task, number=number: _episode(  # type: ignore[misc]
                        benchmark,
                        policy,
                        task,
                        params,
                        limits,
                        derive_seed(seed, "evaluation", task.id, number),
                        seed,
                    ),
                    limits.retries,
                )
                if trajectory.stop is not StopReason.FAILED:
                    journal.append("evaluation", key, to_plain(replace(trajectory, opening=())))
                progress.spend(trajectory.usage)
            progress.advance()

    await asyncio.gather(*(worker() for _ in range(min(concurrency, len(tasks) * episodes))))


async def _episode(
    benchmark: Benchmark,
    policy: Policy,
    task: Task,
    params: SamplingParams,
    limits: Limits,
    seed: int,
    run_seed: int,
) -> Trajectory:
    async with open_environment(benchmark, limits.step_timeout) as environment:
        opening = await reset_checked(
            environment, task, derive_seed(run_seed, "environment", task.id), limits.step_timeout
        )
        return await run_episode(
            environment, policy, opening, task=task.id, params=params, limits=limits, seed=seed
        )


def summarise(
    journal: Journal,
    label: str,
    mode: str,
    expected: int,
    success_reward: float,
    resamples: int,
    seed: int,
) -> Evaluation:
    """Sum up what the journal holds under `label` and `mode`; of `expected` episodes, those that it
    lacks failed.

    Raises RroError where there is no finished episode."""
    done = sorted(
        journal.records("evaluation", f"{label}/{mode}/"), key=lambda record: str(record["key"])
    )
    if not done:
        raise RroError(
            f"no episode of {label} ({mode}) came to its end: see the warnings above, then resume the run"
        )
    rewards: dict[str, list[float]] = {}
    for record in done:
        rewards.setdefault(record["task"], []).append(record["reward"])
    successes = {
        task: [float(r >= success_reward) for r in values] for task, values in rewards.items()
    }
    return Evaluation(
        label=label,
        mode=mode,
        reward=bootstrap_mean(rewards, resamples, seed),
        success=bootstrap_mean(successes, resamples, seed),
        steps=sum(len(record["steps"]) for record in done) / len(done),
        invalid=sum(step["invalid"] for record in done for step in record["steps"]) / len(done),
        episodes=len(done),
        failed=expected - len(done),
        stops={
            stop.value: sum(record["stop"] == stop.value for record in done) for stop in StopReason
        },
        usage=sum((Usage(**record["usage"]) for record in done), Usage()),
        rewards=rewards,
    )


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """A plain form for results.json; unbounded interval ends become null."""
    return {
        "label": evaluation.label,
        "mode": evaluation.mode,
        "reward": interval_json(evaluation.reward),
        "success": interval_json(evaluation.success),
        "steps": evaluation.steps,
        "invalid_actions": evaluation.invalid,
        "episodes": evaluation.episodes,
        "failed": evaluation.failed,
        "stops": dict(evaluation.stops),
        "usage": to_plain(evaluation.usage),
        "rewards": {task: list(values) for task, values in evaluation.rewards.items()},
    }


def interval_json(interval: Interval) -> dict[str, float | int | None]:
    """JSON has no infinity: an unbounded end is null."""
    low, high = (None if abs(end) == float("inf") else end for end in (interval.low, interval.high))
    return {"mean": interval.mean, "low": low, "high": high, "n": interval.n}


def difference_json(difference: PairedDifference) -> dict[str, float | int | None]:
    """The interval, and how many tasks only one side has: they are left out of it."""
    return {
        **interval_json(difference.difference),
        "left_out": difference.only_a + difference.only_b,
    }
