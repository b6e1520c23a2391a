"""What SQLite calls back: MySQL's functions on text, numbers and dates, its collation, and its own aggregates.

NULL in gives NULL out unless a routine says otherwise. Texts longer than MAX_TEXT become NULL, as in MySQL those beyond
max_allowed_packet do.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal
from functools import partial
from typing import Any

import regex  # type: ignore[import-untyped,unused-ignore]

from rro.envs.intercode_sql.embedded import collation, dates

MAX_TEXT = 65_535
GROUP_CONCAT_BYTES = 1024
GROUP_CONCAT_ROWS = 100_000
COLLATION = "general_ci"
Fail = Callable[[str], None]


def decimal_text(value: float, scale: int) -> str:
    """A number with a fixed number of digits after the point, halves away from zero."""
    return format(Decimal(repr(value)).quantize(Decimal(1).scaleb(-scale), ROUND_HALF_UP), "f")


def double_text(value: float) -> str:
    """A DOUBLE as MySQL writes it: whole ones without a point, very large and small ones with an exponent."""
    value = float(value)
    if abs(value) >= 1e15 or 0 < abs(value) < 1e-15:
        mantissa, exponent = repr(Decimal(repr(value)).normalize().__format__("e")).strip("'").split("e")
        return f"{mantissa}e{int(exponent)}"
    return format(Decimal(repr(value)).normalize(), "f") if value else "0"


def float_text(value: float) -> str:
    """A FLOAT is shown with six significant digits."""
    return double_text(float(f"{value:.6g}"))


def rounded(value: float, digits: float, exact: int) -> float:
    """ROUND: exact numbers go away from zero at a half, doubles to the nearest that they are."""
    places = max(-30, min(30, int(digits)))
    if exact:
        return float(Decimal(repr(value)).quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP))
    return round(value, places)


def truncated(value: float, digits: float) -> float:
    return float(Decimal(repr(value)).quantize(Decimal(1).scaleb(-max(-30, min(30, int(digits)))), "ROUND_DOWN"))


def substring(text: str, start: float, length: float = MAX_TEXT) -> str:
    first, count = round(start), round(length)
    first = first - 1 if first > 0 else len(text) + first
    return text[first : first + count] if first >= 0 and count > 0 and start else ""


def substring_index(text: str, separator: str, count: float) -> str:
    pieces, number = text.split(separator) if separator else [], int(count)
    if not pieces or not number:
        return ""
    return separator.join(pieces[:number] if number > 0 else pieces[number:])


def locate(piece: str, text: str, start: float = 1) -> int:
    """Without case, but unlike = with accents."""
    folded, wanted = ("".join(character.upper()[0] for character in part) for part in (text, piece))
    return folded.find(wanted, int(start) - 1) + 1 if start >= 1 else 0


def padded(text: str, width: float, filler: str, left: int) -> str | None:
    count = int(width) - len(text)
    if count <= 0:
        return text[: int(width)] if width >= 0 else None
    if not filler or width > MAX_TEXT:
        return None
    filling = (filler * (count // len(filler) + 1))[:count]
    return filling + text if left else text + filling


def repeated(text: str, count: float) -> str | None:
    return text * max(0, int(count)) if len(text) * count <= MAX_TEXT else None


def stripped(text: str, piece: str, where: str) -> str:
    if not piece:
        return text
    while where != "TRAILING" and text.startswith(piece):
        text = text[len(piece) :]
    while where != "LEADING" and text.endswith(piece):
        text = text[: -len(piece)]
    return text


def with_commas(value: float, digits: float) -> str:
    text = decimal_text(value, max(0, min(30, int(digits))))
    whole, point, fraction = text.lstrip("-").partition(".")
    return ("-" if text.startswith("-") else "") + f"{int(whole):,}{point}{fraction}"


def concat_ws(separator: str | None, *parts: str | None) -> str | None:
    return None if separator is None else separator.join(part for part in parts if part is not None)


def hexadecimal(value: float | str) -> str:
    return value.encode().hex().upper() if isinstance(value, str) else f"{int(value) & (2**64 - 1):X}"


def logarithm(value: float, base: float = math.e) -> float | None:
    return math.log(value) / math.log(base) if value > 0 and base > 0 and base != 1 else None


def remainder(one: float, other: float) -> float | None:
    return math.fmod(one, other) if other else None


def random_sequence() -> Callable[[], float]:
    """RAND without a seed: the same sequence in every statement, so that episodes repeat."""
    state = 1

    def draw() -> float:
        nonlocal state
        state = (state * 6_364_136_223_846_793_005 + 1_442_695_040_888_963_407) % 2**64
        return (state >> 11) / 2**53

    return draw


_PLAIN: dict[str, tuple[int, Callable[..., Any]]] = {
    "decimal_text": (2, decimal_text),
    "double_text": (1, double_text),
    "float_text": (1, float_text),
    "rounded": (3, rounded),
    "truncated": (2, truncated),
    "remainder": (2, remainder),
    "power": (2, lambda base, exponent: base**exponent if base >= 0 or exponent == int(exponent) else None),
    "root": (1, lambda value: math.sqrt(value) if value >= 0 else None),
    "exponential": (1, math.exp),
    "logarithm": (-1, logarithm),
    **{name: (1, getattr(math, name)) for name in ("ceil", "floor")},
    "substring": (-1, substring),
    "substring_index": (3, substring_index),
    "locate": (-1, locate),
    "padded": (4, padded),
    "repeated": (2, repeated),
    "stripped": (3, stripped),
    "with_commas": (2, with_commas),
    "hexadecimal": (1, hexadecimal),
    "concat": (-1, lambda *parts: "".join(parts)),
    "upper_text": (1, str.upper),
    "lower_text": (1, str.lower),
    "reversed_text": (1, lambda text: text[::-1]),
    "byte_length": (1, lambda text: len(text.encode("utf-8", "surrogatepass"))),
    "code_of": (1, lambda text: text.encode("utf-8", "surrogatepass")[0] if text else 0),
    "ci": (1, collation.key),
    "like_text": (4, lambda text, pattern, escape, binary: collation.like(pattern, escape, bool(binary))(text)),
    "to_date": (1, dates.to_date),
    "to_datetime": (1, dates.to_datetime),
    "to_time": (1, dates.to_time),
    "date_plus": (4, dates.add),
    "date_difference": (3, dates.difference),
    "days_between": (2, dates.days_between),
    "date_part": (2, dates.part),
    "date_text": (2, dates.formatted),
    "date_from_text": (2, dates.from_format),
    "last_day": (1, dates.last_day),
    "from_unixtime": (1, dates.from_unixtime),
}


def register(connection: sqlite3.Connection, fail: Fail) -> None:
    """Make the routines known to a connection. `fail` takes MySQL's message where a routine makes the statement fail."""
    connection.create_collation(COLLATION, collation.compare)
    for name, (arity, routine) in _PLAIN.items():
        connection.create_function(name, arity, _guarded(routine), deterministic=True)
    connection.create_function("concat_ws_text", -1, concat_ws, deterministic=True)
    for name, matcher in (("regexp_found", collation.search), ("regexp_replaced", collation.replace)):
        connection.create_function(name, 3, partial(_matched, matcher, fail), deterministic=True)
    connection.create_function("random_number", 0, random_sequence())
    connection.create_aggregate("one_value", 1, lambda: _OneValue(fail))
    connection.create_aggregate("sum_of_doubles", 1, _Added)  # type: ignore[arg-type]
    connection.create_aggregate("avg_of_doubles", 1, _Averaged)  # type: ignore[arg-type]
    connection.create_aggregate("group_text", -1, _GroupText)  # type: ignore[arg-type]
    connection.create_aggregate("spread", 3, _Spread)  # type: ignore[arg-type]


