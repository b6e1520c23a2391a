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
    BOOTSTRAP_TASKS,
    FEWEST_TASKS,
    Interval,
    crossed_difference,
    crossed_mean,
    outcome_interval,
    paired_difference,
    task_mean,
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
# of each rule: no interval, Student's t, and resampling
sizes = st.sampled_from([1, FEWEST_TASKS, BOOTSTRAP_TASKS])


def enough(values, number=BOOTSTRAP_TASKS):
    """So many tasks more, with the episodes of `values` in turn."""
    episodes = list(values.values())
    more = {f"more {place}": episodes[place % len(episodes)] for place in range(number)}
    return values | more


def no_interval(mean, n):
    return Interval(mean, -math.inf, math.inf, n)


def run(values):
    return {f"task{i}": [value] for i, value in enumerate(values)}


def misses(sample, truth, runs=400, n=60):
    """How often the 95 % interval lies above the truth, and how often below, over seeded runs of
    `n` tasks."""
    above = below = 0
    for seed in range(runs):
        interval = task_mean(run(sample(np.random.default_rng(seed), n).tolist()), RESAMPLES, seed)
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


@pytest.mark.parametrize("n", [FEWEST_TASKS, 32, BOOTSTRAP_TASKS - 2])
def test_few_tasks_keep_their_95_percent(n):
    """Rewards in [0, 1] that pile up at both ends, paired under the null; exact to four standard
    errors of 2,000 runs. BCa holds the truth in 90 % at 20 tasks."""
    runs, held = 2000, 0
    rng = np.random.default_rng(n)
    for _ in range(runs):
        a, b = (np.clip(rng.normal(0.5, 0.5, n), 0, 1).tolist() for _ in range(2))
        interval = paired_difference(run(a), run(b), RESAMPLES, 0).difference
        held += interval.low <= 0 <= interval.high
    assert 0.93 <= held / runs <= 0.97


@pytest.mark.slow
def test_the_figures_in_the_docstring():
    """Success rate 0.97, 200 tasks: what BCa and the percentile interval miss, in percent."""
    truth, runs, missed = 0.97, 1500, np.zeros((2, 2))
    for seed in range(runs):
        sample = (np.random.default_rng(seed).random(200) < truth) * 1.0
        ours = task_mean(run(sample.tolist()), RESAMPLES, seed)
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
        ([1.0] * 59 + [0.0], 0.9, 1.0),
        ([i / 59 for i in range(60)], 0.4268361581920904, 0.5734463276836158),
    ],
)
def test_the_same_seed_gives_the_ends_that_it_always_gave(values, low, high):
    """Of BCa; Student's t and no interval do not depend on it."""
    interval = task_mean(run(values), 10_000, 0)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-9)


def test_episodes_of_one_task_stay_together():
    """100 tasks of very different difficulty, 50 equal episodes each: resampling episodes would
    give an interval about seven times too narrow."""
    values = np.random.default_rng(3).random(100)
    interval = task_mean({f"t{i}": [value] * 50 for i, value in enumerate(values)}, 2000, 0)
    standard_error = values.std(ddof=1) / 10
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * standard_error, rel=0.1)
    assert interval.n == 100


def test_the_mean_is_the_mean_of_task_means():
    assert task_mean({"a": [1.0, 1.0, 1.0, 0.0], "b": [0.0]}, RESAMPLES, 0).mean == 0.375


def test_a_skewed_sample_gets_a_skewed_interval():
    """BCa: one failure in 60 leaves more room below than a percentile interval, none above 1."""
    interval = task_mean(run([1.0] * 57 + [0.0] * 3), 10_000, 0)
    assert interval.mean == 0.95
    assert interval.mean - interval.low > 1.3 * (interval.high - interval.mean)
    assert interval.high <= 1.0


