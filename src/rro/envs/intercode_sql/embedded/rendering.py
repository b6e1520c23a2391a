"""SQLite's values as Python's MySQL drivers give MySQL's: Decimal, date, datetime, timedelta, float, bytes."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from rro.envs.intercode_sql.embedded import dates, routines
from rro.envs.intercode_sql.embedded.schema import Kind, Type
from rro.envs.intercode_sql.embedded.syntax import SqlError


def rendered(rows: Sequence[tuple[Any, ...]], types: Sequence[Type]) -> tuple[tuple[Any, ...], ...]:
    """Each column's values as those of its type. Raises SqlError for numbers that have none."""
    renderers = [_renderer(kind) for kind in types]
    if not any(renderers):
        return tuple(rows)
    try:
        return tuple(
            tuple(v if render is None or v is None else render(v) for v, render in zip(row, renderers, strict=True))
            for row in rows
        )
    except ArithmeticError:  # infinity
        raise SqlError("DOUBLE value is out of range") from None


def _renderer(kind: Type) -> Callable[[Any], Any] | None:
    match kind.kind:
        case Kind.DECIMAL:
            scale = kind.scale or 0
            return lambda value: Decimal(
                str(value) if scale == 0 and isinstance(value, int) else routines.decimal_text(float(value), scale)
            )
        case Kind.DOUBLE | Kind.FLOAT if kind.scale is not None:
            return lambda value: float(routines.decimal_text(float(value), kind.scale or 0))
        case Kind.FLOAT:
            return lambda value: float(f"{float(value):.6g}")
        case Kind.DOUBLE:
            return float
        case Kind.DATE:
            return _date
        case Kind.DATETIME:
            return lambda value: dates.parse(str(value))
        case Kind.TIME:
            return _duration
        case Kind.BYTES:
            return lambda value: str(value).encode("utf-8", "surrogatepass")
        case Kind.INT:
            return lambda value: int(value) if isinstance(value, float) else value
    return None


def _date(value: Any) -> datetime.date | None:
    moment = dates.parse(str(value))
    return moment.date() if moment else None


def _duration(value: Any) -> datetime.timedelta:
    hours, minutes, seconds = (float(part) for part in str(value).lstrip("-").split(":"))
    length = datetime.timedelta(hours=hours, minutes=minutes, seconds=seconds)
    return -length if str(value).startswith("-") else length
