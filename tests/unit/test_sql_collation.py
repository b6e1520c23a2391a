"""general_ci: who equals whom, and LIKE against a definition by recursion."""

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from rro.envs.intercode_sql.embedded import collation
from rro.envs.intercode_sql.embedded.collation import compare, key, like


@pytest.mark.parametrize(
    ("one", "other"), [("a", "A"), ("é", "E"), ("Zürich ", "zurich"), ("ß", "s"), ("", "   "), ("😀", "🎉"), ("Å", "a")]
)
def test_equal(one, other):
    assert key(one) == key(other)
    assert compare(one, other) == 0


@pytest.mark.parametrize(
    ("one", "other"), [("a", "b"), ("Z", "_"), ("a", "[South]"), ("ab", "abc"), ("9", "a"), ("y", "ø")]
)
def test_before(one, other):
    assert compare(one, other) == -1
    assert compare(other, one) == 1


def matches(pattern, text):
    """LIKE by its definition, without escapes."""
    if not pattern:
        return not text
    if pattern[0] == "%":
        return any(matches(pattern[1:], text[place:]) for place in range(len(text) + 1))
    return bool(text) and pattern[0] in ("_", text[0]) and matches(pattern[1:], text[1:])


@given(st.text("ab%_", max_size=7), st.text("ab", max_size=8))
def test_like(pattern, text):
    assert like(pattern, "\\", False)(text) == matches(pattern, text)
    assert like(pattern.upper(), "\\", False)(text) == matches(pattern, text)


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
    assert like(pattern, "\\", False)(text) is found


def test_binary_like_knows_case():
    assert not like("A%", "\\", True)("abc")
    assert like("A%", "", True)("Abc")


def test_many_wildcards_take_no_time():
    assert not like("%a" * 500 + "b", "\\", False)("a" * 5000)


def test_patterns_that_explode_are_stopped(monkeypatch):
    monkeypatch.setattr(collation, "PATTERN_SECONDS", 0.05)
    with pytest.raises(TimeoutError):
        collation.search("a" * 60 + "b", "(a|aa|a?)+$", False)
    with pytest.raises(regex.error):
        collation.search("a", "(", False)
    assert collation.search("Bern", "^b", False)
    assert not collation.search("Bern", "^b", True)
    assert collation.replace("a1b22", "[0-9]+", "\\1") == "a\\1b\\1"
