"""MySQL's functions and conversions of numbers, as SQLite calls them back: exact decimals,
rounding, bits. ValueError means NULL. Knows nothing of the tree.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from typing import Any

from rro.intercode_sql.engine import RANDOM, SqlError


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
    return value if isinstance(value, int) else _limited(value, ROUND_HALF_UP)


def cast_real(value: float) -> int:
    """A double as an integer: halves to even."""
    return _limited(value, ROUND_HALF_EVEN)


def _limited(value: float, rounding: str) -> int:
    """A number as an integer of 64 bits: beyond them, the nearest."""
    if abs(value) >= 2**63:
        return -(2**63) if value < 0 else 2**63 - 1
    return int(fixed(value, 0, rounding))


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


def signed(value: int) -> int:
    """64 bits as SQLite holds them."""
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


def bits(sign: str, one: int, other: int) -> int:
    """A bit operation on 64 bits without sign."""
    one, other = one & (2**64 - 1), other & (2**64 - 1)
    shift = min(other, 64)
    results = {"&": one & other, "|": one | other, "^": one ^ other, "~": ~one}
    return signed(
        results[sign] if sign in results else one << shift if sign == "<" else one >> shift
    )


def _log(one: float, other: float | None = None) -> float:
    return math.log(one) if other is None else math.log(other) / math.log(one)


def cast_text(text: str) -> int:
    """A text as an integer: the digits that it begins with."""
    match = re.match(r"\s*[+-]?\d+", text)
    return max(-(2**63), min(2**63 - 1, int(match[0]))) if match else 0


def cast_decimal(value: Any, digits: int, scale: int) -> float:
    """A number as DECIMAL(digits, scale), limited to what that can hold."""
    most = Decimal(10) ** (digits - scale) - Decimal(1).scaleb(-scale)
    number = max(-most, min(most, fixed(value, scale)))
    return float(number)


def exactly(sign: str, one: float, other: float, scale: int) -> bool:
    """A comparison of two numbers with fixed digits: they are equal if they differ by less than 5
    in the digit after the last."""
    difference = one - other
    equal = abs(difference) < 5 / 10 ** (scale + 1)
    least = {"=": equal, "<": difference < 0 and not equal, ">": difference > 0 and not equal}
    return any(least[part] for part in sign)


def _in_range(name: str, routine: Callable[..., float]) -> Callable[..., float]:
    """A function that has no value for some numbers. Raises SqlError for those, as MySQL does."""

    def called(*values: float) -> float:
        try:
            return routine(*values)
        except (ArithmeticError, ValueError):
            shown = ",".join(map(str, values))
            raise SqlError(f"DOUBLE value is out of range in '{name}({shown})'") from None

    return called


NUMBERS: dict[str, Callable[..., Any]] = {
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
            "log10",
            "sqrt",
        )
    },
    "ln": math.log,
    "log2": lambda value: math.log(value) / math.log(2),
    "round_real": _round_real,
    "log": _log,
    "pi": lambda: math.pi,
    "cot": _in_range("cot", lambda value: 1 / math.tan(value)),
    "exp": _in_range("exp", math.exp),
    "pow": _in_range("pow", math.pow),
    "power": _in_range("pow", math.pow),
    "sign": lambda value: (value > 0) - (value < 0),
    "ceil": math.ceil,
    "ceiling": math.ceil,
    "floor": math.floor,
    "round": _rounded,
    "truncate": lambda value, places: _rounded(value, places, ROUND_DOWN),
    "rand": lambda: RANDOM,
    "bit_count": lambda number: (number & (2**64 - 1)).bit_count(),
    "mod": mod,
    "fmod": _fmod,
    "div": div,
    "bits": bits,
    "xor": lambda one, other: bool(one) != bool(other),
    "exactly": exactly,
    "fixed": lambda value, scale: float(fixed(value, scale)),
    "fixed_text": fixed_text,
    "real_text": real_text,
    "whole": whole,
    "cast_real": cast_real,
    "cast_text": cast_text,
    "cast_decimal": cast_decimal,
}
