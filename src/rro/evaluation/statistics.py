"""Means and their confidence intervals: of an evaluation by task, of a paired difference, and of a
process reward.

The unit of resampling is the task: episodes of one task share its difficulty, so they stay together
(a cluster bootstrap). Intervals are BCa (Efron 1987; SciPy's), not percentile: rewards in [0, 1]
pile up at their ends, and on such skewed values the percentile interval misses mostly on one side.
At a success rate of 0.97 over 200 tasks, a 95 % percentile interval missed in 6.4 % of 1,500 runs,
5.5 of them above the truth; BCa in 3.0 %, 1.5 on either side (`pytest -m slow
tests/evaluation/test_statistics.py`). Below some 30 tasks both are too narrow.

Knows nothing of runs, files or episodes: numbers go in, numbers come out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
import numpy.typing as npt

from rro.errors import UsageError
from rro.types import ProcessReward

Values = Mapping[str, Sequence[float]]

# Resampled values in memory at once: SciPy would hold resamples x tasks of them.
_BLOCK = 2**20
_FEWEST_RESAMPLES = 100


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over `n` tasks (or outcomes) and its confidence interval: (-inf, inf) for one of them,
    a point where all are equal."""

    mean: float
    low: float
    high: float
    n: int

    def plain(self) -> dict[str, float | int | None]:
        """The form that JSON files hold. JSON has no infinity: an unbounded end is null."""
        low, high = (end if math.isfinite(end) else None for end in (self.low, self.high))
        return {"mean": self.mean, "low": low, "high": high, "n": self.n}


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """a - b over the tasks both have (positive: a is better), and how many tasks only one of them
    has."""

    difference: Interval
    only_a: int
    only_b: int

    def plain(self) -> dict[str, float | int | None]:
        """The interval's form, and in `left_out` how many tasks only one side has."""
        return {**self.difference.plain(), "left_out": self.only_a + self.only_b}


def bootstrap_mean(
    values_by_task: Values, resamples: int, seed: int, level: float = 0.95
) -> Interval:
    """Mean of the tasks' means, with a BCa interval from `resamples` resamples of tasks.

    `values_by_task` holds one value per episode. A task without values (all its episodes failed) is
    missing, not 0, and not in `n`. The result depends on the values and the seed, not on the order
    or names of the tasks. Raises UsageError where no task has a value, ValueError for a value that
    is not finite, a level outside (0, 1) or fewer than 100 resamples."""
    means = _task_means(values_by_task)
    if not means:
        raise UsageError("no task has a value to average: every episode failed, or none was run")
    return _interval(list(means.values()), resamples, seed, level)


def paired_difference(
    a: Values, b: Values, resamples: int, seed: int, level: float = 0.95
) -> PairedDifference:
    """Mean of a - b over the tasks with values in both, with a BCa interval as in `bootstrap_mean`.

    Pairing by task removes the tasks' difficulty from the comparison. Raises UsageError where they
    share no task."""
    means_a, means_b = _task_means(a), _task_means(b)
    common = means_a.keys() & means_b.keys()
    if not common:
        raise UsageError(
            "the two runs share no task with a value: "
            "compare runs that were evaluated on the same tasks"
        )
    differences = [means_a[task] - means_b[task] for task in common]
    interval = _interval(differences, resamples, seed, level)
    return PairedDifference(interval, len(means_a) - len(common), len(means_b) - len(common))


def outcome_interval(reward: ProcessReward, level: float = 0.95) -> Interval:
    """A process reward with Student's t interval over its `n` outcomes; a point where it is exact.

    With n around 5 it is descriptive: equal outcomes give a point although the value is not known
    exactly."""
    # imported here, as in `_interval`: SciPy takes half a second to load
    from scipy.special import stdtrit

    if reward.exact:
        return Interval(reward.mean, reward.mean, reward.mean, reward.n)
    if reward.n == 1:
        return Interval(reward.mean, -math.inf, math.inf, 1)
    quantile = float(stdtrit(reward.n - 1, (1 + level) / 2))
    half = quantile * stdev(reward.outcomes) / math.sqrt(reward.n)
    return Interval(reward.mean, reward.mean - half, reward.mean + half, reward.n)


def _task_means(values_by_task: Values) -> dict[str, float]:
    for task, values in values_by_task.items():
        if not all(math.isfinite(value) for value in values):
            raise ValueError(f"task {task}: values must be finite, got {list(values)}")
    return {task: fmean(values) for task, values in values_by_task.items() if len(values)}


def _interval(values: list[float], resamples: int, seed: int, level: float) -> Interval:
    if not 0 < level < 1 or resamples < _FEWEST_RESAMPLES:
        raise ValueError(
            f"level {level} is not in (0, 1), or resamples {resamples} not at least "
            f"{_FEWEST_RESAMPLES}"
        )
    if len(values) == 1:
        return Interval(values[0], -math.inf, math.inf, 1)
    # fmean may be off by a rounding error here
    if min(values) == max(values):
        return Interval(values[0], values[0], values[0], len(values))
    from scipy.stats import bootstrap

    mean = fmean(values)
    # sorted: the order of the tasks must not matter
    deviations = np.sort(np.asarray(values) - mean)
    scale = float(np.abs(deviations).max())
    ends = bootstrap(
        (deviations / scale,),
        _mean,
        n_resamples=resamples,
        batch=max(1, _BLOCK // len(values)),
        confidence_level=level,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(
        mean, mean + scale * float(ends.low), mean + scale * float(ends.high), len(values)
    )


def _mean(values: npt.NDArray[np.float64], axis: int) -> npt.NDArray[np.float64]:
    """Means of deviations from the mean of the sample, which is 0. BCa counts those below it and
    half of those equal to it, so a rounding error must not tell equal ones apart."""
    means = values.mean(axis=axis)
    return np.where(np.abs(means) < 1e-12, 0.0, means)
