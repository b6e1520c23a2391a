"""Operations on translated values, with MySQL's types: arithmetic, bits, comparisons, casts. Knows
nothing of the tree.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rro.intercode_sql.embedded.store import (
    DATE,
    DATETIME,
    INT,
    TEXT,
    UNSIGNED,
    Type,
    common_type,
)
from rro.intercode_sql.embedded.values import (
    DAY_UNITS,
    FORMS,
    Value,
    alternatives,
    as_number,
    as_text,
    as_whole,
    call,
    cast,
    comparable,
    joined,
    quoted,
    quotient,
    unsupported,
)
from rro.intercode_sql.engine import SqlError

BITS = {"&": "&", "|": "|", "^": "^", "~": "~", "<<": "<", ">>": ">"}


def moved(date: Value, amount: Value, unit: str, sign: int) -> Value:
    """A date plus `sign` times an amount of a unit."""
    literal = amount.type == TEXT and re.fullmatch(r"-?\d*\.?\d+", amount.text or "")
    kind = date.type if date.type in (DATE, DATETIME) else TEXT
    if kind == DATE and unit not in DAY_UNITS:
        kind = DATETIME
    shown = amount.text if literal else amount.sql
    sql = call("my_shift", as_text(date), str(shown), quoted(unit), sign)
    return Value(sql, kind, (date, amount))


def as_moment(value: Value, kind: Type) -> Value:
    """A value as a date, a datetime or a time."""
    return Value(call("my_cast_moment", FORMS["h"](value), quoted(kind.kind)), kind, (value,))


def as_decimal(value: Value, digits: int = 10, scale: int = 0) -> Value:
    """A value as DECIMAL(digits, scale). Raises SqlError beyond MySQL's digits."""
    if digits > 65 or scale > min(30, digits):
        raise SqlError(f"Too-big precision {digits} specified. Maximum is 65.")
    sql = call("my_cast_decimal", as_number(value).sql, digits or 10, scale)
    return Value(sql, Type("decimal", scale), (value,))


def bitwise(sign: str, one: Value, other: Value) -> Value:
    """An operation on 64 bits."""
    operands = quoted(BITS[sign]), as_whole(one), as_whole(other)
    return Value(call("my_bits", *operands), UNSIGNED, (one, other))


def calculated(sign: str, one: Value, other: Value) -> Value:
    """Arithmetic."""
    if "row" in (one.kind, other.kind):
        raise SqlError("Operand should contain 1 column(s)")
    left, right = as_number(one), as_number(other)
    kind = common_type((left.type, right.type))
    if sign in ("DIV", "MOD", "%"):
        name = "my_div" if sign == "DIV" else "my_mod" if kind.exact else "my_fmod"
        result = INT if sign == "DIV" else kind
        return Value(call(name, left.sql, right.sql), result, (one, other))
    if sign == "/":
        divided = f"({cast(left.sql, 'REAL')} / {right.sql})"
        return Value(divided, quotient(left.type if kind.exact else kind), (one, other))
    both = joined(sign, left, right, kind)
    if kind.kind == "decimal":
        scales = [value.type.scale or 0 for value in (left, right)]
        scale = min(30, sum(scales) if sign == "*" else max(scales))
        return Value(call("my_fixed", both.sql, scale), Type("decimal", scale), (one, other))
    return both


def negated(value: Value) -> Value:
    """NOT."""
    return Value(f"(NOT {value.sql})", INT, (value,))


def among(value: Value, items: Sequence[Value]) -> Value:
    """value IN (items). Each item is compared by its own type."""
    if value.kind == "row":
        tests = [compared("=", value, item).sql for item in items]
        return Value(alternatives(tests), INT, (value, *items))
    pairs = [comparable(value, item) for item in items]
    if all(left == pairs[0][0] for left, _ in pairs):
        sql = f"({pairs[0][0]} IN ({', '.join([item for _, item in pairs])}))"
    else:
        sql = alternatives(f"{left} IN ({item})" for left, item in pairs)
    return Value(sql, INT, (value, *items))


def compared(sign: str, one: Value, other: Value) -> Value:
    """A comparison, also of rows. Raises SqlError for rows of other sizes."""
    if "row" in (one.kind, other.kind):
        return _compared_rows(sign, one, other)
    left, right = comparable(one, other)
    kinds, scales = (one.type, other.type), (one.type.scale, other.type.scale)
    numbers = all(kind.exact or kind.kind in ("float", "double") for kind in kinds)
    fixed = None not in scales and not all(kind.exact for kind in kinds)
    shown = "IS" if sign == "<=>" else sign
    if numbers and fixed and one.type != other.type:
        scale = max(int(scale or 0) for scale in scales)
        equal = call("my_exactly", quoted("=" if shown == "IS" else sign), left, right, scale)
        if shown == "IS":
            equal = call("coalesce", equal, f"{left} IS {right}")
        return Value(equal, INT, (one, other))
    return Value(f"({left} {shown} {right})", INT, (one, other), "=" if sign == "=" else "")


def _compared_rows(sign: str, one: Value, other: Value) -> Value:
    if one.kind != other.kind or len(one.parts) != len(other.parts):
        raise SqlError(f"Operand should contain {max(len(one.parts), 1)} column(s)")
    if sign not in ("=", "<>", "<=>"):
        raise unsupported(f"a comparison of rows by {sign}")
    equal = "<=>" if sign == "<=>" else "="
    tests = [compared(equal, *pair) for pair in zip(one.parts, other.parts, strict=True)]
    found = Value(alternatives([test.sql for test in tests], "AND"), INT, tests, "AND")
    return negated(found) if sign == "<>" else found
