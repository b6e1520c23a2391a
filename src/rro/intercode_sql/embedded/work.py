"""Counts the work of a statement, so that its answer does not depend on the machine or its load.

The unit is about a step of SQLite's virtual machine. A function costs by its arguments and its
result, which must bound its time. A step costs more as soon as the statement has made long texts,
which any step may copy. Knows nothing of the functions' meaning.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rro.intercode_sql.engine import INTERRUPTED, SqlError

# Characters. The function that makes a longer text gives NULL, as beyond MySQL's
# max_allowed_packet.
MAX_TEXT = 1_000_000
# Steps of SQLite's virtual machine between two calls of `Work.step`.
STEPS = 500
# What a call of a function costs by itself; how long a text must be for a step to cost one more.
_CALL, _LONG = 48, 512
_TEXTS = (str, bytes)


class Work:
    """The work that the current statement may still do, of `limit` units in all."""

    def __init__(self, limit: int) -> None:
        self._limit, self._longest, self._every = limit, 0, min(STEPS, limit)
        self.left, self.number = limit, 0
        self.error: SqlError | None = None
        """What ended the statement within a function."""

    def begin(self) -> None:
        """A new statement."""
        self.left, self._longest, self.error = self._limit, 0, None
        self.number += 1

    def expect(self, longest: int) -> None:
        """A text of the statement has that many characters."""
        self._longest = max(self._longest, longest)

    def step(self) -> int:
        """SQLite's progress handler. A value other than 0 stops the statement."""
        self.left -= self._every * (1 + self._longest // _LONG)
        return int(self.left < 0)

    def spend(self, units: int) -> None:
        """Raises SqlError if the statement has done more than it may."""
        self.left -= units
        if self.left < 0:
            raise SqlError(INTERRUPTED)

    def function(
        self,
        routine: Callable[..., Any],
        cost: Callable[..., int] | None = None,
        nulls: bool = False,
    ) -> Callable[..., Any]:
        """A function for SQLite: NULL for NULL (unless the routine takes `nulls`), for arguments
        that the routine cannot take, and for too long a result. `cost` gives the units of a routine
        whose time is not linear in its arguments. An SqlError of the routine ends the statement."""

        def called(*values: Any) -> Any:
            if not nulls and None in values:
                return None
            units = cost(*values) + _CALL if cost else _CALL
            for value in values:
                if value.__class__ in _TEXTS:
                    units += _units(value)
            try:
                self.spend(units)
                result = routine(*values)
                if result.__class__ not in _TEXTS:
                    return result
                self.spend(_units(result))
            except SqlError as error:
                self.error = self.error or error
                raise
            except (ValueError, ArithmeticError):
                return None
            if len(result) > MAX_TEXT:
                return None
            self._longest = max(self._longest, len(result))
            return result

        return called

    def aggregate(self, kind: type[Any]) -> type[Any]:
        """An aggregate for SQLite whose rows are counted."""
        work = self

        class Counted(kind):  # type: ignore[misc]
            def step(self, *values: Any) -> None:
                work.left -= sum(map(_units, values), 2 * _CALL)
                super().step(*values)

            def finalize(self) -> Any:
                return work.function(super().finalize)()

        return Counted

    def collation(self, key: Callable[[str], str]) -> Callable[[str, str], int]:
        """A collation for SQLite that compares by keys."""

        def compared(one: str, other: str) -> int:
            self.left -= _CALL + _units(one) + _units(other)
            if self.left < 0:  # `step` will stop the statement
                return 0
            left, right = key(one), key(other)
            return (left > right) - (left < right)

        return compared


def _units(value: Any) -> int:
    if value.__class__ not in _TEXTS:
        return 0
    return len(value) >> 3 if value.isascii() else 2 * len(value)
