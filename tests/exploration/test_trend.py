"""The share of rising steps by stage of an episode."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rro.exploration.trend import StageShare, rising_share_by_stage

rewards = st.integers(0, 20).map(lambda twentieth: twentieth / 20)


def test_rising_steps_are_counted_by_thirds():
    shares = rising_share_by_stage([[0.5, 0.4, 0.4, 0.6, 0.9, 0.1], [0.2, 0.3, 0.1]], [0.4, 0.2])
    assert shares == (StageShare(1, 3), StageShare(2, 3), StageShare(1, 3))
    assert shares[1].share == pytest.approx(2 / 3)


def test_short_episodes_have_no_step_in_every_stage():
    assert rising_share_by_stage([[0.5], [0.5, 0.6]], [0.5, 0.4]) == (
        StageShare(1, 1),
        StageShare(0, 1),
        StageShare(1, 1),
    )
    assert rising_share_by_stage([], [])[0].share is None
    with pytest.raises(ValueError, match="shorter"):
        rising_share_by_stage([[0.5]], [])
    with pytest.raises(ValueError, match="stages"):
        rising_share_by_stage([[0.5]], [0.0], stages=0)


@given(st.integers(1, 40), st.sampled_from([1, 3, 5]))
def test_law_stages_are_a_mirror_image_and_differ_by_at_most_one_step(length, stages):
    steps = [share.steps for share in rising_share_by_stage([[0.0] * length], [0.0], stages)]
    assert sum(steps) == length
    assert steps == steps[::-1]
    assert max(steps) - min(steps) <= 1


@given(st.lists(rewards, min_size=1, max_size=30), rewards)
def test_law_stages_add_up_to_the_rises_of_the_whole(episode, start):
    rises = sum(after > before for before, after in zip([start, *episode], episode, strict=False))
    assert sum(share.rising for share in rising_share_by_stage([episode], [start])) == rises
