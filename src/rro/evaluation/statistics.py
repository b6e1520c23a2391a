"""Means with honest intervals, paired differences, and the share of rising steps by stage.

The unit of resampling is the task: episodes of one task share its difficulty, so they stay together
(a cluster bootstrap). Intervals are BCa (Efron 1987), not percentile: rewards in [0, 1] pile up at
their ends, and on such skewed values the percentile interval misses mostly on one side. At a
success rate of 0.97 over 200 tasks, a 95 % percentile interval missed in 6.4 % of 1,500 runs, 5.5
of them above the truth; BCa in 3.0 %, 1.5 on either side (`pytest -m slow
tests/evaluation/test_statistics.py`). Below some 30 tasks both are too narrow.

Knows nothing of runs, files or episodes: numbers by task go in, numbers come out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

import numpy as np
import numpy.typing as npt

from rro.errors import UsageError

Values = Mapping[str, Sequence[float]]
_BLOCK = 2**20  # resampled values held at once


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over `n` tasks and its confidence interval: (-inf, inf) for one task, a point where
    all are equal."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """a - b over the tasks both have (positive: a is better), and how many tasks only one of them
    has."""

    difference: Interval
    only_a: int
    only_b: int


def bootstrap_mean(
    values_by_task: Values, resamples: int, seed: int, level: float = 0.95
) -> Interval:
    """Mean of the tasks' means, with a BCa interval from `resamples` resamples of tasks.

    `values_by_task` holds one value per episode. A task without values (all its episodes failed) is
    missing, not 0, and not in `n`. The result depends on the values and the seed, not on the order
    or names of the tasks. Raises UsageError where no task has a value, ValueError for a value that
    is not finite or a level outside (0, 1)."""
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
            "the two runs share no task with a value: compare runs that were evaluated on the same tasks"
        )
    differences = [means_a[task] - means_b[task] for task in common]
    interval = _interval(differences, resamples, seed, level)
    return PairedDifference(interval, len(means_a) - len(common), len(means_b) - len(common))


def _task_means(values_by_task: Values) -> dict[str, float]:
    for task, values in values_by_task.items():
        if not all(math.isfinite(value) for value in values):
            raise ValueError(f"task {task}: values must be finite, got {list(values)}")
    return {task: fmean(values) for task, values in values_by_task.items() if len(values)}


def _interval(values: list[float], resamples: int, seed: int, level: float) -> Interval:
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level {level} is not in (0, 1), or resamples {resamples} not at least 1")
    if len(values) == 1:
        return Interval(values[0], -math.inf, math.inf, 1)
    if min(values) == max(values):  # fmean may be off by a rounding error here
        return Interval(values[0], values[0], values[0], len(values))
    mean = fmean(values)
    deviations = np.sort(
        np.asarray(values) - mean
    )  # sorted: the order of the tasks must not matter
    resampled = _resampled_means(deviations, resamples, seed)
    low, high = np.quantile(resampled, _bca_levels(deviations, resampled, level))
    return Interval(mean, mean + float(low), mean + float(high), len(values))


def _resampled_means(
    values: npt.NDArray[np.float64], resamples: int, seed: int
) -> npt.NDArray[np.float64]:
    """Means of `resamples` samples of len(values) drawn with replacement, in blocks that bound the
    memory."""
    generator = np.random.default_rng(seed)
    n, rows = len(values), max(1, _BLOCK // len(values))
    sizes = [min(rows, resamples - done) for done in range(0, resamples, rows)]
    return np.concatenate(
        [values[generator.integers(n, size=(size, n))].mean(axis=1) for size in sizes]
    )


def _bca_levels(
    deviations: npt.NDArray[np.float64], resampled: npt.NDArray[np.float64], level: float
) -> tuple[float, float]:
    """Which quantiles of the resampled means (of deviations from the mean) bound the interval.

    `bias` is how far the mean lies from their median, `acceleration` a sixth of the jackknife's
    skewness; both 0 give the percentile interval. |acceleration| <= 1/6, so the denominator is
    positive at any usual level."""
    normal = NormalDist()
    tie = 1e-12 * float(np.abs(deviations).max())
    below = float(np.mean(resampled < -tie) + np.mean(np.abs(resampled) <= tie) / 2)
    floor = 0.5 / len(resampled)
    bias = normal.inv_cdf(min(max(below, floor), 1 - floor))
    acceleration = float((deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5))

    def corrected(z: float) -> float:
        return normal.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))

    z = normal.inv_cdf((1 + level) / 2)
    return corrected(-z), corrected(z)
