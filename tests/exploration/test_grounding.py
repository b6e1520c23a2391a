"""The statements of docs/grounding.md on random trees, by exact arithmetic
(tests/exact_trees.py)."""

import math
from fractions import Fraction as F
from itertools import pairwise
from random import Random

import pytest
from exact_trees import (
    candidates,
    chance,
    episodes,
    estimates,
    forest,
    nodes,
    rising_step,
    spread,
    trees,
    value,
)
from hypothesis import given
from hypothesis import strategies as st

from rro.environments.base import Environment
from rro.exploration.forks import restore_checked
from rro.types import Message, StepResult, Task


def check_statements_1_and_2(drawn, upper):
    mean, deviation = spread(drawn)
    strict, weak = chance(drawn, lambda x: x > mean), chance(drawn, lambda x: x >= mean)
    assert weak > 0
    assert (strict > 0) == (len({x for _, x in drawn}) > 1) == (deviation > 0)
    if deviation:
        bound = deviation / (2 * (upper - mean))
        assert strict >= bound
        assert (strict == bound) == all(x <= mean or x == upper for _, x in drawn)
        assert (
            1 / strict <= 2 * (upper - mean) / deviation
        )  # expected draws of a geometric variable


# -- the identity


@pytest.mark.parametrize("low", [0, -1])
def test_the_value_of_a_step_is_the_mean_of_the_next_steps_candidates(low):
    for tree in forest(low):
        for node in nodes(tree):
            for _, following in node:
                estimated = sum(
                    p * outcome for p, outcome in episodes(following)
                )  # r(h, a), by enumeration
                assert isinstance(following, F) or estimated == sum(
                    p * x for p, x in candidates(following)
                )


@given(trees())
def test_process_rewards_along_an_episode_of_the_policy_are_a_martingale(tree):
    start = layer = [(F(1), tree)]
    while any(not isinstance(subtree, F) for _, subtree in layer):
        layer = [
            (p * q, after)
            for p, before in layer
            for q, after in (((F(1), before),) if isinstance(before, F) else before)
        ]
        assert sum(p * value(subtree) for p, subtree in layer) == value(start[0][1])


# -- statements 1 and 2


@pytest.mark.parametrize("low", [0, -1])
def test_statements_1_and_2_on_seeded_trees(low):
    steps = [node for tree in forest(low) for node in nodes(tree)]
    assert (
        sum(len({x for _, x in candidates(node)}) > 1 for node in steps) > 200
    )  # the test is about something
    for node in steps:
        check_statements_1_and_2(candidates(node), F(1))


@given(trees())
def test_statements_1_and_2_on_any_tree(tree):
    for node in nodes(tree):
        check_statements_1_and_2(candidates(node), F(1))


@given(trees())
def test_weak_rising_goes_through_to_an_outcome_no_worse_than_the_start(tree):
    def worst(node):
        if isinstance(node, F):
            return node
        return min(worst(subtree) for p, subtree in node if p and value(subtree) >= value(node))

    assert worst(tree) >= value(tree)


@pytest.mark.parametrize("mean", [F(1, 10), F(1, 2), F(9, 10)])
def test_two_points_attain_the_bound(mean):
    drawn = [(mean, F(1)), (1 - mean, F(0))]
    assert spread(drawn) == (mean, 2 * mean * (1 - mean))
    assert 2 * (1 - mean) / spread(drawn)[1] == 1 / mean == 1 / chance(drawn, lambda x: x > mean)


def test_a_value_between_the_mean_and_the_upper_end_makes_the_bound_loose():
    drawn = [(F(1, 2), F(3, 4)), (F(1, 2), F(1, 4))]
    assert chance(drawn, lambda x: x > F(1, 2)) == F(1, 2) > F(1, 4) / (2 * F(1, 2))


@given(trees())
def test_the_bound_promises_no_less_than_its_least(tree):
    for node in nodes(tree):
        mean, deviation = spread(candidates(node))
        if deviation:
            assert 2 * (1 - mean) / deviation >= 2 / (mean + 1)  # (B - A) / (mu - A)


@pytest.mark.parametrize("same", [F(1), F(1, 3), F(0)])
def test_equal_candidates_rise_weakly_at_once_and_strictly_never(same):
    drawn = [(F(1, 4), same), (F(3, 4), same)]
    assert {count for count, _ in rising_step(drawn, same, 4)} == {4}
    assert {count for count, _ in rising_step(drawn, same, 4, strict=False)} == {1}


# -- stopping at K


