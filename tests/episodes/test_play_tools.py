"""What a person types where tools are called."""

import pytest
from tool_toys import TOOLS

from rro.episodes.play import typed_call
from rro.tool_calls import tools_of
from rro.types import Message


@pytest.mark.parametrize(
    ("typed", "name", "values"),
    [
        ("run_sql SELECT 1", "run_sql", {"query": "SELECT 1"}),
        ('run_sql {"query": "SELECT 1", "limit": 2}', "run_sql", {"query": "SELECT 1", "limit": 2}),
        ("run_sql", "run_sql", {}),
        ("other x", "other", {}),
        ("run_sql {oops", "run_sql", None),
    ],
)
def test_a_typed_line_is_a_call(typed, name, values):
    message = typed_call(typed, tools_of([Message("user", "x", tools=TOOLS)]))
    (call,) = message.tool_calls
    assert (call.name, call.values()) == (name, values)
