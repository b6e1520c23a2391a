"""The figures of an evaluation: each is computed here, once, from the journal's episodes.

results.json, `rro compare`, the report's page and every table read these. Knows nothing of how
episodes are run, and nothing of run folders."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from rro.codec import first_problem, from_plain, to_plain
from rro.errors import DataError, RroError
from rro.evaluation.statistics import Interval, PairedDifference, Values, task_mean
from rro.runs.journal import Journal
from rro.types import FINITE, StopReason, Usage

ANY_REWARD = (-math.inf, math.inf)
"""The range of rewards that are not known to have one."""

# (checkpoint, mode) -> task -> the rewards of its episodes
Rewards = Mapping[tuple[str, str], Values]


@dataclass
class EpisodeTotals:
    """Sums over the finished episodes of one policy in one mode: `rewards` by task, numbers of
    `episodes`, of their `steps` and of the `invalid` actions among those, `stops` by reason."""

    rewards: dict[str, list[float]] = field(default_factory=dict)
    episodes: int = 0
    steps: int = 0
    invalid: int = 0
    stops: Counter[str] = field(default_factory=Counter)
    usage: Usage = field(default_factory=Usage)

    def add(self, record: Mapping[str, Any], place: Callable[[str, str], str]) -> None:
        """Count one episode's record of the journal. Raises DataError where it has another form,
        with what `place` returns for its kind and key."""
        try:
            episode = from_plain(_Episode, record)
        except ValueError as error:
            raise DataError(
                f"{place(record['kind'], record['key'])}: damaged record "
                f"({first_problem(error)}); restore the file or start a new run"
            ) from None
        self.rewards.setdefault(episode.task, []).append(episode.reward)
        self.episodes += 1
        self.steps += len(episode.steps)
        self.invalid += sum(step.invalid for step in episode.steps)
        self.stops[episode.stop] += 1
        self.usage += episode.usage


@dataclass(frozen=True)
class _Step:
    invalid: bool


@dataclass(frozen=True)
class _Episode:
    """What is read of an evaluation's record."""

    __pydantic_config__: ClassVar = FINITE

    task: str
    reward: float
    steps: list[_Step]
    stop: StopReason
    usage: Usage


@dataclass(frozen=True)
class Evaluation:
    """One policy in one mode ("sampled" or "greedy"): means with 95 % intervals by task.

    `steps` and `invalid_actions` are means per episode. `rewards` holds, by task, one value per
    episode that did not fail; `stops` counts why episodes ended. `success` is None where it is not
    known which reward is a success, `failed` where it is not known how many episodes were asked
    for (an evaluation under way)."""

    label: str
    mode: str
    reward: Interval
    success: Interval | None
    steps: float
    invalid_actions: float
    episodes: int
    failed: int | None
    stops: Mapping[str, int]
    usage: Usage
    rewards: Values

    def plain(self) -> dict[str, Any]:
        """The form that results.json holds, see docs/data-formats.md."""
        success = self.success.plain() if self.success else None
        return to_plain(self) | {"reward": self.reward.plain(), "success": success}


@dataclass(frozen=True)
class Difference:
    """The mean reward of policy `label` minus that of policy `against`, paired by task."""

    label: str
    against: str
    mode: str
    paired: PairedDifference

    def plain(self) -> dict[str, Any]:
        """The form that results.json holds, see docs/data-formats.md."""
        names = {"mode": self.mode, "label": self.label, "against": self.against}
        return names | self.paired.plain()


def evaluation_of(
    totals: EpisodeTotals,
    label: str,
    mode: str,
    *,
    resamples: int,
    seed: int,
    success_reward: float | None = None,
    reward_range: tuple[float, float] = ANY_REWARD,
    expected: int | None = None,
) -> Evaluation:
    """The figures of at least one finished episode. A reward of `success_reward` or more is a
    success; rewards are within `reward_range`; of `expected` episodes, those that are not in
    `totals` failed."""
    success = None
    if success_reward is not None:
        successes = {
            task: [float(reward >= success_reward) for reward in values]
            for task, values in totals.rewards.items()
        }
        success = task_mean(successes, resamples, seed).within(0.0, 1.0)
    return Evaluation(
        label=label,
        mode=mode,
        reward=task_mean(totals.rewards, resamples, seed).within(*reward_range),
        success=success,
        steps=totals.steps / totals.episodes,
        invalid_actions=totals.invalid / totals.episodes,
        episodes=totals.episodes,
        failed=None if expected is None else expected - totals.episodes,
        stops={stop.value: totals.stops[stop.value] for stop in StopReason},
        usage=totals.usage,
        rewards=totals.rewards,
    )


def journalled_evaluation(
    journal: Journal,
    label: str,
    mode: str,
    *,
    expected: int,
    success_reward: float,
    reward_range: tuple[float, float] = ANY_REWARD,
    resamples: int,
    seed: int,
    kind: str = "evaluation",
) -> Evaluation:
    """`evaluation_of` what the journal holds as records of a `kind`. Raises RroError where no
    episode is finished."""
    prefix, totals = f"{label}/{mode}/", EpisodeTotals()
    # in the order of their keys, not of their end, and one record in memory at a time
    for key in sorted(record["key"] for record in journal.records(kind, prefix)):
        if (record := journal.get(kind, key)) is not None:
            totals.add(record, journal.place)
    if not totals.episodes:
        raise RroError(
            f"no episode of {label} ({mode}) was finished: see the warnings above, then resume the "
            "run"
        )
    return evaluation_of(
        totals,
        label,
        mode,
        resamples=resamples,
        seed=seed,
        success_reward=success_reward,
        reward_range=reward_range,
        expected=expected,
    )