@given(trees(), st.integers(1, 4))
def test_draws_up_to_the_cap(tree, cap):
    drawn = candidates(tree)
    mean, deviation = spread(drawn)
    p = chance(drawn, lambda x: x > mean)
    results = rising_step(drawn, mean, cap)
    assert sum(results.values()) == 1
    none_rose = sum(q for (_, chosen), q in results.items() if drawn[chosen][1] <= mean)
    expected = sum(count * q for (count, _), q in results.items())
    assert none_rose == (1 - p) ** cap
    assert (
        none_rose <= math.exp(-cap * deviation / (2 * (1 - mean))) * (1 + 1e-12)
        if deviation
        else none_rose == 1
    )
    assert expected == ((1 - (1 - p) ** cap) / p if p else cap)
    assert expected <= (min(cap, 2 * (1 - mean) / deviation) if deviation else cap)


def test_seeded_draws_take_as_long_as_a_geometric_variable_says():
    drawn = [(F(1, 5), F(1)), (F(2, 5), F(1, 2)), (F(2, 5), F(0))]  # mu = 2/5, P(rise) = 3/5
    random, total = Random(0), 0
    for _ in range(4000):
        total += 1
        while random.choices([x for _, x in drawn], [float(p) for p, _ in drawn])[0] <= F(2, 5):
            total += 1
    assert total / 4000 == pytest.approx(5 / 3, abs=5 * math.sqrt(10 / 9 / 4000))
    assert F(5, 3) < 2 * (1 - F(2, 5)) / spread(drawn)[1]


@given(trees(), st.integers(1, 3), st.booleans())
def test_statement_3_the_committed_trajectory_does_not_fall_on_average(tree, cap, strict):
    def committed(node):
        """The expected outcome of the trajectory that exploration with exact values commits to."""
        if isinstance(node, F):
            return node
        drawn, following = candidates(node), [subtree for p, subtree in node if p]
        results = rising_step(drawn, value(node), cap, strict)
        assert sum(p * drawn[chosen][1] for (_, chosen), p in results.items()) >= value(node)
        return sum(p * committed(following[chosen]) for (_, chosen), p in results.items())

    assert committed(tree) >= value(tree)
    if cap == 1:
        assert committed(tree) == value(tree)


def test_a_single_step_may_fall_when_none_rose():
    drawn = [(F(1, 2), F(1)), (F(1, 2), F(0))]
    assert rising_step(drawn, F(1, 2), 2)[2, 1] == F(1, 4)  # both draws were the bad candidate


# -- estimates from N rollouts


@given(trees(), st.integers(1, 3))
def test_noisy_prices_keep_the_mean_and_spread_at_least_as_much(tree, n):
    noisy = [
        (p * q, estimate)
        for p, subtree in tree
        if p
        for estimate, q in estimates(subtree, n).items()
    ]
    mean, deviation = spread(candidates(tree))
    assert spread(noisy)[0] == mean
    assert spread(noisy)[1] >= deviation
    check_statements_1_and_2(noisy, F(1))
    if deviation:
        assert 1 / chance(noisy, lambda x: x > mean) <= 2 * (1 - mean) / deviation


def test_equal_candidates_seem_to_rise_when_priced_by_rollouts():
    coin = ((F(1, 2), F(1)), (F(1, 2), F(0)))
    drawn = [(p, estimate) for estimate, p in estimates(coin, 5).items()]
    assert chance(drawn, lambda x: x > F(1, 2)) == F(
        1, 2
    )  # although d = 0: every such rise is noise


@given(trees(), st.integers(-8, 7), st.integers(1, 2))
def test_statement_4_any_threshold(tree, eighths, n):
    threshold = F(eighths, 8)
    noisy = [
        (p * q, estimate)
        for p, subtree in tree
        if p
        for estimate, q in estimates(subtree, n).items()
    ]
    for drawn in (candidates(tree), noisy):
        mean, deviation = spread(drawn)
        rises = chance(drawn, lambda x: x > threshold)
        assert rises >= (deviation / 2 - max(threshold - mean, F(0))) / (1 - threshold)
        assert rises >= (mean - threshold) / (1 - threshold)


def test_a_threshold_at_the_upper_end_is_never_exceeded():
    coin = ((F(1, 2), F(1)), (F(1, 2), F(0)))
    assert estimates(coin, 5)[F(1)] == F(1, 32)  # five lucky rollouts
    drawn = [(p, estimate) for estimate, p in estimates(coin, 5).items()]
    assert {count for count, _ in rising_step(drawn, F(1), 3)} == {3}


