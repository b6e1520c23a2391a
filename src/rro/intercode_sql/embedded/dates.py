"""MySQL's dates and times as functions of texts: parsing, formats, parts, weeks and intervals.

A date is `2020-01-31`, a datetime `2020-01-31 10:00:00`, a time `[-]10:00:00`, each with digits of
a second after a point if there are any. ValueError means that a text is no date, which is NULL in
MySQL. Knows nothing of SQL.
"""

from __future__ import annotations

import calendar
import re
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Any

from rro.intercode_sql.engine import TODAY as TODAY

NOON = "12:00:00"
UNITS = ("YEAR", "MONTH", "DAY", "HOUR", "MINUTE", "SECOND", "MICROSECOND")
_CLOCK = r"(\d\d?)(?:[^\w\s](\d\d?))?(?:[^\w\s](\d\d?))?(?:\.(\d{1,6})\d*)?"
_DATE = re.compile(
    rf"\s*(\d{{4}}|\d\d?)[^\w\s](\d\d?)[^\w\s](\d\d?)(?:(?:T|\s+){_CLOCK})?(?!\d)", re.ASCII
)
_DIGITS = re.compile(r"\s*(\d\d(?:\d\d)?)(\d\d)(\d\d)(?:(\d\d)(\d\d)(\d\d)?)?(?:\.(\d+))?(?!\d)")
_TIME = re.compile(r"\s*(-?)(?:(\d+)\s+)?(\d+)(?::(\d\d?))?(?::(\d\d?))?(?:\.(\d{1,6})\d*)?")
_NUMBERS = {
    **{"Y": r"\d{1,4}", "y": r"\d\d?", "m": r"\d\d?", "c": r"\d\d?", "d": r"\d\d?", "e": r"\d\d?"},
    **{"H": r"\d\d?", "k": r"\d\d?", "h": r"\d\d?", "I": r"\d\d?", "l": r"\d\d?", "i": r"\d\d?"},
    **{"s": r"\d\d?", "S": r"\d\d?", "f": r"\d{1,6}", "j": r"\d{1,3}", "D": r"\d\d?\w\w"},
    **{"M": "[a-zA-Z]+", "b": "[a-zA-Z]+", "W": "[a-zA-Z]+", "a": "[a-zA-Z]+", "p": "[aApP][mM]"},
}
_LONG = {"T": "%H:%i:%s", "r": "%h:%i:%s %p"}


@lru_cache(maxsize=8192)
def moment(text: str) -> datetime:
    """Parse a date, with or without time of day, as MySQL does. Raises ValueError if it is none."""
    match = _DATE.match(text) or _DIGITS.match(text) if len(text) <= 100 else None
    if match is None:
        raise ValueError(text)
    year, month, day, *clock, fraction = match.groups()
    century = 0 if len(year) > 2 else 2000 if int(year) < 70 else 1900
    micro = int((fraction or "").ljust(6, "0")[:6] or 0)
    hour, minute, second = (int(part or 0) for part in clock)
    return datetime(int(year) + century, int(month), int(day), hour, minute, second, micro)


def has_clock(text: str) -> bool:
    """Whether a text has a time of day."""
    return ":" in text or len(text.strip()) > 10


def duration(text: str) -> timedelta:
    """Parse a time; of a datetime, its time of day. Raises ValueError if it is none."""
    day = _DATE.match(text[:100])
    if (day is not None and day[4]) or (text.isdigit() and len(text) == 14):
        found = moment(text)
        return timedelta(0, found.hour * 3600 + found.minute * 60 + found.second, found.microsecond)
    match = _TIME.match(text)
    if match is None:
        raise ValueError(text)
    sign, days, hours, minutes, seconds, fraction = match.groups()
    if days is None and minutes is None:
        digits = hours.zfill(6)
        hours, minutes, seconds = digits[:-4], digits[-4:-2], digits[-2:]
    if int(minutes or 0) > 59 or int(seconds or 0) > 59:
        raise ValueError(text)
    total = timedelta(
        int(days or 0),
        int(seconds or 0),
        int((fraction or "").ljust(6, "0") or 0),
        minutes=int(minutes or 0),
        hours=int(hours),
    )
    return min(total, timedelta(hours=838, minutes=59, seconds=59)) * (-1 if sign else 1)


def clock(value: timedelta) -> str:
    """A time as text."""
    sign, value = ("-", -value) if value < timedelta(0) else ("", value)
    value = min(value, timedelta(hours=838, minutes=59, seconds=59))
    seconds = value.days * 86400 + value.seconds
    fraction = f".{value.microseconds:06}" if value.microseconds else ""
    return f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{fraction}"


