"""Posteriors against known answers and laws, and the prior that states suggest."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rro.errors import UsageError
from rro.exploration.beliefs import FIRMNESS, Evidence, Prior, Scale
from rro.types import ProcessReward

COUNTS = st.floats(0, 60)
SEEN = st.builds(Evidence, COUNTS, COUNTS) | st.floats(0, 1).map(
    lambda value: Evidence(exact=value)
)
CELL = 1 / 50


def estimate(*outcomes, exact=False):
    return ProcessReward(outcomes, "policy", exact)


def only(firmness, centers=19):
    """A prior that is certain of the firmness, and nearly of a centre of 1/2."""
    weights = np.zeros((len(FIRMNESS), centers))
    weights[FIRMNESS.index(firmness), centers // 2] = 1.0
    return Prior(weights, weights)


def by_sum(a, b, c, d):
    """P(Beta(a, b) > Beta(c, d)) for whole numbers: a sum of products of factorials."""

    def beta(x, y):
        return math.exp(math.lgamma(x) + math.lgamma(y) - math.lgamma(x + y))

    return sum(beta(c + i, b + d) / ((b + i) * beta(1 + i, b) * beta(c, d)) for i in range(a))


@given(*[st.integers(0, 12)] * 4)
def test_with_a_uniform_prior_it_is_the_order_of_two_betas(a, b, c, d):
    """Firmness 2 around 1/2 is Beta(1, 1). What is left of 1 is within one cell."""
    posterior = only(2.0).posterior([Evidence(a, b), Evidence(c, d)])
    truth = by_sum(a + 1, b + 1, c + 1, d + 1)
    above, below = posterior.above(0, 1), posterior.above(1, 0)
    assert above - 0.005 <= truth <= 1 - below + 0.005
    assert 1 - above - below < 0.2
    mean = (a + 1) / (a + b + 2) - (c + 1) / (c + d + 2)
    assert abs(posterior.gap(0, 1) - mean) < 0.005


def test_equal_values_are_no_order():
    tied = only(math.inf).posterior([Evidence(9, 0), Evidence(0, 9)])
    assert (tied.above(0, 1), tied.above(1, 0), tied.gap(0, 1)) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("prior", [Prior.fixed(), None], ids=["fixed", "fitted"])
def test_any_number_of_outcomes_and_of_siblings_has_an_order(prior):
    many = [Evidence(60_000.0, 40_000.0), Evidence(40_000.0, 60_000.0)]
    posterior = (prior or Prior.fitted([many, many])).posterior(many)
    assert (posterior.above(0, 1), posterior.above(1, 0)) == (1.0, 0.0)
    assert abs(posterior.gap(0, 1) - 0.2) < CELL
    # as the centre may be anywhere, 300 ends of the same value make equality as good as sure
    ends = [*[Evidence(exact=0.5)] * 300, Evidence(1, 0)]
    last = (prior or Prior.fitted([ends])).posterior(ends)
    assert 0 <= last.above(300, 0) <= 1


def test_known_values_are_compared_as_they_are():
    seen = [*(Evidence(exact=value) for value in (0.8, 0.301, 0.3)), Evidence(2, 0)]
    posterior = Prior.fitted([]).posterior(seen)
    assert (posterior.above(0, 1), posterior.above(1, 0), posterior.above(1, 2)) == (1.0, 0.0, 1.0)
    assert posterior.gap(0, 1) == pytest.approx(0.5, abs=CELL)
    assert posterior.above(3, 1) > 0.7


@given(st.lists(SEEN, min_size=2, max_size=6))
def test_one_of_two_is_above_or_they_are_equal(siblings):
    posterior = Prior.fitted([]).posterior(siblings)
    above, below = posterior.above(0, 1), posterior.above(1, 0)
    assert min(above, below) >= 0
    assert above + below <= 1 + 1e-9
    assert abs(posterior.gap(0, 1) + posterior.gap(1, 0)) < 1e-9


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 10), SEEN)
def test_successes_lift_and_failures_lower(a, b, more, other):
    prior = only(2.0)

    def gap(successes, failures):
        return prior.posterior([Evidence(successes, failures), other]).gap(0, 1)

    assert gap(a + more, b) >= gap(a, b) - 1e-9 >= gap(a, b + more) - 2e-9


# -- the prior of a run


def drawn(rng, tied, states=300, outcomes=4):
    """States with three actions each, worth the same with probability `tied`, else anything."""
    for _ in range(states):
        values = [rng.random()] * 3 if rng.random() < tied else [rng.random() for _ in range(3)]
        counts = [sum(rng.random() < value for _ in range(outcomes)) for value in values]
        yield values, [Evidence(count, outcomes - count) for count in counts]


def test_a_run_of_equal_actions_teaches_that_an_order_is_luck():
    seen = [Evidence(4, 0), Evidence(1, 3), Evidence(2, 2)]
    credible = {
        tied: Prior.fitted(state for _, state in drawn(random.Random(5), tied))
        .posterior(seen)
        .above(0, 1)
        for tied in (0.0, 1.0)
    }
    unfitted = Prior.fitted([]).posterior(seen).above(0, 1)
    assert credible[1.0] < 0.5 < unfitted < credible[0.0]


@pytest.mark.parametrize("tied", [0.0, 0.5])
def test_what_is_claimed_holds_though_one_picks_the_most_credible_order(tied):
    rng = random.Random(11)
    prior = Prior.fitted(state for _, state in drawn(rng, tied))
    claimed, right = list[float](), list[bool]()
    for values, state in drawn(rng, tied, 1500):
        posterior = prior.posterior(state)
        orders = [(posterior.above(i, j), i, j) for i in range(3) for j in range(3) if i != j]
        credibility, better, worse = max(orders)
        if credibility >= 0.8:
            claimed.append(credibility)
            right.append(values[better] > values[worse])
    assert len(claimed) > 100
    assert abs(sum(claimed) - sum(right)) / len(claimed) < 0.06


def test_the_same_states_give_the_same_prior():
    states = [state for _, state in drawn(random.Random(2), 0.3, 40)]
    one, other = Prior.fitted(states), Prior.fitted(iter(states))
    assert (one.going_on == other.going_on).all()
    assert (one.ending == other.ending).all()
    assert one.going_on.sum() == pytest.approx(1)


def test_states_where_an_action_ended_the_episode_have_a_prior_of_their_own():
    ends = [[Evidence(exact=1.0), Evidence(exact=0.0)]] * 50
    tied = [[Evidence(2, 2), Evidence(2, 2)]] * 50
    both, alone = Prior.fitted(ends + tied), Prior.fitted(tied)
    assert (both.going_on == alone.going_on).all()
    assert (both.ending != alone.ending).any()


# -- outcomes as evidence


@given(st.lists(st.sampled_from([0.0, 1.0]), max_size=20))
def test_outcomes_of_0_and_1_count_for_one(outcomes):
    assert abs(Scale().weight(outcomes) - 1) < 1e-9


@given(st.lists(st.floats(0, 1), max_size=20))
def test_what_varies_less_counts_for_no_less(outcomes):
    assert Scale().weight(outcomes) >= 1.0


def test_outcomes_close_together_count_for_several():
    assert Scale().weight([0.4, 0.6] * 10) > 4  # 23 / (3 + 20 * 0.04)
    assert Scale(low=-1.0).weight([-0.2, 0.2] * 10) == Scale().weight([0.4, 0.6] * 10)


def test_an_estimate_is_scaled_and_weighed():
    scale = Scale(-1.0, 1.0)
    assert scale.evidence(estimate(1.0, -1.0, 0.0), 2.0) == Evidence(3.0, 3.0)
    assert scale.evidence(estimate(0.5, exact=True)) == Evidence(exact=0.75)


def test_an_outcome_out_of_range_is_named():
    with pytest.raises(UsageError, match="37 is not between 0 and 1: set reward_range"):
        Scale().evidence(estimate(37.0))
