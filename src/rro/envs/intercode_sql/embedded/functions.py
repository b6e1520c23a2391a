"""MySQL's functions that SQLite lacks, or has with another meaning: in Python, by the names that SQLGlot gives them in SQLite.

NULL in gives NULL out, and so does what a function cannot take.
"""

from __future__ import annotations

import calendar
import math
import re
import sqlite3
import statistics
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache, partial, reduce
from operator import add
from typing import Any

from rro.envs.intercode_sql.embedded import collation

NOW = datetime(2026, 11, 22, 12)  # the clock stands still: an episode must answer the same whenever it is played again
MAX_TEXT = 65_535  # characters; what is longer becomes NULL, as beyond MySQL's max_allowed_packet
UNITS = {"SECOND": 1, "MINUTE": 60, "HOUR": 3600, "DAY": 86_400, "WEEK": 604_800}
MONTHS = {"MONTH": 1, "QUARTER": 3, "YEAR": 12}
_DATE = re.compile(r"\s*(\d{4})\D?(\d\d?)\D?(\d\d?)(?:[T\s]*(\d\d?):?(\d\d?)?:?(\d\d?)?(?:\.\d*)?)?\s*$")


@lru_cache(maxsize=8192)
def moment(text: str) -> datetime:
    """A date, with or without time of day, as MySQL reads it. Raises ValueError for what is none."""
    match = _DATE.match(text)
    if match is None:
        raise ValueError(text)
    return datetime(*(int(part or 0) for part in match.groups()))  # type: ignore[arg-type]


def date_add(text: str, amount: float, unit: str) -> str:
    """A date stays a date unless the unit is shorter than a day."""
    start = moment(text)
    if unit in MONTHS:
        year, month = divmod(start.year * 12 + start.month - 1 + round(amount) * MONTHS[unit], 12)
        end = start.replace(year, month + 1, min(start.day, calendar.monthrange(year, month + 1)[1]))
    else:
        end = start + timedelta(seconds=round(amount) * UNITS[unit])
    return str(end.date() if len(text) <= 10 and unit not in ("SECOND", "MINUTE", "HOUR") else end)


def timestamp_diff(unit: str, start: str, end: str) -> int:
    """Whole units from `start` to `end`."""
    one, other = moment(start), moment(end)
    if other < one:
        return -timestamp_diff(unit, end, start)
    if unit in UNITS:
        return (other - one) // timedelta(seconds=UNITS[unit])
    short = (other.day, other.time()) < (one.day, one.time())
    return ((other.year - one.year) * 12 + other.month - one.month - short) // MONTHS[unit]


def rounded(value: float, places: float = 0) -> float:
    """Halves go away from zero."""
    return float(Decimal(repr(value)).quantize(Decimal(1).scaleb(-max(-30, min(30, int(places)))), ROUND_HALF_UP))


def number_text(value: float, scale: int = -1) -> str:
    """A number as MySQL writes it out: with `scale` digits after the point; -1: with as many as it needs."""
    if scale >= 0:
        return format(Decimal(repr(value)).quantize(Decimal(1).scaleb(-scale), ROUND_HALF_UP), "f")
    return repr(value).replace("e+", "e") if abs(value) >= 1e15 else format(Decimal(repr(value)).normalize(), "f")


def _substring_index(text: str, by: str, count: int) -> str:
    pieces = text.split(by)
    return by.join(pieces[:count] if count > 0 else pieces[count:])


def _pad(text: str, width: int, filler: str, left: bool = True) -> str:
    filling = (filler * min(width, MAX_TEXT))[: max(0, width - len(text))]
    return (filling + text if left else text + filling)[:width]


