"""MySQL's arithmetic on dates, which SQLite lacks. Dates are texts, as MySQL writes them; what is no date gives None.

The clock stands still: an episode that asks for today must answer the same whenever it is played again.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from functools import lru_cache

NOW = datetime(2026, 11, 22, 12, 0, 0)  # the day of the recordings that this engine is checked against

_DATE = re.compile(
    r"\s*(\d{4})[-/.:^@](\d{1,2})[-/.:^@](\d{1,2})"
    r"(?:[T\s]+(\d{1,2})(?::(\d{1,2}))?(?::(\d{1,2}))?(?:\.(\d{1,6})\d*)?)?\s*$"
)
_DIGITS = re.compile(r"\s*(\d{4})(\d\d)(\d\d)(?:(\d\d)(\d\d)(\d\d))?\s*$")
_TIME = re.compile(r"\s*(-?)(\d{1,3}):(\d{1,2})(?::(\d{1,2}))?")
_SECONDS = {"SECOND": 1, "MINUTE": 60, "HOUR": 3600, "DAY": 86_400, "WEEK": 604_800}
_MONTHS = {"MONTH": 1, "QUARTER": 3, "YEAR": 12}
UNITS = frozenset({*_SECONDS, *_MONTHS})


@lru_cache(maxsize=8192)
def parse(text: str) -> datetime | None:
    """A date or datetime as MySQL reads it from text or digits."""
    match = _DATE.match(text) or _DIGITS.match(text)
    if match is None:
        return None
    parts = [int(part or 0) for part in match.groups()[:6]]
    fraction = match.group(7) if match.re is _DATE else None
    try:
        return datetime(*parts, int((fraction or "0").ljust(6, "0")))  # type: ignore[call-arg,arg-type]
    except ValueError:
        return None


def show(moment: datetime) -> str:
    return moment.isoformat(" ")


def to_date(text: str) -> str | None:
    moment = parse(text)
    return moment.date().isoformat() if moment else None


def to_datetime(text: str) -> str | None:
    moment = parse(text)
    return show(moment) if moment else None


def to_time(text: str) -> str | None:
    """HH:MM:SS of a time or datetime."""
    if moment := parse(text):
        return moment.time().isoformat()
    match = _TIME.match(text)
    return f"{match[1]}{int(match[2]):02}:{int(match[3]):02}:{int(match[4] or 0):02}" if match else None


def add(text: str, amount: float, unit: str, sign: int) -> str | None:
    """`text` plus `sign` times `amount` units; a date stays a date unless the unit is shorter than a day."""
    moment = parse(text)
    if moment is None:
        return None
    try:
        if unit in _MONTHS:
            moved = _add_months(moment, sign * _MONTHS[unit] * round(amount))
        else:
            moved = moment + timedelta(seconds=sign * (amount if unit == "SECOND" else round(amount)) * _SECONDS[unit])
    except (OverflowError, ValueError):
        return None
    whole_days = unit in _MONTHS or unit in ("DAY", "WEEK")
    return moved.date().isoformat() if len(text.strip()) <= 10 and whole_days else show(moved)


def _add_months(moment: datetime, months: int) -> datetime:
    year, month = divmod(moment.year * 12 + moment.month - 1 + months, 12)
    if not 1 <= year <= 9999:
        raise ValueError("year out of range")
    return moment.replace(year=year, month=month + 1, day=min(moment.day, calendar.monthrange(year, month + 1)[1]))


def difference(unit: str, start: str, end: str) -> int | None:
    """TIMESTAMPDIFF: whole units from `start` to `end`."""
    one, other = parse(start), parse(end)
    if one is None or other is None:
        return None
    if other < one:
        back = difference(unit, end, start)
        return None if back is None else -back
    if unit in _MONTHS:
        months = (other.year - one.year) * 12 + other.month - one.month
        months -= (other.day, other.time()) < (one.day, one.time())
        return months // _MONTHS[unit]
    return (other - one) // timedelta(seconds=_SECONDS[unit])


def days_between(one: str, other: str) -> int | None:
    """DATEDIFF: days from `other` to `one`, times of day left out."""
    mine, theirs = parse(one), parse(other)
    return (mine.date() - theirs.date()).days if mine and theirs else None


def part(unit: str, text: str) -> int | str | None:
    """One part of a date or time, by the name of MySQL's function for it."""
    moment = parse(text)
    if moment is None and unit in ("HOUR", "MINUTE", "SECOND") and (match := _TIME.match(text)):
        return int(match[("HOUR", "MINUTE", "SECOND").index(unit) + 2] or 0)
    if moment is not None:
        return _PARTS[unit](moment)
    if unit in ("YEAR", "MONTH", "DAY") and text.startswith("0000-00-00"):
        return 0
    return None


