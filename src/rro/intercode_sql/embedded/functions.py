"""MySQL's collation, LIKE and REGEXP, as SQLite calls them back."""

from __future__ import annotations

import re
import sqlite3
import unicodedata
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import re2  # type: ignore[import-untyped,unused-ignore]

from rro.intercode_sql.embedded.work import Work
from rro.intercode_sql.engine import SqlError

# Characters of texts whose keys are remembered.
_SHORT = 100
# The work of compiling a pattern of REGEXP, besides its letters.
_COMPILED = 4000
_ILLEGAL = "Illegal argument to a regular expression."
_GROUP = re.compile(r"\\(.)|\$(\d)")


def key(text: str) -> str:
    """The key by which utf8mb4_general_ci compares a text: without case, accents and trailing
    spaces."""
    return _short_key(text) if len(text) <= _SHORT else folded(text).rstrip(" ")


@lru_cache(maxsize=16_384)
def _short_key(text: str) -> str:
    return folded(text).rstrip(" ")


def folded(text: str) -> str:
    """The text without case and accents."""
    return text.upper() if text.isascii() else "".join(map(_weight, text))


@lru_cache(maxsize=4096)
def _weight(character: str) -> str:
    """The upper-case base letter. All characters beyond the BMP have the same weight."""
    if ord(character) > 0xFFFF:
        return "\ufffd"
    return unicodedata.normalize("NFD", character.upper()[0])[0].upper()[0]


def like(pattern: str, text: str, escape: str = "\\") -> bool:
    """text LIKE pattern: % matches any text, _ any character. Unlike with =, trailing spaces
    count."""
    return _like_exactly(folded(str(pattern)), folded(str(text)), folded(escape))


def _like_exactly(pattern: Any, text: Any, escape: str = "\\") -> bool:
    """The same with case and accents."""
    pattern, text = _letters(pattern), _letters(text)
    parts = _short_parts if len(pattern) <= _SHORT else _like_parts
    first, *others = parts(pattern, escape)
    if not others:
        return len(first) == len(text) and _is_at(first, text, 0)
    last, place = others.pop(), len(first)
    if len(text) < len(first) + len(last) or not _is_at(first, text, 0):
        return False
    for part in others:
        place = _find(part, text, place) + len(part)
        if place < len(part):
            return False
    end = len(text) - len(last)
    return place <= end and _is_at(last, text, end)


