"""The statements of docs/grounding.md on what N rollouts change, by exact arithmetic on trees whose
every outcome and estimate is enumerated."""

import math
from fractions import Fraction as F

import pytest
from exact_trees import candidates, chance, estimates, rising_step, spread, trees, value
from hypothesis import given, settings
from hypothesis import strategies as st


def leaves_of(tree, outcome):
    """The same tree with other outcomes."""
    if isinstance(tree, F):
        return outcome(tree)
    return tuple((p, leaves_of(subtree, outcome)) for p, subtree in tree)


BINARY = trees(low=0).map(lambda tree: leaves_of(tree, lambda reward: F(int(reward > F(1, 2)))))
THRESHOLDS = st.integers(-1, 8).map(lambda eighths: F(eighths, 8))


def noisy(node, n):
    """(probability, estimate, true value) of a candidate."""
    return [
        (p * q, estimate, value(subtree))
        for p, subtree in node
        if p
        for estimate, q in estimates(subtree, n).items()
    ]


def committed_value(node, n, threshold, cap):
    """The expected true value of the candidate that a step commits."""
    drawn = noisy(node, n)
    results = rising_step([(p, estimate) for p, estimate, _ in drawn], threshold, cap)
    return sum(p * drawn[chosen][2] for (_, chosen), p in results.items())


# -- statement 5


@settings(max_examples=40, deadline=None)
@given(BINARY, st.integers(1, 3), st.integers(1, 2), THRESHOLDS)
def test_statement_5_a_step_does_not_fall_on_average_whatever_the_threshold(tree, n, cap, theta):
    assert committed_value(tree, n, theta, cap) >= value(tree)


@settings(max_examples=40, deadline=None)
@given(BINARY, st.integers(1, 2), THRESHOLDS)
def test_statement_5_holds_where_equal_actions_share_their_rollouts(tree, n, theta):
    options = [(p, subtree) for p, subtree in tree if p]

    def step(drawn, seen):
        """Three draws at most; `seen` has the estimate of each action that was drawn."""
        if drawn and seen[drawn[-1]] > theta:
            return value(options[drawn[-1]][1])
        if len(drawn) == 3:
            return value(options[max(drawn, key=lambda action: seen[action])][1])
        total = F(0)
        for action, (p, subtree) in enumerate(options):
            known = {seen[action]: F(1)} if action in seen else estimates(subtree, n)
            for estimate, q in known.items():
                total += p * q * step([*drawn, action], {**seen, action: estimate})
        return total

    assert step([], {}) >= value(tree)


@settings(max_examples=25, deadline=None)
@given(BINARY, st.integers(1, 2))
def test_committed_values_are_a_submartingale_with_the_thresholds_of_the_paper(tree, n):
    def end(node, threshold):
        """The expected outcome; each step's threshold is the estimate that its state was chosen
        for."""
        if isinstance(node, F):
            return node
        options = [
            (p * q, estimate, subtree)
            for p, subtree in node
            if p
            for estimate, q in estimates(subtree, n).items()
        ]
        results = rising_step([(p, estimate) for p, estimate, _ in options], threshold, 2)
        assert sum(p * value(options[i][2]) for (_, i), p in results.items()) >= value(node)
        return sum(p * end(options[i][2], options[i][1]) for (_, i), p in results.items())

    for start in (F(0), F(1, 2), F(1)):
        assert end(tree, start) >= value(tree)


def test_graded_outcomes_have_no_such_guarantee():
    gamble = ((F(2, 5), F(1)), (F(3, 5), F(0)))
    state = ((F(1, 2), F(1, 2)), (F(1, 2), gamble))
    assert value(state) == F(45, 100)
    assert committed_value(state, 1, F(1, 2), 3) == F(4485, 10000) < value(state)


# -- an unbiased threshold, false rises


@settings(max_examples=40, deadline=None)
@given(trees(low=-1), st.integers(1, 2), st.integers(1, 3))
def test_statement_6_an_unbiased_independent_threshold(tree, n, threshold_rollouts):
    thresholds = estimates(tree, threshold_rollouts)
    assert sum(p * theta for theta, p in thresholds.items()) == value(tree)
    drawn = [(p, estimate) for p, estimate, _ in noisy(tree, n)]
    rises = sum(
        p * chance(drawn, lambda x, theta=theta: x > theta) for theta, p in thresholds.items()
    )
    assert rises >= spread(candidates(tree))[1] / (2 * 2)  # B - A = 2


