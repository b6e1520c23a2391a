"""Intervals: coverage where the truth is known, laws on any data, and the cases where there is
nothing to resample."""

import math
from statistics import fmean

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from rro.errors import UsageError
from rro.evaluation.statistics import (
    Interval,
    bootstrap_mean,
    outcome_interval,
    paired_difference,
)
from rro.types import ProcessReward

RESAMPLES = 400
rewards = st.integers(0, 20).map(lambda twentieth: twentieth / 20)
tasks = st.dictionaries(
    st.text(min_size=1, max_size=3),
    st.lists(rewards, min_size=1, max_size=3),
    min_size=2,
    max_size=9,
)


def run(values):
    return {f"task{i}": [value] for i, value in enumerate(values)}


def misses(sample, truth, runs=400, n=60):
    """How often the 95 % interval lies above the truth, and how often below, over seeded runs of
    `n` tasks."""
    above = below = 0
    for seed in range(runs):
        interval = bootstrap_mean(
            run(sample(np.random.default_rng(seed), n).tolist()), RESAMPLES, seed
        )
        above += interval.low > truth
        below += interval.high < truth
    return above / runs, below / runs


@pytest.mark.parametrize(
    ("sample", "truth"),
    [
        (lambda rng, n: rng.random(n), 0.5),
        (lambda rng, n: (rng.random(n) < 0.7) * 1.0, 0.7),
        (lambda rng, n: np.where(rng.random(n) < 0.5, 1.0, rng.random(n) ** 3), 0.625),
    ],
    ids=["uniform", "success 0.7", "skewed"],
)
def test_a_95_percent_interval_holds_the_truth_about_95_times_in_100(sample, truth):
    above, below = misses(sample, truth)
    # three standard errors of 400 runs either side of 0.05, and n is finite
    assert 0.02 <= above + below <= 0.085
    assert max(above, below) <= 0.06


@pytest.mark.slow
def test_the_figures_in_the_docstring():
    """Success rate 0.97, 200 tasks: what BCa and the percentile interval miss, in percent."""
    truth, runs, missed = 0.97, 1500, np.zeros((2, 2))
    for seed in range(runs):
        sample = (np.random.default_rng(seed).random(200) < truth) * 1.0
        ours = bootstrap_mean(run(sample.tolist()), RESAMPLES, seed)
        theirs = scipy.stats.bootstrap(
            (sample,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=seed
        ).confidence_interval
        for row, interval in enumerate((ours, theirs)):
            missed[row] += interval.low > truth, interval.high < truth
    bca, percentile = 100 * missed / runs
    # to the standard error of 1,500 runs, whatever NumPy's stream
    assert bca == pytest.approx([1.5, 1.5], abs=0.7)
    assert percentile == pytest.approx([5.5, 0.9], abs=0.7)


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ([1.0] * 39 + [0.0], 0.875, 1.0),
        ([i / 10 for i in range(11)], 0.3181818181818181, 0.6909090909090909),
        ([0.0, 0.3, 0.3, 0.1, 0.7, 0.7, 1.0], 0.21428571428571427, 0.7142857142857143),
    ],
)
def test_the_same_seed_gives_the_ends_that_it_always_gave(values, low, high):
    """Recorded before the resampling was SciPy's."""
    interval = bootstrap_mean(run(values), 10_000, 0)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-9)


def test_episodes_of_one_task_stay_together():
    """100 tasks of very different difficulty, 50 equal episodes each: resampling episodes would
    give an interval about seven times too narrow."""
    values = np.random.default_rng(3).random(100)
    interval = bootstrap_mean({f"t{i}": [value] * 50 for i, value in enumerate(values)}, 2000, 0)
    standard_error = values.std(ddof=1) / 10
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * standard_error, rel=0.1)
    assert interval.n == 100


def test_the_mean_is_the_mean_of_task_means():
    assert bootstrap_mean({"a": [1.0, 1.0, 1.0, 0.0], "b": [0.0]}, RESAMPLES, 0).mean == 0.375


def test_a_skewed_sample_gets_a_skewed_interval():
    """BCa: one failure in 40 leaves more room below than a percentile interval, none above 1."""
    interval = bootstrap_mean(run([1.0] * 39 + [0.0]), 10_000, 0)
    assert interval.mean == 0.975
    assert interval.low <= 0.90
    assert 0.975 < interval.high <= 1.0


def test_one_task_says_nothing_about_others_and_equal_tasks_give_a_point():
    assert bootstrap_mean({"a": [0.25, 0.75]}, RESAMPLES, 0) == Interval(
        0.5, -math.inf, math.inf, 1
    )
    assert bootstrap_mean(run([0.1] * 3), RESAMPLES, 0) == Interval(0.1, 0.1, 0.1, 3)


def test_a_task_without_values_is_missing_and_not_zero():
    assert bootstrap_mean({"a": [0.5], "b": [], "c": [0.5]}, RESAMPLES, 0) == Interval(
        0.5, 0.5, 0.5, 2
    )
    with pytest.raises(UsageError, match="no task has a value"):
        bootstrap_mean({"a": [], "b": []}, RESAMPLES, 0)
    with pytest.raises(ValueError, match="task a"):
        bootstrap_mean({"a": [math.nan], "b": [1.0]}, RESAMPLES, 0)


