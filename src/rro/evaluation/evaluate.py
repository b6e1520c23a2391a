"""Plays a policy's episodes on the test tasks into the journal. Knows no figure: what the episodes
add up to is in rro.evaluation.figures."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from rro.codec import to_plain
from rro.environments.base import Benchmark
from rro.episodes.loop import Limits, attempt_episode, open_environment, reset_checked, run_episode
from rro.policies.base import Policy
from rro.runs.journal import Journal
from rro.runs.progress import Progress
from rro.seeds import derive_seed
from rro.types import SamplingParams, StopReason, Task, Trajectory


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
    """Play `episodes` per task into the journal, under `label` and `mode`; those that it holds
    already are not repeated.

    A failed episode is not journalled: it is missing (never a reward of 0), and is played again
    when this is called again. Seeds depend on task and number, not on the label: two policies meet
    the same random numbers."""
    jobs = ((task, number) for number in range(episodes) for task in tasks)

    async def worker() -> None:
        for task, number in jobs:
            key = f"{label}/{mode}/{task.id}/{number}"
            if ("evaluation", key) not in journal:
                play = partial(_episode, benchmark, policy, task, number, params, limits, seed)
                trajectory = await attempt_episode(play, limits.retries)
                if trajectory.stop is not StopReason.FAILED:
                    journal.append("evaluation", key, to_plain(replace(trajectory, opening=())))
                progress.spend(trajectory.usage)
            progress.advance()

    await asyncio.gather(*(worker() for _ in range(min(concurrency, len(tasks) * episodes))))


async def _episode(
    benchmark: Benchmark,
    policy: Policy,
    task: Task,
    number: int,
    params: SamplingParams,
    limits: Limits,
    seed: int,
) -> Trajectory:
    """One episode; `seed` is the run's."""
    async with open_environment(benchmark, limits.step_timeout) as environment:
        opening = await reset_checked(
            environment, task, derive_seed(seed, "environment", task.id), limits.step_timeout
        )
        return await run_episode(
            environment,
            policy,
            opening,
            task=task.id,
            params=params,
            limits=limits,
            seed=derive_seed(seed, "evaluation", task.id, number),
        )
