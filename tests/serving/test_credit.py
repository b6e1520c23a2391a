"""Scores of conversations, as somebody gives them."""

import numpy as np
import pytest

from rro.errors import UsageError
from rro.serving.conversations import Call, Conversation
from rro.serving.credit import group_rows
from rro.types import Message, SamplingParams


def said(text):
    """A conversation of one answer."""
    answer = Message("assistant", text)
    call = Call((Message("user", "x"),), answer, None, SamplingParams(), "p", "stop")
    return Conversation(text, [call])


def test_a_missing_score_is_no_outcome():
    scored = [(said("a"), 0.0), (said("b"), None), (said("c"), np.float32(1.0)), (said("d"), True)]
    rows = group_rows({"t": scored, "empty": [], "missing": [(said("e"), None)]}, scale="none")
    assert [row.messages[-1].content for row in rows] == ["a", "c", "d"]
    assert [row.advantages[-1] for row in rows] == pytest.approx([-2 / 3, 1 / 3, 1 / 3])


@pytest.mark.parametrize("score", [float("nan"), float("inf"), "0.5", [1]])
def test_a_score_that_is_no_number_is_refused_with_its_task(score):
    with pytest.raises(UsageError, match=r"a score of t is .*: give a number, or None"):
        group_rows({"t": [(said("a"), 1.0), (said("b"), score)]})


def test_an_unknown_scale_is_refused():
    with pytest.raises(UsageError, match="scale is 'foo': choose std or none"):
        group_rows({}, scale="foo")
