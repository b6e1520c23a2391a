"""MySQL's collation, and its functions that SQLite lacks or defines differently, by the names that
SQLGlot uses for them in SQLite."""

from __future__ import annotations

import fnmatch
import math
import re
import sqlite3
import unicodedata
from collections.abc import Callable
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache, partial
from typing import Any

import regex  # type: ignore[import-untyped,unused-ignore]

# The current date is fixed, so that replaying an episode gives the same results.
TODAY = "2026-11-22"
# Characters. A longer text becomes NULL, as beyond MySQL's max_allowed_packet.
MAX_TEXT = 65_535
# Seconds for one match of an agent's regular expression.
PATTERN_SECONDS = 0.5
_DATE = re.compile(
    r"\s*(\d{4})\D?(\d\d?)\D?(\d\d?)(?:[T\s]*(\d\d?):?(\d\d?)?:?(\d\d?)?(?:\.\d*)?)?\s*$"
)


@lru_cache(maxsize=65_536)
def key(text: str) -> str:
    """The key by which utf8mb4_general_ci compares a text: without case, accents and trailing
    spaces."""
    return _folded(text).rstrip(" ")


def _folded(text: str) -> str:
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
    return _like(_folded(str(pattern)), _folded(escape)).match(_folded(str(text))) is not None


@lru_cache(maxsize=1024)
def _like(pattern: str, escape: str) -> re.Pattern[str]:
    """Compiled by way of a file name pattern, whose expression does not backtrack."""
    parts = re.findall(rf"{re.escape(escape)}.|.", pattern, re.DOTALL) if escape else list(pattern)
    wild = {"%": "*", "_": "?"}
    globbed = (
        wild.get(part) or ("[" + part[-1] + "]" if part[-1] in "*?[" else part[-1])
        for part in parts
    )
    return re.compile(fnmatch.translate("".join(globbed)))


def regexp(pattern: Any, text: Any) -> bool | None:
    """text REGEXP pattern. Raises OverflowError, which ends the statement, for a pattern that is
    invalid or takes too long."""
    if pattern is None or text is None:
        return None
    try:
        return bool(
            regex.search(
                str(pattern), str(text), regex.V0 | regex.IGNORECASE, timeout=PATTERN_SECONDS
            )
        )
    except (regex.error, TimeoutError, RecursionError):
        raise OverflowError from None


@lru_cache(maxsize=8192)
def moment(text: str) -> datetime:
    """Parse a date, with or without time of day, as MySQL does. Raises ValueError if it is none."""
    match = _DATE.match(text)
    if match is None:
        raise ValueError(text)
    return datetime(*(int(part or 0) for part in match.groups()))  # type: ignore[arg-type]


def rounded(value: float, places: int = 0) -> float:
    """The value rounded to `places` digits after the point, halves away from zero."""
    return float(number_text(value, max(-30, min(30, places))))


def number_text(value: float, scale: int) -> str:
    """The value as text with `scale` digits after the point, halves rounded away from zero."""
    return format(Decimal(repr(value)).quantize(Decimal(1).scaleb(-scale), ROUND_HALF_UP), "f")


_ROUTINES: dict[str, Callable[..., Any]] = {
    **{"ci": key, "like": like, "round": rounded, "ceil": math.ceil, "floor": math.floor},
    # Always the same, so that replaying an episode gives the same results.
    "random": lambda: 0.15522042769493574,
    "upper": lambda text: str(text).upper(),
    "lower": lambda text: str(text).lower(),
    "left_of": lambda text, count: str(text)[: max(0, count)],
    "right_of": lambda text, count: str(text)[max(0, len(str(text)) - count) :],
    "concat_ws": lambda joint, *texts: joint.join(map(str, texts)),
    "instr": lambda text, piece: str(text).lower().find(str(piece).lower()) + 1,
    "number_to_str": lambda value, places: f"{Decimal(number_text(value, max(0, places))):,f}",
    "date": lambda text: str(moment(text).date()),
    "timestamp": lambda text: str(moment(text)),
    "strftime": lambda form, text: moment(text).strftime(form),
    "str_to_date": lambda text, form: str(datetime.strptime(text, form).date()),
    "year": lambda text: moment(text).year,
    "month": lambda text: moment(text).month,
    "day": lambda text: moment(text).day,
}
_NATIVE = """
    abs avg coalesce count dense_rank first_value group_concat iif julianday lag last_value lead
    length ltrim max min ntile nullif power rank regexp replace row_number rtrim sign sqrt substring
    substr sum trim"""
# The functions that statements may use.
ALLOWED = frozenset({*_ROUTINES, "only", *_NATIVE.split()})


def register(connection: sqlite3.Connection) -> None:
    """Add the functions and the collation to a connection."""
    for name, routine in _ROUTINES.items():
        connection.create_function(name, -1, partial(_called, routine), deterministic=True)
    connection.create_function("regexp", 2, regexp, deterministic=True)
    connection.create_collation(
        "general_ci", lambda one, other: (key(one) > key(other)) - (key(one) < key(other))
    )
    connection.create_function("only", 2, _only, deterministic=True)


def _only(value: Any, rows: int) -> Any:
    """The value of a scalar subquery. Raises ValueError, which ends the statement, if it has more
    than one row."""
    if rows > 1:
        raise ValueError(rows)
    return value


def _called(routine: Callable[..., Any], *values: Any) -> Any:
    """Call a routine; NULL for NULL, for arguments that it cannot take, and for texts that are too
    long."""
    try:
        result = None if None in values else routine(*values)
    except (ValueError, ArithmeticError, TypeError, AttributeError):
        return None
    return None if isinstance(result, str) and len(result) > MAX_TEXT else result
