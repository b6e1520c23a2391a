"""MySQL's aggregates that SQLite lacks. Knows nothing of the tree."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from rro.intercode_sql.embedded.numeric import bits, signed, whole


class Aggregate:
    """An aggregate for SQLite over numbers; NULL is left out."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def step(self, *values: Any) -> None:
        """Take one row."""
        if None not in values:
            self.values.append(values[0] if len(values) == 1 else values)


def _spread(root: bool, missing: int) -> type[Aggregate]:
    """The deviation (`root`) or variance, of a sample if 1 is `missing` from its size."""

    class Spread(Aggregate):
        def finalize(self) -> float | None:
            mean, squares = 0.0, 0.0
            for number, value in enumerate(self.values, 1):
                before, mean = mean, mean + (value - mean) / number
                squares += (value - before) * (value - mean)
            if len(self.values) <= missing:
                return None
            variance = squares / (len(self.values) - missing)
            return math.sqrt(variance) if root else variance

    return Spread


def _bitwise(sign: str, start: int) -> type[Aggregate]:
    class Bitwise(Aggregate):
        def finalize(self) -> int:
            result = start
            for value in self.values:
                result = bits(sign, result, whole(value))
            return signed(result)

    return Bitwise


class _CountRows(Aggregate):
    """COUNT(DISTINCT a, b)."""

    def finalize(self) -> int:
        return len(set(self.values))


class _GroupConcat:
    """GROUP_CONCAT: of separator, whether distinct, the directions of ORDER BY, text, key, and the
    keys of ORDER BY."""

    def __init__(self) -> None:
        self.rows: list[tuple[Any, ...]] = []
        self.joint, self.distinct, self.ways = "", 0, ""

    def step(self, joint: str, distinct: int, ways: str, text: Any, *keys: Any) -> None:
        self.joint, self.distinct, self.ways = joint, distinct, ways
        if text is not None:
            self.rows.append((text, *keys))

    def finalize(self) -> str | None:
        rows = (
            list({row[1]: row for row in reversed(self.rows)}.values())[::-1]
            if self.distinct
            else self.rows
        )
        if self.distinct and not self.ways:
            rows.sort(key=lambda row: _sort_key(row[1]))
        if self.ways:
            # Of rows that ORDER BY does not tell apart, MySQL shows the last first.
            rows = rows[::-1]
        for place, way in reversed(list(enumerate(self.ways, 2))):
            rows.sort(key=_by_column(place), reverse=way == "d")
        return self.joint.join(row[0] for row in rows) if rows else None


def _sort_key(value: Any) -> tuple[bool, bool, Any]:
    return value is not None, isinstance(value, str), value or 0 if value is not None else 0


def _by_column(place: int) -> Callable[[tuple[Any, ...]], tuple[bool, bool, Any]]:
    return lambda row: _sort_key(row[place])


CLASSES: dict[str, type[Any]] = {
    "stddev_pop": _spread(True, 0),
    "stddev_samp": _spread(True, 1),
    "var_pop": _spread(False, 0),
    "var_samp": _spread(False, 1),
    "bit_and": _bitwise("&", 2**64 - 1),
    "bit_or": _bitwise("|", 0),
    "bit_xor": _bitwise("^", 0),
    "count_rows": _CountRows,
    "my_group_concat": _GroupConcat,
}