def week(day: date, mode: int = 0) -> tuple[int, int]:
    """Year and week of a date in one of MySQL's modes 0 to 7."""
    monday, full_year, first_weekday = bool(mode & 1), bool(mode & 2), bool(mode & 4) ^ (mode & 1)
    # MySQL's calc_week: with `first_weekday`, week 1 is the one with four days in the year.
    first_weekday = not (bool(mode & 4) ^ bool(mode & 1))
    year, new_year = day.year, date(day.year, 1, 1)
    weekday = new_year.weekday() if monday else (new_year.weekday() + 1) % 7
    number = day.timetuple().tm_yday - 1
    late = weekday != 0 if first_weekday else weekday >= 4
    if number < 7 - weekday and day.month == 1:
        if not full_year and late:
            return year, 0
        if late:
            year -= 1
            days = 366 if calendar.isleap(year) else 365
            number, weekday = number + days, (weekday + 53 * 7 - days) % 7
            late = weekday != 0 if first_weekday else weekday >= 4
    start = 7 - weekday if late else -weekday
    found = number - start
    if full_year and found >= 52 * 7:
        days = 366 if calendar.isleap(year) else 365
        weekday = (weekday + days) % 7
        if (not first_weekday and weekday < 4) or (first_weekday and weekday == 0):
            return year + 1, 1
    return year, found // 7 + 1


def formatted(text: str, form: str) -> str:
    """DATE_FORMAT."""
    if not form:
        raise ValueError("an empty format")
    at = moment(text)
    return re.sub(r"%(.)", lambda match: _shown(at, match[1]), form, flags=re.DOTALL)


def _shown(at: datetime, letter: str) -> str:
    if letter in _LONG:
        return formatted(at.isoformat(" "), _LONG[letter])
    ending = "th" if 10 < at.day < 14 else {1: "st", 2: "nd", 3: "rd"}.get(at.day % 10, "th")
    twelve = at.hour % 12 or 12
    values: dict[str, Any] = {
        **{"a": calendar.day_abbr[at.weekday()], "W": calendar.day_name[at.weekday()]},
        **{"b": calendar.month_abbr[at.month], "M": calendar.month_name[at.month], "c": at.month},
        **{"D": f"{at.day}{ending}", "d": f"{at.day:02}", "e": at.day, "f": f"{at.microsecond:06}"},
        **{"H": f"{at.hour:02}", "k": at.hour, "h": f"{twelve:02}", "I": f"{twelve:02}"},
        **{"l": twelve, "i": f"{at.minute:02}", "j": f"{at.timetuple().tm_yday:03}"},
        **{"m": f"{at.month:02}", "p": "PM" if at.hour > 11 else "AM", "s": f"{at.second:02}"},
        **{"S": f"{at.second:02}", "Y": f"{at.year:04}", "y": f"{at.year % 100:02}"},
        "w": (at.weekday() + 1) % 7,
    }
    if letter in "UuVvXx":
        year, number = week(at.date(), {"U": 0, "u": 1, "V": 2, "v": 3, "X": 2, "x": 3}[letter])
        return f"{year:04}" if letter in "Xx" else f"{number:02}"
    return str(values.get(letter, letter))


@lru_cache(maxsize=512)
def format_kind(form: str) -> str:
    """What a format makes: a date, a time or a datetime."""
    letters = set(re.findall(r"%(.)", form))
    clocks, days = bool(letters & set("HkhIlisSfprT")), bool(letters & set("YymcdejDMbaWUuVvXx"))
    return "datetime" if clocks and days else "time" if clocks else "date"


def parsed(text: str, form: str) -> str:
    """STR_TO_DATE. Raises ValueError if the text has another form."""
    for letter, long in _LONG.items():
        form = form.replace(f"%{letter}", long)
    found, place = dict[str, str](), 0
    for part in re.findall(r"%.|\s+|.", form, re.DOTALL):
        letter = part[1] if part[0] == "%" and part[1:] in _NUMBERS else ""
        plain = "" if part.isspace() else re.escape(part[1:] if len(part) > 1 else part)
        match = re.compile(rf"\s*({_NUMBERS[letter] if letter else plain})").match(text, place)
        if match is None:
            raise ValueError(text)
        place = match.end()
        if letter:
            found[letter] = match[1]
    number = {letter: int(value) for letter, value in found.items() if value.isdigit()}
    hour = next((number[letter] for letter in "HkhIl" if letter in number), 0)
    if "p" in found:
        hour = hour % 12 + 12 * (found["p"].lower() == "pm")
    micro = int(found.get("f", "").ljust(6, "0") or 0)
    rest = timedelta(0, number.get("s", number.get("S", 0)), micro, 0, number.get("i", 0), hour)
    if hour > 23 or rest >= timedelta(1):
        raise ValueError(text)
    kind = format_kind(form)
    if kind == "time":
        return clock(rest)
    return _day(found, number).isoformat() + (f" {clock(rest)}" if kind == "datetime" else "")


