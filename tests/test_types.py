"""The records' own arithmetic, and how counts are told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rro.errors import counted
from rro.types import Message, ProcessReward, Step, StopReason, Trajectory, Usage

REWARDS = st.floats(0, 1)


def test_a_process_reward_needs_an_outcome():
    with pytest.raises(ValueError, match="missing, not 0"):
        ProcessReward((), "model")


@given(REWARDS, st.integers(1, 12))
def test_equal_outcomes_have_the_same_mean_however_many(outcome, n):
    assert (
        ProcessReward((outcome,) * n, "m").mean == ProcessReward((outcome,), "m", exact=True).mean
    )


def test_equal_means_of_different_outcomes_compare_equal():
    thirds = ProcessReward((1 / 3, 1 / 3, 1 / 3, 2 / 3, 2 / 3), "m")
    assert thirds.mean == ProcessReward((2 / 3, 2 / 3, 1, 0, 0), "m").mean
    assert thirds.n == 5


@given(*[st.tuples(*[st.integers(0, 10**6)] * 5)] * 3)
def test_usage_adds_up(a, b, c):
    first, second, third = Usage(*a), Usage(*b), Usage(*c)
    assert first + second == second + first
    assert (first + second) + third == first + (second + third)
    assert first + Usage() == first


def test_a_message_never_holds_what_cannot_be_stored():
    message = Message("assistant", "a\ud800b")
    assert message.content == "a?b"
    assert message.chat() == {"role": "assistant", "content": "a?b"}
    assert Message("assistant", "größer 🙂").content == "größer 🙂"


def _trajectory(steps, stop=StopReason.TERMINAL):
    return Trajectory("t", (Message("user", "begin"),), steps, 1.0, stop, "m", 0)


def test_messages_leave_out_the_last_observation():
    first = Step(Message("assistant", "a"), "one", 0.0, False)
    last = Step(Message("assistant", "b"), "two", 1.0, True)
    assert [m.content for m in _trajectory((first, last)).messages()] == ["begin", "a", "one", "b"]
    assert [m.content for m in _trajectory((first,), StopReason.STEP_LIMIT).messages()] == [
        "begin",
        "a",
    ]
    assert [m.content for m in _trajectory((), StopReason.CONTEXT).messages()] == ["begin"]


@pytest.mark.parametrize(
    ("count", "things", "text"),
    [
        (1, "pairs", "1 pair"),
        (0, "trials", "0 trials"),
        (1200, "policy calls", "1,200 policy calls"),
        (1, "policies", "1 policy"),
        (2, "policies", "2 policies"),
        (1, "traces", "1 trace"),
    ],
)
def test_counts_as_sentences_have_them(count, things, text):
    assert counted(count, things) == text
