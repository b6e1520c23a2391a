"""Which recorded answer a later call continues."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rro.errors import DataError
from rro.serving.conversations import Conversations, read_recorded
from rro.serving.credit import group_rows
from rro.types import Completion, Message, SamplingParams


def call(conversations, name, messages, said, tokens):
    """One call of an agent that has the texts alone; its messages from now on."""
    name, known = conversations.begin(name, messages)
    answer = Message("assistant", said, token_ids=tokens)
    conversations.add(
        name, known, Completion(answer, "stop", policy="p", logprobs=(-0.5,)), SamplingParams()
    )
    return [*messages, Message("assistant", said)]


def test_two_agents_that_say_the_same_in_one_conversation_both_learn():
    lines = []
    conversations = Conversations(write=lines.append)
    question, more = Message("user", "x"), Message("user", "more")
    one = call(conversations, "c", [question], "red", (1,))
    other = call(conversations, "c", [question], "red", (2,))
    one = call(conversations, "c", [*one, more], "blue", (3,))
    other = call(conversations, "c", [*other, more], "blue", (3,))
    call(conversations, "c", [*one, more], "end", (4,))
    call(conversations, "c", [*other, more], "end", (4,))
    for found in (conversations.take()["c"], read_recorded(iter(lines))["c"]):
        rows = group_rows({"t": [(found, 1.0)]})
        assert [row.advantages for row in rows] == [(None, 0.0) * 3] * 2
        assert sorted(row.messages[1].token_ids for row in rows) == [(1,), (2,)]


def test_of_two_that_say_the_same_one_may_end_there():
    conversations = Conversations()
    first = call(conversations, "c", [Message("user", "x")], "red", (1,))
    call(conversations, "c", [Message("user", "x")], "red", (1,))
    call(conversations, "c", [*first, Message("user", "more")], "blue", (2,))
    rows = conversations.take()["c"].episodes("t", 1.0, 1.0)
    assert sorted(len(row.messages) for row in rows) == [2, 4]
    assert sum(advantage == 1.0 for row in rows for advantage in row.advantages) == 3


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("ab")), max_size=14))
def test_every_answer_is_learned_from_once_and_as_when_read_back(moves):
    """Four agents in one conversation that take turns in any order and say one of two things."""
    lines, histories = [], {}
    conversations = Conversations(write=lines.append)
    for number, (who, said) in enumerate(moves):
        history = [*histories.get(who, []), Message("user", "?")]
        histories[who] = call(conversations, "c", history, said, (number,))
    again = read_recorded(iter(lines))
    taken = conversations.take()
    for found in (*taken.values(), *again.values()):
        rows = found.episodes("t", 1.0, 1.0)
        learned = [
            message.token_ids
            for row in rows
            for message, advantage in zip(row.messages, row.advantages, strict=True)
            if advantage is not None
        ]
        assert sorted(learned) == [(number,) for number in range(len(moves))]
    assert {name: c.episodes("t", 1.0, 1.0) for name, c in again.items()} == {
        name: c.episodes("t", 1.0, 1.0) for name, c in taken.items()
    }


def test_a_torn_line_of_a_record_is_left_out(caplog):
    lines = []
    conversations = Conversations(write=lines.append)
    for name in "abc":
        call(conversations, name, [Message("user", "x")], "red", (1,))
    torn = [lines[0], lines[1][:-9], "\n", lines[2]]
    assert [*read_recorded(iter(torn))] == ["a", "c"]
    assert "line 2 of the record is left out" in caplog.text


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"conversation": "c"', '"other": 1', 'it has no "conversation"'),
        ("[-0.5]", "[-0.5, -0.5]", "not one log-probability for each token"),
        ('"policy": "p"', '"policy": 3', "policy"),
    ],
)
def test_a_record_that_is_no_call_is_refused_by_line(old, new, reason):
    lines = []
    call(Conversations(write=lines.append), "c", [Message("user", "x")], "red", (1,))
    assert old in lines[0]
    with pytest.raises(DataError, match=f"line 2 of the record is no call: .*{reason}"):
        read_recorded(iter([lines[0], lines[0].replace(old, new)]))