def _guarded(routine: Callable[..., Any]) -> Callable[..., Any]:
    """NULL for NULL, and for values that the routine can't take: MySQL gives NULL and a warning."""

    def call(*values: Any) -> Any:
        if None in values:
            return None
        try:
            result = routine(*values)
        except (ValueError, ArithmeticError, TypeError, AttributeError, MemoryError):
            return None
        return None if isinstance(result, str) and len(result) > MAX_TEXT else result

    return call


def _matched(matcher: Callable[..., Any], fail: Fail, text: str | None, pattern: str | None, third: Any) -> Any:
    if text is None or pattern is None or third is None:
        return None
    try:
        return matcher(text, pattern, third)
    except TimeoutError:
        fail("Timeout exceeded in regular expression match.")
    except (regex.error, ValueError, RecursionError, OverflowError, MemoryError):
        fail("Illegal argument to a regular expression.")
    return None


class _OneValue:
    """A scalar subquery: its only row's value, NULL for none, an error for more."""

    def __init__(self, fail: Fail) -> None:
        self._values: list[Any] = []
        self._fail = fail

    def step(self, value: Any) -> None:
        if self._values:
            self._fail("Subquery returns more than 1 row")
        self._values.append(value)

    def finalize(self) -> Any:
        return self._values[0] if self._values else None


class _Added:
    """SUM of doubles one by one, as MySQL adds them; SQLite's own differs by version."""

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def step(self, value: float | None) -> None:
        if value is not None:
            self._sum += value
            self._count += 1

    def finalize(self) -> float | None:
        return self._sum if self._count else None


class _Averaged(_Added):
    def finalize(self) -> float | None:
        return self._sum / self._count if self._count else None


class _GroupText:
    """GROUP_CONCAT(distinct?, separator, directions, value, order keys ...); directions has an A or a D for each key."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, tuple[Any, ...]]] = []
        self._distinct, self._separator, self._directions = 0, ",", ""

    def step(self, distinct: int, separator: str, directions: str, value: str | None, *keys: Any) -> None:
        self._distinct, self._separator, self._directions = distinct, separator, directions
        if value is not None and len(self._rows) < GROUP_CONCAT_ROWS:
            self._rows.append((value, keys))

    def finalize(self) -> str | None:
        if not self._rows:
            return None
        firsts = {collation.key(row[0]): row for row in reversed(self._rows)}
        rows = [row for row in self._rows if not self._distinct or firsts[collation.key(row[0])] is row]
        for number, direction in reversed(list(enumerate(self._directions))):
            rows.sort(key=lambda row, number=number: _sortable(row[1][number]), reverse=direction == "D")  # type: ignore[misc]
        joined = self._separator.join(value for value, _ in rows)
        return joined.encode("utf-8", "surrogatepass")[:GROUP_CONCAT_BYTES].decode("utf-8", "ignore")


def _sortable(value: Any) -> tuple[int, Any]:
    return (0, 0) if value is None else (2, value) if isinstance(value, str) else (1, value)


class _Spread:
    """Variance or standard deviation: spread(value, of a sample?, root?)."""

    def __init__(self) -> None:
        self._count, self._mean, self._squares = 0, 0.0, 0.0
        self._sample, self._root = 0, 0

    def step(self, value: float | None, sample: int, root: int) -> None:
        self._sample, self._root = sample, root
        if value is not None:
            self._count += 1
            away = value - self._mean
            self._mean += away / self._count
            self._squares += away * (value - self._mean)

    def finalize(self) -> float | None:
        if self._count <= self._sample:
            return None
        variance = self._squares / (self._count - self._sample)
        return math.sqrt(variance) if self._root else variance
