"""DPO's cap on the pairs that teach a policy not to end its episode."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from train_toys import toy_pair

from rro.config import DpoConfig
from rro.learning.dpo import cap_terminal_rejections, of_round
from rro.types import ProcessReward

EXACT, ESTIMATED = ProcessReward((0.0,), "toy", exact=True), ProcessReward((0.0,), "toy")


def rewarded(number, chosen, rejected):
    return replace(toy_pair(number), chosen_reward=chosen, rejected_reward=rejected)


REWARD = st.sampled_from([EXACT, ESTIMATED])
PAIRS = st.lists(st.builds(rewarded, st.integers(0, 5), REWARD, REWARD), max_size=30)


def rejects_an_ending(pair):
    return pair.rejected_reward.exact and not pair.chosen_reward.exact


@given(PAIRS, st.floats(0, 1), st.integers(0, 9))
def test_terminal_rejections_are_at_most_the_share(pairs, share, seed):
    kept = cap_terminal_rejections(pairs, share, seed)
    others = [pair for pair in pairs if not rejects_an_ending(pair)]
    assert [pair for pair in kept if not rejects_an_ending(pair)] == others
    assert kept == cap_terminal_rejections(pairs, share, seed)
    remaining = iter(pairs)
    # In their order, each once.
    assert all(any(pair is other for other in remaining) for pair in kept)
    if others:
        assert len(kept) - len(others) <= share * len(kept) + 1e-6
    else:
        assert kept == pairs


def test_as_many_terminal_rejections_stay_as_the_share_allows():
    end, other = rewarded(0, ESTIMATED, EXACT), rewarded(0, ESTIMATED, ESTIMATED)
    assert len(cap_terminal_rejections([end] * 20 + [other] * 7, 0.3, 0)) == 10
    assert len(cap_terminal_rejections([end] * 20 + [other] * 7, 1.0, 0)) == 27
    assert len(cap_terminal_rejections([end] * 20 + [other] * 7, 0.0, 0)) == 7


def test_later_rounds_have_settings_of_their_own():
    options = DpoConfig(learning_rate=1e-6, beta=0.1, later_rate=0.5, later_beta=0.5)
    settings = [(of.learning_rate, of.beta) for of in (of_round(options, n) for n in (0, 1, 2, 3))]
    assert settings == [(1e-6, 0.1), (1e-6, 0.1), (5e-7, 0.5), (5e-7, 0.5)]


def test_by_default_all_rounds_are_alike():
    options = DpoConfig()
    assert of_round(options, 5) == of_round(options, 1) == options
