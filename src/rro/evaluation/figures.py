"""The figures of an evaluation: each is computed here, once, from the journal's episodes.

results.json, `rro compare`, the report's page and every table read these. Knows nothing of how
episodes are run, and nothing of run folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rro.codec import to_plain, usage_of
from rro.errors import RroError
from rro.evaluation.statistics import Interval, PairedDifference, Values, bootstrap_mean
from rro.runs.journal import Journal
from rro.types import StopReason, Usage

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

    def add(self, record: Mapping[str, Any]) -> None:
        """Count one "evaluation" record of the journal."""
        self.rewards.setdefault(record["task"], []).append(record["reward"])
        self.episodes += 1
        self.steps += len(record["steps"])
        self.invalid += sum(step["invalid"] for step in record["steps"])
        self.stops[record["stop"]] += 1
        self.usage += usage_of(record)


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
    expected: int | None = None,
) -> Evaluation:
    """The figures of at least one finished episode. A reward of `success_reward` or more is a
    success; of `expected` episodes, those that are not in `totals` failed."""
    success = None
    if success_reward is not None:
        successes = {
            task: [float(reward >= success_reward) for reward in values]
            for task, values in totals.rewards.items()
        }
        success = bootstrap_mean(successes, resamples, seed)
    return Evaluation(
        label=label,
        mode=mode,
        reward=bootstrap_mean(totals.rewards, resamples, seed),
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
    resamples: int,
    seed: int,
) -> Evaluation:
    """`evaluation_of` what the journal holds. Raises RroError where no episode is finished."""
    prefix, totals = f"{label}/{mode}/", EpisodeTotals()
    # in the order of their keys, not of their end, and one record in memory at a time
    for key in sorted(record["key"] for record in journal.records("evaluation", prefix)):
        if (record := journal.get("evaluation", key)) is not None:
            totals.add(record)
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
        expected=expected,
    )