def _day(found: dict[str, str], number: dict[str, int]) -> date:
    """The date of the parts that STR_TO_DATE has found."""
    year = number.get("Y", number.get("y", 0))
    if "y" in number or len(found.get("Y", "1234")) < 3:
        year += 2000 if year < 70 else 1900
    if "j" in number:
        return date(year, 1, 1) + timedelta(number["j"] - 1)
    month = number.get("m", number.get("c", 0))
    for letter, names in (("M", calendar.month_name), ("b", calendar.month_abbr)):
        if letter in found:
            month = [name.lower() for name in names].index(found[letter].lower())
    ordinal = int(found["D"][:-2]) if "D" in found else 0
    return date(year, month, number.get("d", number.get("e", ordinal)))


def shifted(text: str, amount: Any, unit: str, sign: int = 1) -> str:
    """A date plus `sign` times an interval. Raises ValueError if it is none, or out of range."""
    first, _, last = unit.partition("_")
    if unit in ("WEEK", "QUARTER"):
        amount, unit = _whole(amount) * (7 if unit == "WEEK" else 3), _BASE[unit]
        first, last = unit, ""
    if last:
        span = UNITS[UNITS.index(first) : UNITS.index(last) + 1]
        numbers = re.findall(r"\d+", str(amount))[-len(span) :]
        sign *= -1 if str(amount).lstrip().startswith("-") else 1
        parts: dict[str, Any] = dict(
            zip(span[len(span) - len(numbers) :], map(int, numbers), strict=True)
        )
    else:
        parts = {unit: Decimal(_number(amount)) if unit == "SECOND" else _whole(amount)}
    at = moment(text)
    months = sign * int(parts.pop("YEAR", 0) * 12 + parts.pop("MONTH", 0))
    clocks = bool(parts) and parts.keys() != {"DAY"}
    year, month = divmod(at.year * 12 + at.month - 1 + months, 12)
    if not 0 < year < 10000:
        raise ValueError(text)
    at = at.replace(year, month + 1, min(at.day, calendar.monthrange(year, month + 1)[1]))
    delta = {f"{name.lower()}s": float(value) for name, value in parts.items()}
    at += sign * timedelta(**delta)
    return at.isoformat(" ") if clocks or has_clock(text) else str(at.date())


_BASE = {"WEEK": "DAY", "QUARTER": "MONTH"}


def _number(amount: Any) -> str:
    match = re.match(r"\s*-?\d*\.?\d*", str(amount))
    found = match[0].strip() if match else ""
    return found if re.search(r"\d", found) else "0"


def _whole(amount: Any) -> int:
    """The amount of an interval: numbers are rounded, texts cut."""
    if isinstance(amount, str):
        return int(Decimal(_number(amount)))
    return int(Decimal(repr(amount)).quantize(Decimal(1), ROUND_HALF_UP))


def extracted(text: str, unit: str) -> int:
    """EXTRACT: the part, or the parts of a compound unit as one number."""
    first, _, last = unit.partition("_")
    if first in ("WEEK", "QUARTER"):
        at = moment(text)
        return week(at.date())[1] if first == "WEEK" else (at.month + 2) // 3
    span = UNITS[UNITS.index(first) : UNITS.index(last or first) + 1]
    if first in UNITS[:3]:
        at = moment(text)
        values = (at.year, at.month, at.day, at.hour, at.minute, at.second, at.microsecond)
    else:
        of_day = duration(text)
        seconds = abs(of_day).days * 86400 + abs(of_day).seconds
        values = (0, 0, 0, seconds // 3600, seconds // 60 % 60, seconds % 60, of_day.microseconds)
    number = 0
    for name in span:
        number = number * (10**6 if name == "MICROSECOND" else 100) + values[UNITS.index(name)]
    return number


def difference(unit: str, one: str, other: str) -> int:
    """TIMESTAMPDIFF: whole units from `one` to `other`."""
    start, end = moment(one), moment(other)
    sizes = {"WEEK": 604800, "DAY": 86400, "HOUR": 3600, "MINUTE": 60, "SECOND": 1}
    if unit in sizes or unit == "MICROSECOND":
        micro = (end - start) // timedelta(microseconds=1)
        size = sizes[unit] * 10**6 if unit in sizes else 1
        return abs(micro) // size * (1 if micro >= 0 else -1)
    sign, first, last = (1, start, end) if start <= end else (-1, end, start)
    months = (last.year - first.year) * 12 + last.month - first.month
    months -= (last.day, last.time()) < (first.day, first.time())
    return sign * (months // {"MONTH": 1, "QUARTER": 3, "YEAR": 12}[unit])