@pytest.mark.parametrize("n", [1, 2, FEWEST_TASKS - 1])
def test_few_tasks_have_a_mean_and_no_interval(n):
    for values in ([0.25] * n, [number % 2 for number in range(n)]):
        assert task_mean(run(values), RESAMPLES, 0) == no_interval(fmean(values), n)
    assert task_mean({"a": [0.25, 0.75]}, RESAMPLES, 0) == no_interval(0.5, 1)


@pytest.mark.parametrize("n", [FEWEST_TASKS, BOOTSTRAP_TASKS - 1])
def test_below_fifty_tasks_the_interval_is_students_whatever_the_seed(n):
    values = np.random.default_rng(n).random(n).tolist()
    found = task_mean(run(values), RESAMPLES, 0)
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found == task_mean(run(values), RESAMPLES, 1)
    enough = (3 * values)[:BOOTSTRAP_TASKS]
    assert task_mean(run(enough), RESAMPLES, 0) != task_mean(run(enough), RESAMPLES, 1)


def test_equal_tasks_give_a_point():
    for n in (FEWEST_TASKS, BOOTSTRAP_TASKS):
        assert task_mean(run([0.1] * n), RESAMPLES, 0) == Interval(0.1, 0.1, 0.1, n)


def test_a_task_without_values_is_missing_and_not_zero():
    assert task_mean({"a": [0.5], "b": [], "c": [0.5]}, RESAMPLES, 0) == no_interval(0.5, 2)
    with pytest.raises(UsageError, match="no task has a value"):
        task_mean({"a": [], "b": []}, RESAMPLES, 0)
    with pytest.raises(ValueError, match="task a"):
        task_mean({"a": [math.nan], "b": [1.0]}, RESAMPLES, 0)


@pytest.mark.parametrize(("resamples", "level"), [(99, 0.95), (100, 0.0), (100, 1.0), (100, 95)])
def test_impossible_settings_are_refused(resamples, level):
    with pytest.raises(ValueError, match="level"):
        task_mean(run([0.0, 1.0]), resamples, 0, level)