@pytest.mark.parametrize("success", [F(1, 10), F(1, 2), F(4, 5)])
@pytest.mark.parametrize("n", [1, 5])
def test_hoeffding_holds_for_one_price_and_k_fold_for_the_chosen_one(success, n):
    coin = ((success, F(1)), (1 - success, F(0)))
    drawn = [(p, estimate) for estimate, p in estimates(coin, n).items()]
    results = rising_step(drawn, success, 3)
    for tenths in range(1, 10):
        bound = math.exp(-2 * n * (tenths / 10) ** 2)
        high = success + F(tenths, 10)
        chosen = sum(p for (_, index), p in results.items() if drawn[index][1] >= high)
        assert chance(drawn, lambda x, high=high: x >= high) <= bound
        assert chosen <= 3 * bound


def test_the_figures_on_the_page():
    one = math.exp(-2 * 5 * 0.3**2)
    assert (round(one, 2), round(5 * one, 1)) == (0.41, 2.0)


def test_winners_curse_a_chosen_price_is_too_high_on_average():
    coin = ((F(1, 2), F(1)), (F(1, 2), F(0)))
    drawn = [(p, estimate) for estimate, p in estimates(coin, 5).items()]
    bias = [
        sum(p * drawn[index][1] for (_, index), p in rising_step(drawn, F(1, 2), cap).items())
        - F(1, 2)
        for cap in (1, 2, 3)
    ]
    assert bias[0] == 0
    assert bias[0] < bias[1] < bias[2]


@given(st.integers(0, 8), st.integers(0, 8), st.integers(1, 5))
def test_prices_order_two_candidates_wrongly_no_more_often_than_the_bound(a, b, n):
    low, high = sorted((F(a, 8), F(b, 8)))
    worse, better = (estimates(((p, F(1)), (1 - p, F(0))), n) for p in (low, high))
    wrong = sum(p * q for x, p in worse.items() for y, q in better.items() if x > y)
    assert wrong <= math.exp(-n * float(high - low) ** 2)


# -- the start, and environments that are not deterministic


@given(trees(low=0))
def test_a_start_at_zero_rises_at_least_as_often_as_the_mean(tree):
    drawn = candidates(tree)
    assert chance(drawn, lambda x: x > 0) >= spread(drawn)[0]


def test_a_start_at_zero_is_above_everything_where_rewards_are_negative():
    drawn = [(F(1, 2), F(-1, 4)), (F(1, 2), F(-3, 4))]
    assert {count for count, _ in rising_step(drawn, F(0), 4)} == {4}
    assert {count for count, _ in rising_step(drawn, spread(drawn)[0], 4)} == {1, 2, 3, 4}


def test_after_a_bad_random_answer_nothing_reaches_the_step_before():
    good, bad = ((F(1), F(1)),), ((F(1), F(0)),)
    step_before = value(
        ((F(1, 2), good), (F(1, 2), bad))
    )  # the environment's own coin, not the policy's
    assert step_before == F(1, 2)
    assert chance(candidates(bad), lambda x: x >= step_before) == 0
    check_statements_1_and_2(candidates(bad), F(1))  # against V(h_t) they hold


class Gamble(Environment):
    """Pays 1 or 0 at even odds; the random stream is part of its state, so forks of it share their
    luck."""

    def reset(self, task, seed=0):
        self.random = Random(seed)
        return [Message("user", "Gamble?")]

    def step(self, action):
        return StepResult("", reward=float(self.random.random() < 0.5), done=True)

    def snapshot(self):
        return self.random.getstate()

    def restore(self, snapshot):
        self.random.setstate(snapshot)


def forked_outcomes(seed, forks=5):
    gamble = Gamble()
    gamble.reset(Task("any"), seed)
    state, outcomes = gamble.snapshot(), []
    for _ in range(forks):
        fork = Gamble()
        fork.reset(Task("any"), 0)
        restore_checked(fork, state)
        outcomes.append(fork.step(Message("assistant", "yes")).reward)
    return outcomes


def test_forks_that_hold_the_random_stream_price_luck():
    """Five rollouts never disagree, so the estimate is 0 or 1, while the gamble is worth 1/2."""
    prices_by_seed = [set(forked_outcomes(seed)) for seed in range(40)]
    assert all(len(outcomes) == 1 for outcomes in prices_by_seed)
    assert 10 < sum(outcomes == {1.0} for outcomes in prices_by_seed) < 30


def test_random_trees_have_the_cases_that_matter():
    steps = [node for tree in forest(0) for node in nodes(tree)]
    assert any(not p for node in steps for p, _ in node)
    assert any(spread(candidates(node))[1] == 0 for node in steps)
    assert any(value(node) == 1 for node in steps)
    assert any(
        before != after for node in steps for (_, before), (_, after) in pairwise(candidates(node))
    )
