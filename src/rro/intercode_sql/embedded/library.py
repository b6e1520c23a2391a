"""MySQL's functions: one table of their arguments and results, and what SQLite calls back for each.

A line of the table has a function's name, the forms of its arguments and its result's type. The
forms: t text, n number, i integer, d date as text, h the same with a time of day, v value
unchanged, c value in a form common to all such arguments; those after / may be absent, * repeats
the last. The types `first`, `common`, `floor` and `rounded` depend on the arguments. A function
whose result is `special` is translated by itself, by a method of `Expressions`. A routine raises
ValueError where MySQL's function gives NULL. Knows nothing of the tree.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
import sqlite3
import zlib
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from typing import Any, NamedTuple

from rro.intercode_sql.embedded import dates
from rro.intercode_sql.embedded.dates import clock, duration, moment
from rro.intercode_sql.embedded.functions import folded, key
from rro.intercode_sql.embedded.work import MAX_TEXT, Work
from rro.intercode_sql.engine import RANDOM

_SPEC = """
ABS n first|ACOS n double|ASIN n double|ATAN n/n double|ATAN2 nn double|COS n double|COT n double
SIN n double|TAN n double|DEGREES n double|RADIANS n double|EXP n double|LN n double|LOG n/n double
LOG2 n double|LOG10 n double|PI / pi|POW nn double|POWER nn double|SQRT n double|SIGN n int
CEIL n floor|CEILING n floor|FLOOR n floor|ROUND n/i rounded|TRUNCATE ni rounded|MOD nn special
RAND / double|CRC32 t int|BIT_COUNT i int|CONV tii text|BIN t text|OCT t text|HEX v text
UNHEX t bytes|GREATEST cc* common|LEAST cc* common|INTERVAL nn* int|FORMAT ni/t text
CONCAT t* text|CONCAT_WS tt* text|LEFT ti text|RIGHT ti text|SUBSTRING ti/i text|SUBSTR ti/i text
MID tii text|LOWER t text|LCASE t text|UPPER t text|UCASE t text|LTRIM t text|RTRIM t text
LPAD tit text|RPAD tit text|REPEAT ti text|SPACE i text|REVERSE t text|REPLACE ttt text
INSERT tiit text|LENGTH t int|OCTET_LENGTH t int|BIT_LENGTH t int|CHAR_LENGTH t int
CHARACTER_LENGTH t int|ASCII t int|ORD t int|LOCATE tt/i int|INSTR tt int|SUBSTRING_INDEX tti text
FIELD cc* int|FIND_IN_SET tt int|ELT it* text|MAKE_SET it* text|EXPORT_SET itt/ti text|QUOTE t text
SOUNDEX t text|STRCMP tt int|MD5 t text|SHA t text|SHA1 t text|SHA2 ti text|TO_BASE64 t text
FROM_BASE64 t bytes|REGEXP_LIKE tt int|REGEXP_REPLACE ttt text|REGEXP_INSTR tt int
REGEXP_SUBSTR tt text|COMPRESS t bytes|UNCOMPRESSED_LENGTH t int|INET_ATON t int|INET_NTOA i text
IF vvv special|IFNULL vv special|COALESCE v* special|NULLIF vv special|ISNULL v int
DATE d date|TIME h time|TIMESTAMP d/d datetime|YEAR d int|MONTH d int|DAY d int|DAYOFMONTH d int
HOUR h int|MINUTE h int|SECOND h int|MICROSECOND h int|QUARTER d int|WEEK d/i int|WEEKOFYEAR d int
YEARWEEK d/i int|WEEKDAY d int|DAYOFWEEK d int|DAYOFYEAR d int|DAYNAME d text|MONTHNAME d text
LAST_DAY d date|DATEDIFF dd int|TIMEDIFF dd time|TO_DAYS d int|TO_SECONDS d int|FROM_DAYS i date
MAKEDATE ii date|MAKETIME iii time|SEC_TO_TIME n time|TIME_TO_SEC h int|PERIOD_ADD ii int
PERIOD_DIFF ii int|UNIX_TIMESTAMP /d int|FROM_UNIXTIME n/t special|DATE_FORMAT dt text
TIME_FORMAT ht text|STR_TO_DATE tt special|DATE_ADD dv special|DATE_SUB dv special
ADDDATE dv special|SUBDATE dv special|ADDTIME dh special|SUBTIME dh special
TIMESTAMPADD vid special|TIMESTAMPDIFF vdd special|CONVERT_TZ dtt datetime|GET_FORMAT vt special
CURDATE / date|CURRENT_DATE / date|UTC_DATE / date|NOW /i datetime|CURRENT_TIMESTAMP /i datetime
LOCALTIME /i datetime|LOCALTIMESTAMP /i datetime|UTC_TIMESTAMP /i datetime|CURTIME /i time
CURRENT_TIME /i time|UTC_TIME /i time|DATABASE / special|SCHEMA / special|VERSION / text
CHARSET t text|COLLATION t text|COERCIBILITY t int|GROUPING v special|ANY_VALUE v first
"""
AGGREGATES = {
    **{"STD": "stddev_pop", "STDDEV": "stddev_pop", "STDDEV_POP": "stddev_pop"},
    **{"STDDEV_SAMP": "stddev_samp", "VARIANCE": "var_pop", "VAR_POP": "var_pop"},
    **{"VAR_SAMP": "var_samp", "BIT_AND": "bit_and", "BIT_OR": "bit_or", "BIT_XOR": "bit_xor"},
}
WINDOWS = {
    **{"ROW_NUMBER": (0, 0), "RANK": (0, 0), "DENSE_RANK": (0, 0), "PERCENT_RANK": (0, 0)},
    **{"CUME_DIST": (0, 0), "NTILE": (1, 1), "LAG": (1, 3), "LEAD": (1, 3), "NTH_VALUE": (2, 2)},
    **{"FIRST_VALUE": (1, 1), "LAST_VALUE": (1, 1)},
}


class Signature(NamedTuple):
    """The forms of a function's arguments, how many there may be, and its result's type."""

    forms: str
    least: int
    most: int
    result: str


def _signature(forms: str, result: str) -> Signature:
    needed, _, optional = forms.rstrip("*").partition("/")
    many = forms.endswith("*")
    most = 1000 if many else len(needed + optional)
    return Signature(needed + optional, len(needed), most, result)


SIGNATURES = {
    name: _signature(forms, result)
    for name, forms, result in (line.split() for line in re.split(r"[|\n]", _SPEC.strip()))
}


def exact(value: Any) -> Decimal:
    """A number of SQLite as the decimal that it displays."""
    return Decimal(repr(value))


def fixed(value: float, scale: int, rounding: str = ROUND_HALF_UP) -> Decimal:
    """The number with `scale` digits after the point, halves rounded away from zero."""
    digits = exact(value)
    if digits.adjusted() + scale > 26:
        return digits + 0
    return digits.quantize(Decimal(1).scaleb(-scale), rounding) + 0


def fixed_text(value: float, scale: int) -> str:
    """A decimal, or a float with fixed digits, as text."""
    return format(fixed(value, max(0, scale)), "f")


def real_text(value: float, digits: int = 17) -> str:
    """A double as text."""
    number = exact(value) if digits > 15 else Decimal(f"{value:.{digits}g}")
    if not number:
        return "0"
    if -16 < number.adjusted() < 15:
        text = format(number, "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa, _, power = f"{number.normalize():e}".partition("e")
    return f"{mantissa}e{int(power)}"


def _rounded(value: float, places: int = 0, rounding: str = ROUND_HALF_UP) -> float:
    places = max(-30, min(30, places))
    if isinstance(value, float) and places < 17 and value.is_integer() and places >= 0:
        return value
    number = exact(value)
    if number.adjusted() + places > 27:
        return value
    number = number.quantize(Decimal(1).scaleb(-places), rounding) + 0
    return int(number) if isinstance(value, int) else float(number)


def _round_real(value: float, places: int = 0) -> float:
    """A double rounded as MySQL does: halves to even."""
    power = 10.0 ** min(abs(places), 300)
    if not math.isfinite(value * power):
        return value
    return round(value * power) / power if places >= 0 else round(value / power) * power


def whole(value: float) -> int:
    """A number as an integer."""
    return value if isinstance(value, int) else int(fixed(value, 0, ROUND_HALF_UP))


def cast_real(value: float) -> int:
    """A double as an integer: halves to even."""
    return int(exact(value).quantize(Decimal(1), ROUND_HALF_EVEN))


def mod(one: float, other: float) -> float:
    """The remainder, with the sign of `one`."""
    if isinstance(one, int) and isinstance(other, int):
        return int(math.fmod(one, other)) if abs(one) < 2**53 else abs(one) % abs(other)
    return float(exact(one) % exact(other))


def _fmod(one: float, other: float) -> float:
    return math.fmod(one, other) + 0.0


def div(one: float, other: float) -> int:
    """The quotient without its fraction."""
    return int((exact(one) / exact(other)).to_integral_value(ROUND_DOWN))


def _signed(value: int) -> int:
    """64 bits as SQLite holds them."""
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


def bits(sign: str, one: int, other: int) -> int:
    """A bit operation on 64 bits without sign."""
    one, other = one & (2**64 - 1), other & (2**64 - 1)
    shift = min(other, 64)
    results = {"&": one & other, "|": one | other, "^": one ^ other, "~": ~one}
    return _signed(
        results[sign] if sign in results else one << shift if sign == "<" else one >> shift
    )


def _log(one: float, other: float | None = None) -> float:
    return math.log(one) if other is None else math.log(other) / math.log(one)


def _limited(size: int) -> None:
    if size > MAX_TEXT:
        raise ValueError(size)


def _repeat(text: str, count: int) -> str:
    _limited(len(text) * max(0, count))
    return text * max(0, count)


def _padded(left: bool, text: str, size: int, fill: str) -> str:
    _limited(size)
    if size < 0 or (not fill and size > len(text)):
        raise ValueError(size)
    missing = (fill * (size // max(1, len(fill)) + 1))[: max(0, size - len(text))]
    return missing + text[:size] if left else text[:size] + missing


def _replace(text: str, old: str, new: str) -> str:
    if not old:
        return text
    _limited(len(text) + text.count(old) * max(0, len(new) - len(old)))
    return text.replace(old, new)


def _insert(text: str, start: int, size: int, new: str) -> str:
    if not 1 <= start <= len(text):
        return text
    size = size if 0 <= size <= len(text) else len(text)
    return text[: start - 1] + new + text[start - 1 + size :]


def _substring(text: str, start: int, size: int | None = None) -> str:
    start = start - 1 if start > 0 else len(text) + start if start else -1
    if start < 0 or (size is not None and size <= 0):
        return ""
    return text[start:] if size is None else text[start : start + size]


def _trimmed(text: str, piece: str = " ", side: str = "BOTH") -> str:
    if not piece:
        return text
    start, end, size = 0, len(text), len(piece)
    while side != "TRAILING" and text.startswith(piece, start, end):
        start += size
    while side != "LEADING" and end - size >= start and text.endswith(piece, start, end):
        end -= size
    return text[start:end]


def _substring_index(text: str, piece: str, count: int) -> str:
    if not piece or not count:
        return ""
    parts = text.split(piece)
    return piece.join(parts[:count] if count > 0 else parts[count:])


def _locate(piece: str, text: str, start: int = 1) -> int:
    """The place of a piece. Unlike with =, a letter with an accent is not one without."""
    if not 1 <= start <= len(text) + 1:
        return 0
    folds, size, place = folded(text), len(piece.encode()), start - 1
    while (place := folds.find(folded(piece), place)) >= 0:
        if len(text[place : place + len(piece)].encode()) == size:
            return place + 1
        place += 1
    return 0


def _key(value: Any) -> Any:
    return key(value) if isinstance(value, str) else value


def same(one: Any, other: Any) -> bool:
    """Whether two values in a common form are equal: texts by collation."""
    return bool(_key(one) == _key(other))


def _extreme(choose: Callable[..., Any], *values: Any) -> Any:
    return choose(values, key=_key)


def _field(value: Any, *others: Any) -> int:
    if value is None:
        return 0
    return next(
        (n for n, other in enumerate(others, 1) if other is not None and same(value, other)), 0
    )


def _interval(value: Any, *bounds: Any) -> int:
    if value is None:
        return -1
    return next(
        (n for n, bound in enumerate(bounds) if bound is not None and value < bound), len(bounds)
    )


def _find_in_set(piece: str, items: str) -> int:
    keys = [_key(item) for item in items.split(",")] if items else []
    return keys.index(_key(piece)) + 1 if _key(piece) in keys and "," not in piece else 0


def _concat_ws(joint: Any, *texts: Any) -> Any:
    return None if joint is None else str(joint).join(text for text in texts if text is not None)


def _elt(number: Any, *texts: Any) -> Any:
    return texts[number - 1] if number is not None and 1 <= number <= len(texts) else None


def _make_set(number: Any, *texts: Any) -> Any:
    if number is None:
        return None
    return ",".join(text for n, text in enumerate(texts) if number >> n & 1 and text is not None)


def _export_set(number: int, on: str, off: str, joint: str = ",", count: int = 64) -> str:
    return joint.join(on if number >> n & 1 else off for n in range(max(0, min(count, 64))))


def _soundex(text: str) -> str:
    codes = {
        letter: code
        for code, letters in enumerate(("AEIOUYHW", "BFPV", "CGJKQSXZ", "DT", "L", "MN", "R"))
        for letter in letters
    }
    letters = [letter for letter in text.upper() if letter.isalpha()]
    if not letters:
        return ""
    found, last = letters[0], codes.get(letters[0], 0)
    for letter in letters[1:]:
        code = codes.get(letter, 0)
        if letter not in "AEIOUYHW" and code != last:
            found += str(code)
        if code:
            last = code
    return found.ljust(4, "0")


def _conv(text: str, base: int, to: int) -> str:
    if not (2 <= abs(base) <= 36 and 2 <= abs(to) <= 36):
        raise ValueError(base)
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    match = re.match(rf"\s*(-?)([{digits[: abs(base)]}]+)", text.upper())
    number = int(match[1] + match[2], abs(base)) if match else 0
    sign = "-" if number < 0 and to < 0 else ""
    number, result = abs(number) if to < 0 else number & (2**64 - 1), ""
    while number:
        number, digit = divmod(number, abs(to))
        result = digits[digit] + result
    return sign + (result or "0")


def _hex(value: Any) -> str:
    if isinstance(value, int | float):
        return f"{whole(value) & (2**64 - 1):X}"
    return (value if isinstance(value, bytes) else value.encode()).hex().upper()


def _format(value: float, places: int, locale: str = "en_US") -> str:
    text = f"{fixed(value, max(0, min(places, 30))):,f}"
    return text.translate(str.maketrans(",.", ".,")) if locale.startswith("de") else text


def _quote(text: str) -> str:
    return "'" + re.sub(r"([\\'])", r"\\\1", text) + "'"


def _sha2(text: str, size: int) -> str:
    return hashlib.new(f"sha{size or 256}", text.encode()).hexdigest()


def _inet_aton(text: str) -> int:
    parts = [int(part) for part in text.split(".")]
    if len(parts) != 4 or max(parts) > 255:
        raise ValueError(text)
    return sum(part << 8 * (3 - n) for n, part in enumerate(parts))


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


def _last_day(text: str) -> str:
    return dates.shifted(f"{moment(text):%Y-%m-01}", "1 -1", "MONTH")[:10]


_DAYS = date(1, 1, 1).toordinal() + 365


def _days(text: str) -> int:
    return moment(text).toordinal() + 365


def _part(unit: str) -> Callable[[str], int]:
    return lambda text: dates.extracted(text, unit)


def stamp(text: str) -> float:
    """A date or time as the number of its digits, for arithmetic."""
    digits = re.sub(r"[^\d.-]|(?<!^)-", "", text)
    return float(digits) if "." in digits else int(digits)


def char(*codes: Any) -> bytes:
    """CHAR."""
    numbers = [code & 0xFFFFFFFF for code in codes if code is not None]
    return b"".join(code.to_bytes(max(1, (code.bit_length() + 7) // 8), "big") for code in numbers)


def cast_text(text: str) -> int:
    """A text as an integer: the digits that it begins with."""
    match = re.match(r"\s*[+-]?\d+", text)
    return max(-(2**63), min(2**63 - 1, int(match[0]))) if match else 0


def cast_decimal(value: Any, digits: int, scale: int) -> float:
    """A number as DECIMAL(digits, scale), limited to what that can hold."""
    most = Decimal(10) ** (digits - scale) - Decimal(1).scaleb(-scale)
    number = max(-most, min(most, fixed(value, scale)))
    return float(number)


def cast_moment(text: str, kind: str) -> str:
    """A text as a date, a datetime without fraction, or a time."""
    if kind == "time":
        return clock(duration(text)).partition(".")[0]
    at = moment(text)
    if kind == "date":
        return str(at.date())
    return (at.replace(microsecond=0) + timedelta(seconds=at.microsecond >= 500_000)).isoformat(" ")


def exactly(sign: str, one: float, other: float, scale: int) -> bool:
    """A comparison of two numbers with fixed digits: they are equal if they differ by less than 5
    in the digit after the last."""
    difference = one - other
    equal = abs(difference) < 5 / 10 ** (scale + 1)
    least = {"=": equal, "<": difference < 0 and not equal, ">": difference > 0 and not equal}
    return any(least[part] for part in sign)


_ROUND_DOWN: dict[str, Any] = {"rounding": ROUND_DOWN}
_TEXT: dict[str, Callable[..., Any]] = {
    "concat": lambda *texts: "".join(texts),
    "concat_ws": _concat_ws,
    "left": lambda text, size: text[: max(0, size)],
    "right": lambda text, size: text[max(0, len(text) - size) :] if size > 0 else "",
    "substring": _substring,
    "substr": _substring,
    "mid": _substring,
    "lower": str.lower,
    "lcase": str.lower,
    "upper": lambda text: "".join(c.upper() if len(c.upper()) == 1 else c for c in text),
    "ltrim": lambda text: text.lstrip(" "),
    "rtrim": lambda text: text.rstrip(" "),
    "trim": _trimmed,
    "lpad": lambda *values: _padded(True, *values),
    "rpad": lambda *values: _padded(False, *values),
    "repeat": _repeat,
    "space": lambda size: _repeat(" ", size),
    "reverse": lambda text: text[::-1],
    "replace": _replace,
    "insert": _insert,
    "length": lambda text: len(text.encode()),
    "bit_length": lambda text: 8 * len(text.encode()),
    "char_length": len,
    "ascii": lambda text: text.encode()[0] if text else 0,
    "ord": lambda text: int.from_bytes(text[:1].encode(), "big"),
    "locate": _locate,
    "instr": lambda text, piece: _locate(piece, text),
    "substring_index": _substring_index,
    "field": _field,
    "find_in_set": _find_in_set,
    "elt": _elt,
    "make_set": _make_set,
    "export_set": _export_set,
    "quote": _quote,
    "soundex": _soundex,
    "strcmp": lambda one, other: (_key(one) > _key(other)) - (_key(one) < _key(other)),
    "md5": lambda text: hashlib.md5(text.encode(), usedforsecurity=False).hexdigest(),
    "sha": lambda text: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(),
    "sha2": _sha2,
    "crc32": lambda text: zlib.crc32(text.encode()),
    "to_base64": lambda text: base64.b64encode(text.encode()).decode(),
    "from_base64": lambda text: base64.b64decode(text, validate=True),
    "unhex": lambda text: bytes.fromhex(text.zfill(len(text) + len(text) % 2)),
    "hex": _hex,
    "conv": _conv,
    "bin": lambda text: _conv(text, 10, 2),
    "oct": lambda text: _conv(text, 10, 8),
    "format": _format,
    "char": char,
    "inet_aton": _inet_aton,
    "inet_ntoa": lambda number: ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0)),
    "version": lambda: "9.7.0",
    "charset": lambda text: "utf8mb4",
    "collation": lambda text: "utf8mb4_general_ci",
    "coercibility": lambda text: 4,
}
_NUMBER: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "atan": lambda *values: math.atan2(*values) if len(values) > 1 else math.atan(*values),
    "atan2": math.atan2,
    **{
        name: getattr(math, name)
        for name in (
            "acos",
            "asin",
            "cos",
            "sin",
            "tan",
            "degrees",
            "radians",
            "exp",
            "log10",
            "sqrt",
        )
    },
    "ln": math.log,
    "log2": lambda value: math.log(value) / math.log(2),
    "round_real": _round_real,
    "log": _log,
    "pi": lambda: math.pi,
    "cot": lambda value: 1 / math.tan(value),
    "pow": math.pow,
    "power": math.pow,
    "sign": lambda value: (value > 0) - (value < 0),
    "ceil": math.ceil,
    "ceiling": math.ceil,
    "floor": math.floor,
    "round": _rounded,
    "truncate": lambda value, places: _rounded(value, places, ROUND_DOWN),
    "rand": lambda: RANDOM,
    "bit_count": lambda number: (number & (2**64 - 1)).bit_count(),
    "greatest": lambda *values: _extreme(max, *values),
    "least": lambda *values: _extreme(min, *values),
    "interval": _interval,
    "mod": mod,
    "fmod": _fmod,
    "div": div,
    "bits": bits,
    "isnull": lambda value: value is None,
    "xor": lambda one, other: bool(one) != bool(other),
    "same": same,
    "exactly": exactly,
    "fixed": lambda value, scale: float(fixed(value, scale)),
    "fixed_text": fixed_text,
    "real_text": real_text,
    "whole": whole,
    "cast_real": cast_real,
    "cast_text": cast_text,
    "cast_decimal": cast_decimal,
    "cast_moment": cast_moment,
    "stamp": stamp,
    "any_value": lambda value: value,
    "nullif": lambda value, one, other: (
        None if one is not None and other is not None and same(one, other) else value
    ),
}
_TIME: dict[str, Callable[..., Any]] = {
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
_TEXT |= {"octet_length": _TEXT["length"], "character_length": len, "sha1": _TEXT["sha"]}
ROUTINES = {f"my_{name}": routine for name, routine in (_TEXT | _NUMBER | _TIME).items()}
# Routines that take NULL.
NULLS = {
    f"my_{name}"
    for name in (
        "concat_ws",
        "elt",
        "make_set",
        "field",
        "interval",
        "isnull",
        "char",
        "nullif",
        "any_value",
    )
}


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
            return _signed(result)

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
            rows.sort(key=lambda row, place=place: _sort_key(row[place]), reverse=way == "d")  # type: ignore[misc]
        return self.joint.join(row[0] for row in rows) if rows else None


def _sort_key(value: Any) -> tuple[bool, bool, Any]:
    return value is not None, isinstance(value, str), value or 0 if value is not None else 0


AGGREGATE_CLASSES: dict[str, type[Any]] = {
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
ALLOWED = frozenset({*ROUTINES, *AGGREGATE_CLASSES})


def _cost(*values: Any) -> int:
    """Long texts cost more than by `Work`: some routines go through them in Python, letter by
    letter, or make a pattern of them."""
    units = 0
    for value in values:
        if value.__class__ in (str, bytes) and len(value) > 100:
            units += 8 * (len(value) - 100)
    return units


def register(connection: sqlite3.Connection, work: Work) -> None:
    """Add the functions to a connection. `work` counts what they do."""
    for name, routine in ROUTINES.items():
        function = work.function(routine, _cost, nulls=name in NULLS)
        connection.create_function(name, -1, function, deterministic=True)
    for name, aggregate in AGGREGATE_CLASSES.items():
        connection.create_aggregate(name, -1, work.aggregate(aggregate))