@pytest.mark.parametrize("mean", [F(1, 10), F(1, 2), F(9, 10)])
def test_statement_6_is_attained_by_two_points(mean):
    drawn = [(mean, F(1)), (1 - mean, F(-1))]
    rises = sum(p * chance(drawn, theta.__lt__) for p, theta in drawn)
    assert rises == spread(drawn)[1] / (2 * 2)


@settings(max_examples=40, deadline=None)
@given(trees(low=-1), st.integers(1, 3))
def test_statement_7_false_rises(tree, n):
    thresholds, mean, shortfall = estimates(tree, n), value(tree), 0.0
    for p, subtree in tree:
        worse_by = float(mean - value(subtree))
        if p and worse_by >= 0:
            rises = sum(
                q * chance([(q2, x) for x, q2 in estimates(subtree, n).items()], theta.__lt__)
                for theta, q in thresholds.items()
            )
            assert rises <= math.exp(-n * (worse_by / 2) ** 2) + 1e-12
            shortfall += float(p * rises) * worse_by
    assert shortfall <= 2 / math.sqrt(2 * math.e * n)


@settings(max_examples=40, deadline=None)
@given(trees(low=-1), st.integers(1, 3))
def test_equal_candidates_rise_falsely_at_most_half_of_the_time(tree, n):
    """A candidate that is worth what the state is, as its estimate has the threshold's law."""
    drawn = [(q, x) for x, q in estimates(tree, n).items()]
    rises = sum(q * chance(drawn, theta.__lt__) for q, theta in drawn)
    ties = sum(q * chance(drawn, theta.__eq__) for q, theta in drawn)
    assert rises == (1 - ties) / 2


@settings(max_examples=40, deadline=None)
@given(BINARY, st.integers(1, 3), THRESHOLDS)
def test_what_rises_is_worth_more_on_average_where_outcomes_are_0_and_1(tree, n, theta):
    rising = [(p, true) for p, estimate, true in noisy(tree, n) if estimate > theta]
    assert sum(p * true for p, true in rising) >= sum(p for p, _ in rising) * value(tree)


# -- which N


def variance(tree):
    mean, drawn = value(tree), candidates(tree)
    return sum(p * (x - mean) ** 2 for p, x in drawn)


def gain_of_a_draw(tree, n, theta):
    """Cov(X, [rise]): what a draw adds to a step without a cap."""
    return sum(p * (true - value(tree)) for p, estimate, true in noisy(tree, n) if estimate > theta)


@settings(max_examples=60, deadline=None)
@given(BINARY, st.integers(1, 4), THRESHOLDS)
def test_statement_8_a_rollout_gains_at_most_the_variance_and_one_a_candidate_gains_it(
    tree, n, theta
):
    assert 0 <= gain_of_a_draw(tree, n, theta) <= n * variance(tree)
    if 0 <= theta < 1:
        assert gain_of_a_draw(tree, 1, theta) == variance(tree)


@settings(max_examples=30, deadline=None)
@given(BINARY, st.integers(1, 3))
def test_a_step_with_one_rollout_and_a_cap_in_closed_form(tree, cap):
    mean = value(tree)
    if not 0 < mean < 1:
        return
    none = (1 - mean) ** cap
    gained = variance(tree) * ((1 - none) / mean - none / (1 - mean))
    assert committed_value(tree, 1, F(0), cap) == mean + gained


def geometric_gain(tree, n, theta):
    """Per step without a cap: E[X | rise] - mu."""
    rises = sum(p for p, estimate, _ in noisy(tree, n) if estimate > theta)
    return gain_of_a_draw(tree, n, theta) / rises


def test_more_rollouts_gain_more_a_step_and_less_a_rollout():
    def worth(x):
        return ((x, F(1)), (1 - x, F(0)))

    tree = tuple((F(1, 3), worth(F(tenths, 10))) for tenths in (2, 5, 8))
    a_step = [geometric_gain(tree, n, F(1, 2)) for n in (1, 3, 5)]
    a_rollout = [gain_of_a_draw(tree, n, F(1, 2)) / n for n in (1, 3, 5)]
    assert a_step == sorted(a_step)
    assert a_rollout == sorted(a_rollout, reverse=True)
    assert [round(float(g), 3) for g in a_step] == [0.12, 0.158, 0.177]
    assert [round(float(g), 3) for g in a_rollout] == [0.06, 0.026, 0.018]


@pytest.mark.parametrize("n", [1, 5])
def test_the_bound_on_the_shortfall_on_the_page(n):
    assert round(1 / math.sqrt(2 * math.e * n), 2) == {1: 0.43, 5: 0.19}[n]
