"""general_ci: who equals whom, and LIKE against a definition by recursion."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rro.intercode_sql.embedded.functions import Patterns, key, like
from rro.intercode_sql.embedded.work import Work
from rro.intercode_sql.engine import SqlError


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a", "A"),
        ("é", "E"),
        ("Zürich ", "zurich"),
        ("ß", "s"),
        ("", "   "),
        ("😀", "🎉"),
        ("Å", "a"),
    ],
)
def test_equal(one, other):
    assert key(one) == key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("a", "b"), ("Z", "_"), ("a", "[South]"), ("ab", "abc"), ("9", "a"), ("y", "ø")],
)
def test_before(one, other):
    assert key(one) < key(other)


def matches(pattern, text):
    """LIKE by its definition, without escapes."""
    if not pattern:
        return not text
    if pattern[0] == "%":
        return any(matches(pattern[1:], text[place:]) for place in range(len(text) + 1))
    return bool(text) and pattern[0] in ("_", text[0]) and matches(pattern[1:], text[1:])


@given(st.text("ab%_", max_size=7), st.text("ab", max_size=8))
def test_like(pattern, text):
    assert like(pattern, text) == matches(pattern, text)
    assert like(pattern.upper(), text) == matches(pattern, text)


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("10\\%", "10%", True),
        ("10\\%", "100", False),
        ("a\\_b", "axb", False),
        ("%\\\\%", "a\\b", True),
        ("abc", "abc ", False),  # unlike =, LIKE counts trailing spaces
        ("c_f_", "Café", True),
        ("%.*%", "abc", False),
        ("%\n%", "a\nb", True),
        ("a\\", "a\\", True),
    ],
)
def test_like_by_example(pattern, text, found):
    assert like(pattern, text) is found


def test_another_escape():
    assert like("10|%", "10%", "|")
    assert not like("10|%", "100", "|")


def test_many_wildcards_take_no_time():
    assert not like("%a" * 500 + "b", "a" * 5000)


def test_patterns_take_time_in_proportion_to_the_text():
    regexp = Patterns(Work(1_000_000)).match
    assert not regexp("^(a|aa|a?)+$", "a" * 5000 + "b")
    for pattern in ("(", r"(a)\1", "(?=a)"):
        with pytest.raises(SqlError, match="Illegal argument to a regular expression"):
            regexp(pattern, "a")
    assert regexp("^b", "Bern")
    assert not regexp("^e", "Bern")


def test_a_pattern_costs_each_statement_the_same_and_once():
    work = Work(1_000_000)
    patterns, left = Patterns(work), []
    for _ in range(2):
        work.begin()
        for pattern in ("^b", "^b", "^e", "^b"):
            patterns.match(pattern, "Bern")
            left.append(work.left)
    assert left[:4] == left[4:]
    assert left[0] == left[1] > left[2] == left[3]
    with pytest.raises(SqlError, match="interrupted"):
        any(patterns.match(f"^{number}", "Bern") for number in range(1000))
