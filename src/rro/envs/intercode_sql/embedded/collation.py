"""MySQL's utf8mb4_general_ci: comparison without case, accents and trailing spaces, and its LIKE.

A text is compared by its key. Keys of columns are stored beside them, so that the engine itself compares bytes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

import regex  # type: ignore[import-untyped,unused-ignore]

PATTERN_SECONDS = 0.5  # for one match of an agent's regular expression


@lru_cache(maxsize=65_536)
def key(text: str) -> str:
    """What a text is compared by. Every character weighs as its upper-case base letter; all beyond the BMP weigh the same."""
    return (text.upper() if text.isascii() else "".join(map(_weight, text))).rstrip(" ")


@lru_cache(maxsize=4096)
def _weight(character: str) -> str:
    if ord(character) > 0xFFFF:
        return "\ufffd"
    return unicodedata.normalize("NFD", character.upper()[0])[0].upper()[0]


def compare(one: str, other: str) -> int:
    """The collation as a callback, for what has no stored key."""
    mine, theirs = key(one), key(other)
    return (mine > theirs) - (mine < theirs)


@lru_cache(maxsize=1024)
def like(pattern: str, escape: str, binary: bool) -> Callable[[str], bool]:
    """A test for LIKE: % any text, _ any character. Each piece between % is sought from where the last one ended, so it
    takes no more than the product of the two lengths. Unlike =, trailing spaces count."""
    pieces: list[list[str]] = [[]]
    characters = iter(pattern)
    for character in characters:
        if character == escape:
            pieces[-1].append(re.escape(_folded(next(characters, escape), binary)))
        elif character == "%":
            pieces.append([])
        else:
            pieces[-1].append("." if character == "_" else re.escape(_folded(character, binary)))
    compiled = [re.compile("".join(piece), re.DOTALL) for piece in pieces]
    last = re.compile("".join(pieces[-1]) + r"\Z", re.DOTALL)
    width = len(pieces[-1])

    def test(text: str) -> bool:
        text = _folded(text, binary)
        if len(compiled) == 1:
            return last.match(text) is not None
        place = 0
        for number, piece in enumerate(compiled[:-1]):
            found = piece.search(text, place) if number else piece.match(text)
            if found is None:
                return False
            place = found.end()
        return len(text) - width >= place and last.match(text, len(text) - width) is not None

    return test


def _folded(text: str, binary: bool) -> str:
    if binary:
        return text
    return text.upper() if text.isascii() else "".join(map(_weight, text))


@lru_cache(maxsize=256)
def _pattern(pattern: str, flags: int) -> regex.Pattern[str]:
    return regex.compile(pattern, flags)


def search(text: str, pattern: str, binary: bool) -> bool:
    """REGEXP. Raises regex.error for a bad pattern, TimeoutError for one that takes too long."""
    flags = regex.VERSION0 if binary else regex.VERSION0 | regex.IGNORECASE
    return _pattern(pattern, flags).search(text, timeout=PATTERN_SECONDS) is not None


def replace(text: str, pattern: str, replacement: str) -> str:
    """REGEXP_REPLACE, case-insensitive. Raises as `search` does."""
    found = _pattern(pattern, regex.VERSION0 | regex.IGNORECASE)
    return str(found.sub(lambda _: replacement, text, timeout=PATTERN_SECONDS))