def _letters(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


# A text, in which None is any character.
_Part = str | list[str | None]


def _like_parts(pattern: str, escape: str) -> list[_Part]:
    """The parts of a pattern between its %."""
    if "_" not in pattern and (not escape or escape not in pattern):
        return list(pattern.split("%"))
    parts: list[list[str | None]] = [[]]
    characters = iter(pattern)
    for character in characters:
        if character == escape:
            parts[-1].append(next(characters, escape))
        elif character == "%":
            parts.append([])
        else:
            parts[-1].append(None if character == "_" else character)
    return ["".join(map(str, part)) if None not in part else part for part in parts]


_short_parts = lru_cache(maxsize=1024)(_like_parts)


def _is_at(part: _Part, text: str, place: int) -> bool:
    if isinstance(part, str):
        return text.startswith(part, place)
    own = text[place : place + len(part)]
    return len(own) == len(part) and all(a in (None, b) for a, b in zip(part, own, strict=True))


def _find(part: _Part, text: str, place: int) -> int:
    """The first place from `place` on at which the text has a part, or -1 less its length."""
    if isinstance(part, str):
        found = text.find(part, place)
    else:
        places = range(place, len(text) - len(part) + 1)
        found = next((start for start in places if _is_at(part, text, start)), -1)
    return found if found >= 0 else -1 - len(part)


def _like_cost(pattern: Any, text: Any, escape: str = "") -> int:
    pattern, text = str(pattern), str(text)
    return 2 * len(pattern) * (1 + (len(text) if "_" in pattern else len(text) >> 8))


class Patterns:
    """REGEXP: each pattern is compiled once in a statement, and costs that `work`, also if an
    earlier statement had it."""

    def __init__(self, work: Work) -> None:
        self._work, self._compiled = work, lru_cache(maxsize=16)(self._compile)

    def match(self, pattern: Any, text: Any) -> bool:
        """text REGEXP pattern. Raises SqlError for a pattern that is invalid, or that RE2 lacks
        (backreferences, look-around)."""
        return self._pattern(pattern).search(str(text)) is not None

    def place(self, pattern: Any, text: Any) -> int:
        """REGEXP_INSTR."""
        match = self._pattern(pattern).search(str(text))
        return match.start() + 1 if match else 0

    def piece(self, pattern: Any, text: Any) -> str | None:
        """REGEXP_SUBSTR."""
        match = self._pattern(pattern).search(str(text))
        return str(match[0]) if match else None

    def replaced(self, pattern: Any, text: Any, new: Any) -> str:
        """REGEXP_REPLACE. In the new text, $1 is the first group."""
        compiled = self._pattern(pattern)

        def filled(match: re.Match[str]) -> str:
            return _GROUP.sub(lambda sign: sign[1] or match[int(sign[2])] or "", str(new))

        try:
            return str(compiled.sub(filled, str(text)))
        except IndexError:
            raise SqlError("Index out of bounds in regular expression search.") from None

    def _pattern(self, pattern: Any) -> Any:
        if not pattern:
            raise SqlError(_ILLEGAL)
        try:
            return self._compiled(self._work.number, str(pattern))
        except re2.error:
            raise SqlError(_ILLEGAL) from None

    def _compile(self, statement: int, pattern: str) -> Any:
        """RE2's time is linear in the text, for a pattern that fits into so much memory."""
        self._work.spend(_COMPILED + 16 * len(pattern))
        options = re2.Options()
        options.case_sensitive, options.log_errors, options.max_mem = False, False, 1 << 18
        return re2.compile(pattern, options)


def _regexp_cost(pattern: Any, text: Any, new: Any = "") -> int:
    pattern, text = str(pattern), str(text)
    large = "{" in pattern or len(pattern) > 100
    once = 128 * len(text) if large else len(pattern) * len(text) >> 3
    return once + 16 * (len(text) + 1) * len(str(new))


def _any_key(value: Any) -> str:
    """The key of a value of a UNION that has texts, too."""
    return key(value if isinstance(value, str) else str(value))


_ROUTINES: dict[str, Callable[..., Any]] = {
    **{"ci": _any_key, "like": like, "like_exactly": _like_exactly}
}
_PATTERNS: dict[str, Callable[..., Any]] = {
    **{"regexp": Patterns.match, "regexp_instr": Patterns.place},
    **{"regexp_substr": Patterns.piece, "regexp_replace": Patterns.replaced},
}
# The units of functions whose time is not linear in their arguments (see `Work.function`).
_COSTS = {"like": _like_cost, "like_exactly": _like_cost, **dict.fromkeys(_PATTERNS, _regexp_cost)}
_NATIVE = """
    avg coalesce count cume_dist dense_rank first_value lag last_value lead max min nth_value ntile
    percent_rank rank row_number sum"""
# The functions that statements may use.
ALLOWED = frozenset({*_ROUTINES, *_PATTERNS, "only", *_NATIVE.split()})


def register(connection: sqlite3.Connection, work: Work) -> None:
    """Add the functions and the collation to a connection. `work` counts what they do."""
    patterns = Patterns(work)
    bound = {name: partial(method, patterns) for name, method in _PATTERNS.items()}
    for name, routine in (_ROUTINES | bound).items():
        function = work.function(routine, _COSTS.get(name))
        connection.create_function(name, -1, function, deterministic=True)
    connection.create_collation("general_ci", work.collation(key))
    connection.create_function("only", 2, work.function(_only, nulls=True), deterministic=True)


def _only(value: Any, rows: int) -> Any:
    """The value of a scalar subquery. Raises SqlError if it has more than one row."""
    if rows > 1:
        raise SqlError("Subquery returns more than 1 row")
    return value
