"""MySQL's functions of dates and times, as SQLite calls them back, made of those in `dates`.
ValueError means NULL. Knows nothing of the tree.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

from rro.intercode_sql.embedded import dates
from rro.intercode_sql.embedded.dates import clock, duration, moment


def _time_text(text: str, form: str) -> str:
    of_day = duration(text)
    hours = of_day.days * 24 + of_day.seconds // 3600
    at = (datetime(1, 1, 1) + (of_day % timedelta(1))).isoformat(" ")
    return dates.formatted(at, form.replace("%H", f"{hours:02}").replace("%k", str(hours)))


def _timediff(one: str, other: str) -> str:
    days = ["-" in text[1:] for text in (one, other)]
    if days[0] != days[1] or dates.has_clock(one) != dates.has_clock(other):
        raise ValueError(other)
    return clock(moment(one) - moment(other) if days[0] else duration(one) - duration(other))


def _timestamp(text: str, time: str = "0") -> str:
    return (moment(text) + duration(time)).isoformat(" ")


def _add_time(text: str, time: str, sign: int) -> str:
    if "-" in text[1:]:
        return (moment(text) + sign * duration(time)).isoformat(" ")
    return clock(duration(text) + sign * duration(time))


def _unix(text: str = f"{dates.TODAY} {dates.NOON}") -> int:
    return int((moment(text) - datetime(1970, 1, 1)).total_seconds())


def _from_unix(value: float, form: str | None = None) -> str:
    if value < 0:
        raise ValueError(value)
    text = (datetime(1970, 1, 1) + timedelta(seconds=value)).isoformat(" ")
    return text if form is None else dates.formatted(text, form)


def _convert_tz(text: str, one: str, other: str) -> str:
    zones = [0 if zone == "SYSTEM" else _offset(zone) for zone in (one, other)]
    return (moment(text) + timedelta(minutes=zones[1] - zones[0])).isoformat(" ")


def _offset(zone: str) -> int:
    match = re.fullmatch(r"([+-])(\d\d?):(\d\d)", zone)
    if match is None:
        raise ValueError(zone)
    return int(match[1] + "1") * (int(match[2]) * 60 + int(match[3]))


def _period(period: int) -> int:
    year, month = divmod(period, 100)
    if year < 100:
        year += 2000 if year < 70 else 1900
    return year * 12 + month - 1


def _period_add(period: int, months: int) -> int:
    year, month = divmod(_period(period) + months, 12)
    return year * 100 + month + 1


def _makedate(year: int, day: int) -> str:
    if day < 1:
        raise ValueError(day)
    year += 0 if year > 99 else 2000 if year < 70 else 1900
    return str(date(year, 1, 1) + timedelta(day - 1))


def _maketime(hour: int, minute: int, second: float) -> str:
    if not (0 <= minute < 60 and 0 <= second < 60):
        raise ValueError(minute)
    return clock(
        timedelta(hours=abs(hour), minutes=minute, seconds=second) * (-1 if hour < 0 else 1)
    )


def _week(text: str, mode: int = 0) -> int:
    return dates.week(moment(text).date(), mode)[1]


def _yearweek(text: str, mode: int = 0) -> int:
    year, number = dates.week(moment(text).date(), mode | 2)
    return year * 100 + number


def _days(text: str) -> int:
    return moment(text).toordinal() + 365


def _part(unit: str) -> Callable[[str], int]:
    return lambda text: dates.extracted(text, unit)


def stamp(text: str) -> float:
    """A date or time as the number of its digits, for arithmetic."""
    digits = re.sub(r"[^\d.-]|(?<!^)-", "", text)
    return float(digits) if "." in digits else int(digits)


def cast_moment(text: str, kind: str) -> str:
    """A text as a date, a datetime without fraction, or a time."""
    if kind == "time":
        return clock(duration(text)).partition(".")[0]
    at = moment(text)
    if kind == "date":
        return str(at.date())
    return (at.replace(microsecond=0) + timedelta(seconds=at.microsecond >= 500_000)).isoformat(" ")


TIMES: dict[str, Callable[..., Any]] = {
    "date": lambda text: str(moment(text).date()),
    "time": lambda text: clock(duration(text)),
    "timestamp": _timestamp,
    **{unit.lower(): _part(unit) for unit in (*dates.UNITS, "QUARTER")},
    "dayofmonth": _part("DAY"),
    "week": _week,
    "yearweek": _yearweek,
    "weekofyear": lambda text: _week(text, 3),
    "weekday": lambda text: moment(text).weekday(),
    "dayofweek": lambda text: (moment(text).weekday() + 1) % 7 + 1,
    "dayofyear": lambda text: moment(text).timetuple().tm_yday,
    "dayname": lambda text: dates.formatted(text, "%W"),
    "monthname": lambda text: dates.formatted(text, "%M"),
    "last_day": lambda text: str(
        (moment(text).replace(day=28) + timedelta(4)).replace(day=1).date() - timedelta(1)
    ),
    "datediff": lambda one, other: moment(one).toordinal() - moment(other).toordinal(),
    "timediff": _timediff,
    "to_days": _days,
    "to_seconds": lambda text: _days(text) * 86400 + int(duration(text).total_seconds()),
    "from_days": lambda number: str(date.fromordinal(number - 365)),
    "makedate": _makedate,
    "maketime": _maketime,
    "sec_to_time": lambda value: clock(timedelta(seconds=value)),
    "time_to_sec": lambda text: int(duration(text).total_seconds()),
    "period_add": _period_add,
    "period_diff": lambda one, other: _period(one) - _period(other),
    "unix_timestamp": _unix,
    "from_unixtime": _from_unix,
    "date_format": dates.formatted,
    "time_format": _time_text,
    "str_to_date": dates.parsed,
    "shift": dates.shifted,
    "stamp": stamp,
    "cast_moment": cast_moment,
    "extract": dates.extracted,
    "addtime": lambda text, time: _add_time(text, time, 1),
    "subtime": lambda text, time: _add_time(text, time, -1),
    "timestampdiff": dates.difference,
    "convert_tz": _convert_tz,
    **dict.fromkeys(("curdate", "current_date", "utc_date"), lambda: dates.TODAY),
    **dict.fromkeys(
        ("now", "current_timestamp", "localtime", "localtimestamp", "utc_timestamp"),
        lambda *digits: f"{dates.TODAY} {dates.NOON}",
    ),
    **dict.fromkeys(("curtime", "current_time", "utc_time"), lambda *digits: dates.NOON),
}
