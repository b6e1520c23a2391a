"""Plays a policy's episodes on held-out tasks into the journal. Knows no figure: what the episodes
add up to is in rro.evaluation.figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from rro.codec import to_plain
from rro.concurrency import for_each
from rro.environments.base import Benchmark
from rro.episodes.loop import Limits, attempt_episode, play_task
from rro.policies.base import Policy
from rro.runs.journal import Journal
from rro.runs.progress import Progress
from rro.seeds import derive_seed
from rro.types import SamplingParams, StopReason, Task, Trajectory

OPENING = "opening"
"""The kind of the records that hold an evaluated task's first messages."""


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
    kind: str = "evaluation",
) -> Counter[str]:
    """Play `episodes` per task into the journal, under `label` and `mode`, as records of a `kind`;
    those that it holds already are not repeated. How each task begins is a record of its own.

    A failed episode is not journalled: it is missing (never a reward of 0), and is played again
    when this is called again. Returns how many failed, by the class of the error. Seeds depend on
    task and number, not on the label: two policies meet the same random numbers."""
    failed = Counter[str]()
    jobs = ((task, number) for number in range(episodes) for task in tasks)

    async def work(job: tuple[Task, int]) -> None:
        task, number = job
        key = f"{label}/{mode}/{task.id}/{number}"
        if (kind, key) not in journal:
            play = partial(
                play_task,
                benchmark,
                policy,
                task,
                params=params,
                limits=limits,
                seed=derive_seed(seed, "evaluation", task.id, number),
                environment_seed=derive_seed(seed, "environment", task.id),
            )
            trajectory = await attempt_episode(play, limits.retries)
            if trajectory.stop is not StopReason.FAILED:
                _keep_opening(trajectory, journal)
                journal.append(kind, key, to_plain(replace(trajectory, opening=())))
            else:
                error = str(trajectory.error).partition(":")[0]
                failed[error] += 1
                progress.fail(error)
            progress.spend(trajectory.usage)
        progress.advance()

    await for_each(jobs, work, min(concurrency, len(tasks) * episodes))
    return failed


def _keep_opening(episode: Trajectory, journal: Journal) -> None:
    """Journal once how a task begins: all its episodes begin alike."""
    if (OPENING, episode.task) not in journal:
        messages = [to_plain(message) for message in episode.opening]
        journal.append(OPENING, episode.task, {"messages": messages})
