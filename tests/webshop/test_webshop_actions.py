"""The action that an agent's answer to the shop holds, read as the original reads it."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rro.webshop.environment import action_text, parse_action

ANY_TEXT = st.text(alphabet=st.characters(), max_size=60)  # lone surrogates included


@given(
    ANY_TEXT
    | st.from_regex(r"[^\n]{0,9}\[[^\n]{0,9}\][^\n]{0,9}", fullmatch=True)
    | st.text("a[]\n", max_size=12)
)
@example("search[a]b]c")
@example("click[[x]]")
@example("[x]")
@example("a[]")
@example("a[][b]")
def test_parsing_is_the_originals_expression(action):
    match = re.match(r"(.+)\[(.+)\]", action)
    assert parse_action(action) == (match and (match[1], match[2].lower()))


def test_parsing_takes_linear_time():
    assert parse_action("[" * 1_000_000) is None
    assert parse_action("search" + "[" * 1_000_000 + "]") == ("search" + "[" * 999_998, "[")


@pytest.mark.parametrize(
    ("answer", "action"),
    [
        ("Thought: a\nAction: search[b] ", "search[b]"),
        ("Action: one\nAction: two[x]", "one\nAction: two[x]"),
        ("Action:search[b]", None),
        ("Action: ", None),
        ("search[b]", None),
        ("", None),
    ],
)
def test_the_action_of_an_answer(answer, action):
    assert action_text(answer) == action


@pytest.mark.parametrize(
    ("answer", "action"),
    [
        # several actions, with or without an observation that the agent made up
        ("Thought: a\nAction: click[8 narrow]\nAction: click[Buy Now]", ("click", "8 narrow")),
        (
            "Action: click[8 narrow]\n\nObservation:\nWebShop [SEP] Buy Now\n"
            "Thought: I buy it.\nAction: click[Buy Now]",
            ("click", "8 narrow"),
        ),
        ("Action: click[red]\r\nAction: click[Buy Now]", ("click", "red")),
        ("Action: click[red] and then\nAction: click[Buy Now]", ("click", "red")),
        # on one line, the argument reaches to the last bracket, as in the original
        ("Action: click[a] Action: click[Buy Now]", ("click[a] Action: click", "buy now")),
        # the words in prose
        ("Action: click[red]\nThe next Action: will be to buy.", ("click", "red")),
        ("Action: click[red] (my Action: a click)", ("click", "red")),
        ("My Action: is this\nAction: click[red]", None),
        # fences
        ("Thought: a\n```\nAction: click[red]\n```", ("click", "red")),
        ("Action: ```click[red]```", ("```click", "red")),
        ("Action: \n```\nclick[red]\n```", None),
        # lower case, line breaks, spaces
        ("action: click[red]", None),
        ("thought: a\naction: click[red]\nAction: click[blue]", ("click", "blue")),
        ("Action: \nclick[red]", None),
        ("Action:\nclick[red]", None),
        ("Action:  click[red]", (" click", "red")),
        ("Action: click[red\ngreen]", None),
    ],
)
def test_the_first_action_counts(answer, action):
    """ETO and IPR match `Action: (.*)` with DOTALL and take the first match; the shop reads its
    first line with `(.+)\\[(.+)\\]`."""
    matches = re.findall(r"Action: (.*)", answer.strip(), re.DOTALL)
    read = matches and re.match(r"(.+)\[(.+)\]", matches[0])
    assert action == ((read[1], read[2].lower()) if read else None)
    assert parse_action(action_text(answer) or "") == action