@pytest.mark.parametrize(("resamples", "level"), [(99, 0.95), (100, 0.0), (100, 1.0), (100, 95)])
def test_impossible_settings_are_refused(resamples, level):
    with pytest.raises(ValueError, match="level"):
        bootstrap_mean(run([0.0, 1.0]), resamples, 0, level)


def test_the_seed_decides_and_a_higher_level_is_wider():
    values = run(np.random.default_rng(0).random(30).tolist())
    assert bootstrap_mean(values, RESAMPLES, 1) == bootstrap_mean(values, RESAMPLES, 1)
    assert bootstrap_mean(values, RESAMPLES, 1) != bootstrap_mean(values, RESAMPLES, 2)
    narrow, wide = (bootstrap_mean(values, 4000, 1, level) for level in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


@given(tasks, st.integers(0, 5))
def test_law_the_interval_lies_within_the_values(values, seed):
    means = [fmean(episodes) for episodes in values.values()]
    interval = bootstrap_mean(values, RESAMPLES, seed)
    assert min(means) - 1e-9 <= interval.low <= interval.high <= max(means) + 1e-9


@given(tasks, st.randoms(use_true_random=False))
def test_law_order_and_names_of_tasks_do_not_matter(values, random):
    episodes = list(values.values())
    random.shuffle(episodes)
    renamed = {f"other {i}": list(reversed(e)) for i, e in enumerate(episodes)}
    assert bootstrap_mean(renamed, RESAMPLES, 0) == bootstrap_mean(values, RESAMPLES, 0)


@given(tasks, st.integers(-40, 40))
def test_law_a_shift_moves_everything_alike(values, quarters):
    shift = quarters / 4
    moved = {task: [value + shift for value in episodes] for task, episodes in values.items()}
    before, after = bootstrap_mean(values, RESAMPLES, 0), bootstrap_mean(moved, RESAMPLES, 0)
    for name in ("mean", "low", "high"):
        assert getattr(after, name) == pytest.approx(getattr(before, name) + shift, abs=1e-9)


@given(tasks)
def test_law_a_run_does_not_differ_from_itself(values):
    n = len(values)
    result = paired_difference(values, dict(reversed(values.items())), RESAMPLES, 0)
    assert (result.difference, result.only_a, result.only_b) == (Interval(0.0, 0.0, 0.0, n), 0, 0)


@given(tasks, tasks)
def test_law_swapping_the_runs_swaps_the_sign(a, b):
    a, b = a | {"both": [0.5], "both 2": [1.0]}, b | {"both": [0.25], "both 2": [0.0]}
    there, back = paired_difference(a, b, RESAMPLES, 0), paired_difference(b, a, RESAMPLES, 0)
    assert there.difference.mean == pytest.approx(-back.difference.mean)
    assert (there.only_a, there.only_b, there.difference.n) == (
        back.only_b,
        back.only_a,
        back.difference.n,
    )


def test_pairing_sees_a_small_gain_that_the_spread_of_tasks_hides():
    rng = np.random.default_rng(0)
    difficulty = rng.random(80) * 0.9
    gain = difficulty + 0.05 + 0.02 * rng.standard_normal(80)
    better, worse = run(gain.tolist()), run(difficulty.tolist())
    assert paired_difference(better, worse, 2000, 0).difference.low > 0.04
    assert bootstrap_mean(better, 2000, 0).low < bootstrap_mean(worse, 2000, 0).high


def test_paired_difference_says_what_it_left_out():
    a = {"a": [1.0], "b": [0.5, 1.0], "only a": [0.0]}
    b = {"a": [0.5], "b": [0.25], "failed": [], "x": [1.0], "y": [1.0]}
    result = paired_difference(a, b, RESAMPLES, 0)
    assert (result.difference, result.only_a, result.only_b) == (Interval(0.5, 0.5, 0.5, 2), 1, 2)
    with pytest.raises(UsageError, match="share no task"):
        paired_difference(a, {"z": [1.0]}, RESAMPLES, 0)


@pytest.mark.parametrize(
    ("n", "quantile"),
    [(2, 12.706205), (5, 2.776445), (11, 2.228139), (12, 2.200985), (31, 2.042272)],
)
def test_the_interval_of_a_process_reward_is_students(n, quantile):
    outcomes = tuple(float(i % 2) for i in range(n))
    spread = np.std(outcomes, ddof=1)
    interval = outcome_interval(ProcessReward(outcomes, "m"))
    assert interval.high - interval.mean == pytest.approx(quantile * spread / math.sqrt(n))
    assert interval.high - interval.mean == pytest.approx(interval.mean - interval.low)
    assert (interval.mean, interval.n) == (pytest.approx(fmean(outcomes)), n)


def test_the_interval_of_one_outcome_and_of_an_exact_one():
    assert outcome_interval(ProcessReward((0.5,), "m")) == Interval(0.5, -math.inf, math.inf, 1)
    exact = ProcessReward((0.5,), "m", exact=True)
    assert outcome_interval(exact) == Interval(0.5, 0.5, 0.5, 1)
    assert outcome_interval(ProcessReward((0.1,) * 3, "m")) == Interval(0.1, 0.1, 0.1, 3)