def test_the_seed_decides_and_a_higher_level_is_wider():
    values = run(np.random.default_rng(0).random(60).tolist())
    assert task_mean(values, RESAMPLES, 1) == task_mean(values, RESAMPLES, 1)
    assert task_mean(values, RESAMPLES, 1) != task_mean(values, RESAMPLES, 2)
    narrow, wide = (task_mean(values, 4000, 1, level) for level in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


@given(tasks, st.integers(0, 5))
def test_law_the_interval_lies_within_the_values(values, seed):
    values = enough(values)
    means = [fmean(episodes) for episodes in values.values()]
    interval = task_mean(values, RESAMPLES, seed)
    assert min(means) - 1e-9 <= interval.low <= interval.high <= max(means) + 1e-9


@given(tasks, sizes, st.randoms(use_true_random=False))
def test_law_order_and_names_of_tasks_do_not_matter(values, number, random):
    values = enough(values, number)
    episodes = list(values.values())
    random.shuffle(episodes)
    renamed = {f"other {i}": list(reversed(e)) for i, e in enumerate(episodes)}
    assert task_mean(renamed, RESAMPLES, 0) == task_mean(values, RESAMPLES, 0)


@given(tasks, sizes, st.integers(-40, 40))
def test_law_a_shift_moves_everything_alike(values, number, quarters):
    values = enough(values, number)
    shift = quarters / 4
    moved = {task: [value + shift for value in episodes] for task, episodes in values.items()}
    before, after = task_mean(values, RESAMPLES, 0), task_mean(moved, RESAMPLES, 0)
    for name in ("mean", "low", "high"):
        assert getattr(after, name) == pytest.approx(getattr(before, name) + shift, abs=1e-9)


@given(tasks)
def test_law_a_run_does_not_differ_from_itself(values):
    values = enough(values)
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
    assert task_mean(better, 2000, 0).low < task_mean(worse, 2000, 0).high


def test_paired_difference_says_what_it_left_out():
    a = {"a": [1.0], "b": [0.5, 1.0], "only a": [0.0]}
    b = {"a": [0.5], "b": [0.25], "failed": [], "x": [1.0], "y": [1.0]}
    result = paired_difference(a, b, RESAMPLES, 0)
    assert (result.difference, result.only_a, result.only_b) == (no_interval(0.5, 2), 1, 2)
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


def cells(rng, seeds, tasks, of_seed, of_task, rest):
    """Rewards by seed and task whose expectation over seeds and tasks is 0."""
    table = of_seed * rng.standard_normal((seeds, 1)) + of_task * rng.standard_normal((1, tasks))
    table = table + rest * rng.standard_normal((seeds, tasks))
    return {seed: run(row) for seed, row in enumerate(table.tolist())}


@pytest.mark.parametrize("tasks", [20, 100])
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(
    "spreads", [(0, 0, 1), (0.3, 0.2, 1), (0.02, 0.6, 0.6), (0.2, 1, 1)], ids=str
)
def test_an_interval_over_seeds_and_tasks_holds_the_truth(spreads, seeds, tasks):
    """Whether seeds or tasks decide, or neither: to three standard errors below 95 %."""
    rng, runs, held = np.random.default_rng(0), 600, 0
    for _ in range(runs):
        interval = crossed_mean(cells(rng, seeds, tasks, *spreads))
        held += interval.low <= 0 <= interval.high
    assert held / runs >= 0.92


def test_seeds_and_tasks_each_widen_the_interval():
    """Where rewards differ between seeds alone, and between tasks alone, it is Student's t of
    these."""
    levels = np.random.default_rng(0).random(60).tolist()
    for found, values in (
        (crossed_mean({seed: run(levels) for seed in range(4)}), levels),
        (crossed_mean({seed: run([levels[seed]] * 60) for seed in range(4)}), levels[:4]),
    ):
        expected = scipy.stats.ttest_1samp(values, 0).confidence_interval()
        assert found.mean == pytest.approx(fmean(values))
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_a_crossed_mean_of_one_seed_or_few_tasks_has_no_interval():
    rng = np.random.default_rng(0)
    for seeds, tasks in ((1, 60), (4, FEWEST_TASKS - 1)):
        values = cells(rng, seeds, tasks, 1, 1, 1)
        found = crossed_mean(values)
        assert found == no_interval(
            pytest.approx(fmean(fmean(v) for s in values.values() for v in s.values())), tasks
        )
    point = crossed_mean({seed: run([0.25] * FEWEST_TASKS) for seed in range(2)})
    assert point == Interval(0.25, 0.25, 0.25, FEWEST_TASKS)


def test_a_task_that_failed_at_one_seed_is_left_out_at_all():
    """Its difficulty would be taken for a difference of seeds."""
    table = cells(np.random.default_rng(0), 3, 30, 0, 1, 0)
    whole = crossed_mean({seed: {**values, "task0": [9.0]} for seed, values in table.items()})
    torn = {**table, 1: {**table[1], "task0": []}}
    without = {
        seed: {t: v for t, v in values.items() if t != "task0"} for seed, values in table.items()
    }
    assert crossed_mean(torn) == crossed_mean(without) != whole
    with pytest.raises(UsageError, match="every seed"):
        crossed_mean({0: {"a": [1.0]}, 1: {"b": [1.0]}})


def test_methods_are_compared_where_they_share_seed_and_task():
    rng = np.random.default_rng(0)
    table = cells(rng, 4, 40, 1, 1, 1)
    better = {
        seed: {task: [v + 0.1 for v in values] for task, values in by_task.items()}
        for seed, by_task in table.items()
    }
    found = crossed_difference({**better, 9: table[0]}, table)
    assert (found.difference.low, found.difference.high) == pytest.approx((0.1, 0.1))
    assert (found.difference.n, found.only_a, found.only_b) == (40, 0, 0)
    extra = {seed: {**values, "extra": [1.0]} for seed, values in table.items()}
    assert crossed_difference(extra, table).only_a == 1
    with pytest.raises(UsageError, match="share no seed"):
        crossed_difference({1: table[1]}, {2: table[2]})