_PARTS: dict[str, Callable[[datetime], int | str]] = {
    "YEAR": lambda moment: moment.year,
    "MONTH": lambda moment: moment.month,
    "DAY": lambda moment: moment.day,
    "HOUR": lambda moment: moment.hour,
    "MINUTE": lambda moment: moment.minute,
    "SECOND": lambda moment: moment.second,
    "QUARTER": lambda moment: (moment.month + 2) // 3,
    "DAYOFWEEK": lambda moment: moment.isoweekday() % 7 + 1,
    "WEEKDAY": lambda moment: moment.weekday(),
    "DAYOFYEAR": lambda moment: moment.timetuple().tm_yday,
    "DAYNAME": lambda moment: calendar.day_name[moment.weekday()],
    "MONTHNAME": lambda moment: calendar.month_name[moment.month],
    "WEEK": lambda moment: int(moment.strftime("%U")),
    "UNIX_TIMESTAMP": lambda moment: calendar.timegm(moment.timetuple()),
}


def last_day(text: str) -> str | None:
    moment = parse(text)
    return (
        date(moment.year, moment.month, calendar.monthrange(moment.year, moment.month)[1]).isoformat()
        if moment
        else None
    )


def from_unixtime(seconds: float) -> str | None:
    return show(datetime(1970, 1, 1) + timedelta(seconds=round(seconds))) if 0 <= seconds < 32_536_771_200 else None


_SUFFIX = {1: "st", 2: "nd", 3: "rd"}
_FORMATS: dict[str, Callable[[datetime], str]] = {
    **{
        code: (lambda moment, python=python: moment.strftime(python))  # type: ignore[misc]
        for code, python in {
            "Y": "%Y", "y": "%y", "m": "%m", "d": "%d", "H": "%H", "h": "%I", "I": "%I", "i": "%M", "s": "%S", "S": "%S",
            "p": "%p", "T": "%H:%M:%S", "r": "%I:%M:%S %p", "j": "%j", "W": "%A", "a": "%a", "M": "%B", "b": "%b",
            "f": "%f", "w": "%w", "U": "%U", "u": "%W", "v": "%V", "x": "%G",
        }.items()
    },
    "c": lambda moment: str(moment.month),
    "e": lambda moment: str(moment.day),
    "k": lambda moment: str(moment.hour),
    "l": lambda moment: str((moment.hour + 11) % 12 + 1),
    "D": lambda moment: f"{moment.day}{'th' if 10 < moment.day < 20 else _SUFFIX.get(moment.day % 10, 'th')}",
}  # fmt: skip


def formatted(text: str, form: str) -> str | None:
    """DATE_FORMAT."""
    moment = parse(text)
    if moment is None:
        return None
    return re.sub(r"%(.)", lambda code: _FORMATS[code[1]](moment) if code[1] in _FORMATS else code[1], form)


_PYTHON_CODES = {
    "i": "%M",
    "s": "%S",
    "h": "%I",
    "M": "%B",
    "W": "%A",
    "T": "%H:%M:%S",
    "e": "%d",
    "c": "%m",
    "k": "%H",
}


def from_format(text: str, form: str) -> str | None:
    """STR_TO_DATE."""
    python = re.sub(r"%(.)", lambda code: _PYTHON_CODES.get(code[1], code[0]), form)
    try:
        moment = datetime.strptime(text.strip(), python)
    except ValueError:
        return None
    has_time = re.search(r"%[HhIiSsTrklf]", form)
    return show(moment) if has_time else moment.date().isoformat()
