"""Thoughts told apart from answers, and the limits on both."""

import pytest

from rro.errors import UsageError
from rro.models.thoughts import (
    MARKS,
    ThoughtLimits,
    ThoughtReader,
    split_thought,
    without_marks,
)
from rro.types import SamplingParams

THINK = MARKS[-1]
TOKENS = {"<think>": 1, "</think>": 2, "<|im_end|>": 3}


@pytest.mark.parametrize(
    ("text", "begun", "expected"),
    [
        ("<think>\nwhy\n</think>\n\nyes", False, ("why", "yes", False)),
        ("why\n</think>\n\nyes", True, ("why", "yes", False)),
        ("<think>why</think>", False, ("why", "", False)),
        ("<think>\nwhy", False, ("why", "", True)),
        ("why", True, ("why", "", True)),
        ("yes", False, ("", "yes", False)),
        ("yes </think> no", False, ("", "yes </think> no", False)),
        ("<think>a</think>b</think>c", False, ("a", "b</think>c", False)),
        ("", True, ("", "", True)),
    ],
)
def test_a_text_is_split_at_the_first_end_of_a_thought(text, begun, expected):
    assert split_thought(text, THINK, begun) == expected


def test_what_stands_in_front_of_an_answer_is_no_part_of_it():
    marks = MARKS[0]
    written = f"{marks.opening}why{marks.closing}<|start|>assistant{marks.answer}yes"
    assert split_thought(written, marks, False) == ("why", "yes", False)
    assert split_thought(f"{marks.answer}yes", marks, False) == ("", "yes", False)


@pytest.mark.parametrize(
    ("ids", "begun", "allowed"),
    [
        ([1, 7, 7], False, 5),
        ([7, 7], True, 5),
        ([1, 7, 2, 7], False, 3 + 2),
        ([7, 2], True, 2 + 2),
        ([7, 7], False, 2),
    ],
)
def test_a_thought_and_what_follows_have_limits_of_their_own(ids, begun, allowed):
    assert ThoughtLimits(1, 2, begun, 5, 2).allowed(ids) == allowed


def test_limits_that_are_not_set_bound_nothing():
    assert ThoughtLimits(1, 2, False, None, 2).allowed([1, 7]) > 10**6
    assert ThoughtLimits(1, 2, False, 5, None).allowed([7] * 9) > 10**6


def test_a_reader_counts_tokens_and_knows_where_a_message_ends():
    reader = ThoughtReader("<think> </think>", TOKENS, "toy")
    texts = {1: "<think>", 2: "</think>", 3: "", 7: " x"}

    def decode(ids):
        return "".join(texts[id_] for id_ in ids)

    assert reader.count([1, 7, 7, 2, 7, 3], decode) == (4, False)
    assert reader.count([1, 7, 7], decode) == (3, True)
    limits = reader.limits("...<think>\n", SamplingParams(max_thought_tokens=4))
    assert limits == ThoughtLimits(1, 2, True, 4, None)
    with pytest.raises(UsageError, match="token of its own"):
        ThoughtReader("<think></think>", {}, "toy").limits("", SamplingParams(max_answer_tokens=1))


def test_a_model_that_does_not_think_has_answers_alone():
    reader = ThoughtReader("{{ messages }}", TOKENS, "toy")
    assert reader.split("<think>", "<think>a</think>b") is None
    assert reader.limits("", SamplingParams(max_answer_tokens=3)).allowed([1, 7]) == 3


def test_marks_inside_one_another_leave_no_mark():
    marks = MARKS[-1]
    assert without_marks("<think>a</think>b", marks) == "ab"
    for text in ("<th<think>ink>a</th</think>ink>", "<" + "<think>" * 3 + "think>", "<think" * 9):
        left = without_marks(text, marks)
        assert marks.opening not in left
        assert marks.closing not in left