_ROUTINES: dict[str, Callable[..., Any]] = {
    "ci": collation.key,
    "number_text": number_text,
    "digits": lambda text: int(re.sub(r"\D", "", text)),  # of a date, as a number
    "like": lambda pattern, text, escape="\\": collation.like(text, pattern, escape),
    "upper": lambda text: str(text).upper(),
    "lower": lambda text: str(text).lower(),
    "reverse": lambda text: str(text)[::-1],
    "left": lambda text, count: str(text)[: max(0, count)],
    "right": lambda text, count: str(text)[max(0, len(str(text)) - count) :],
    "concat_ws": lambda joint, *texts: joint.join(map(str, texts)),
    "instr": lambda text, piece: str(text).lower().find(str(piece).lower()) + 1,
    "lpad": lambda text, *given: _pad(str(text), *given),
    "rpad": lambda text, *given: _pad(str(text), *given, left=False),
    "repeat": lambda text, count: text * count if len(text) * count <= MAX_TEXT else None,
    "substring_index": _substring_index,
    "number_to_str": lambda value, places: f"{Decimal(number_text(value, max(0, places))):,f}",
    "round": rounded,
    "ceil": math.ceil,
    "floor": math.floor,
    "remainder": math.fmod,
    "power": math.pow,
    "sqrt": math.sqrt,
    "random": lambda: 0.15522042769493574,  # the same each time, so that episodes repeat
    "now": lambda: str(NOW),
    "date": lambda text: str(moment(text).date()),
    "timestamp": lambda text: str(moment(text)),
    "date_add": date_add,
    "timestamp_diff": timestamp_diff,
    "strftime": lambda form, text: moment(text).strftime(form),
    "str_to_date": lambda text, form: str(datetime.strptime(text, form)),
    "dayname": lambda text: f"{moment(text):%A}",
    "quarter": lambda text: (moment(text).month + 2) // 3,
    "day_of_week": lambda text: moment(text).isoweekday() % 7 + 1,
    "weekday": lambda text: moment(text).weekday(),
    **{
        part: lambda text, part=part: getattr(moment(text), part)  # type: ignore[misc]
        for part in ("year", "month", "day", "hour", "minute", "second")
    },
}
_AGGREGATES: dict[str, Callable[[list[Any]], Any]] = {
    "only": lambda rows: _only(*rows),
    "min_text": partial(min, key=collation.key),
    "max_text": partial(max, key=collation.key),
    "sum_double": partial(reduce, add),  # one by one: SQLite's own differs by version
    "avg_double": lambda values: reduce(add, values) / len(values),
    "stddev_pop": statistics.pstdev,
    "variance_pop": statistics.pvariance,
}
_NATIVE = "abs avg coalesce count group_concat hex ifnull iif julianday length ltrim max min nullif replace rtrim sign substring"
_NATIVE += " sum trim row_number rank dense_rank lag lead first_value last_value ntile"
ALLOWED = frozenset({*_ROUTINES, *_AGGREGATES, *_NATIVE.split(), "regexp"})


def register(connection: sqlite3.Connection) -> None:
    """Make the functions known to a connection."""
    for name, routine in _ROUTINES.items():
        connection.create_function(name, -1, partial(_called, routine), deterministic=True)
    connection.create_function("regexp", 2, _regexp, deterministic=True)
    for name, finish in _AGGREGATES.items():
        connection.create_aggregate(name, -1, partial(_Collected, finish))  # type: ignore[arg-type]


def _called(routine: Callable[..., Any], *values: Any) -> Any:
    if None in values:
        return None
    try:
        result = routine(*values)
    except (ValueError, ArithmeticError, TypeError, AttributeError):
        return None
    return None if isinstance(result, str) and len(result) > MAX_TEXT else result


def _regexp(pattern: str | None, text: str | None) -> bool | None:
    """Raises for a bad or slow pattern, which ends the statement."""
    return None if pattern is None or text is None else collation.search(str(text), str(pattern))


class _Collected:
    """An aggregate function over all values of a group at once, but NULLs."""

    def __init__(self, finish: Callable[[list[Any]], Any]) -> None:
        self._finish = finish
        self._values: list[Any] = []

    def step(self, value: Any) -> None:
        if value is not None:
            self._values.append(value)

    def finalize(self) -> Any:
        return self._finish(self._values) if self._values else None


def _only(value: Any) -> Any:
    """The value of a scalar subquery. More than one is a TypeError, which ends the statement."""
    return value
