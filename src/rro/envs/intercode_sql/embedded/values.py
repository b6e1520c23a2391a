"""Types at work: how MySQL converts, compares and combines values, written in SQLite's SQL."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from rro.envs.intercode_sql.embedded import collation, dates
from rro.envs.intercode_sql.embedded.names import Expr, made
from rro.envs.intercode_sql.embedded.schema import Kind, Type
from rro.envs.intercode_sql.embedded.syntax import SqlError

INT, TEXT, DOUBLE, NULL = Type(Kind.INT), Type(Kind.TEXT), Type(Kind.DOUBLE), Type(Kind.NULL)
DATE, DATETIME, TIME, BYTES = Type(Kind.DATE), Type(Kind.DATETIME), Type(Kind.TIME), Type(Kind.BYTES)
DIVISION_DIGITS = 4  # that a division or an average adds after the point
MOST_DIGITS = 30


def text_literal(text: str) -> Expr:
    quote = string(text)
    return Expr(quote, TEXT, string(collation.key(text)), literal=text, constant=True)


def string(text: str) -> str:
    """A text in SQLite's quotes. NUL, which SQLite ends a statement at, and lone surrogates cannot be in one."""
    safe = text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    return "'" + safe.replace("'", "''") + "'"


def number_literal(text: str) -> Expr:
    """An integer, a decimal or, with an exponent, a double."""
    if "e" in text.lower():
        return Expr(repr(float(text)) if abs(float(text)) < 1e308 else "9e999", DOUBLE, literal=text, constant=True)
    whole, point, fraction = text.partition(".")
    if point:
        scale = min(len(fraction), MOST_DIGITS)
        return Expr(f"{whole or 0}.{fraction or 0}", Type(Kind.DECIMAL, scale), literal=text, constant=True)
    sql = whole if int(whole) < 2**63 else f"{whole}.0"
    return Expr(sql, INT, literal=text, constant=True)


def as_text(expr: Expr) -> str:
    """The expression as MySQL writes its value out."""
    kind, scale = expr.type.kind, expr.type.scale
    if not expr.type.numeric:
        return expr.sql
    if kind is Kind.INT:
        return f"CAST({expr.sql} AS TEXT)"
    if scale is not None:
        return f"decimal_text({expr.sql}, {scale})"
    return f"{'float' if kind is Kind.FLOAT else 'double'}_text({expr.sql})"


def as_number(expr: Expr) -> str:
    """The expression in arithmetic: of a text, the number it begins with; of a date, its digits."""
    match expr.type.kind:
        case Kind.TEXT | Kind.BYTES:
            return f"CAST({expr.sql} AS REAL)"
        case Kind.DATE:
            return f"CAST(replace({expr.sql}, '-', '') AS INTEGER)"
        case Kind.DATETIME:
            return f"CAST(replace(replace(replace({expr.sql}, '-', ''), ':', ''), ' ', '') AS INTEGER)"
        case Kind.TIME:
            return f"CAST(replace({expr.sql}, ':', '') AS INTEGER)"
    return expr.sql


def number_type(expr: Expr) -> Type:
    """What `as_number` gives."""
    if expr.type.numeric:
        return expr.type
    return INT if expr.type.temporal or expr.type.kind is Kind.NULL else DOUBLE


def truth(expr: Expr) -> str:
    """The expression as a condition."""
    return as_number(expr)


def arithmetic(sign: str, one: Expr, other: Expr) -> Expr:
    """+ - * / DIV and % with MySQL's result types: exact as long as both are, four digits more by division."""
    left, right = as_number(one), as_number(other)
    mine, theirs = number_type(one), number_type(other)
    exact = not {mine.kind, theirs.kind} & {Kind.DOUBLE, Kind.FLOAT}
    digits = _scale(mine), _scale(theirs)
    scale: int | None
    if sign == "/":
        scale = _plus(digits[0] if exact else _widest(digits), DIVISION_DIGITS)
        return made(f"(({left}) * 1.0 / ({right}))", Type(Kind.DECIMAL if exact else Kind.DOUBLE, scale), one, other)
    if sign == "DIV":
        return made(f"CAST(({left}) * 1.0 / ({right}) AS INTEGER)", INT, one, other)
    if sign == "%":
        whole = mine.kind is theirs.kind is Kind.INT
        sql = f"(({left}) % ({right}))" if whole else f"remainder({left}, {right})"
        return made(sql, _number(exact, _widest(digits)), one, other)
    scale = _plus(digits[0], digits[1]) if sign == "*" and exact else _widest(digits)
    return made(f"({left} {sign} {right})", _number(exact, scale), one, other)


def _scale(kind: Type) -> int | None:
    return 0 if kind.kind is Kind.INT else kind.scale


def _widest(digits: tuple[int | None, int | None]) -> int | None:
    return None if digits[0] is None or digits[1] is None else max(digits[0], digits[1])


def _plus(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else min(one + other, MOST_DIGITS)


def _number(exact: bool, scale: int | None) -> Type:
    if not exact:
        return Type(Kind.DOUBLE, scale)
    return Type(Kind.DECIMAL, scale) if scale else INT


def average_type(kind: Type) -> Type:
    """Of AVG over numbers of a type."""
    exact = kind.kind in (Kind.INT, Kind.DECIMAL)
    return Type(Kind.DECIMAL if exact else Kind.DOUBLE, _plus(_scale(kind), DIVISION_DIGITS))


def sum_type(kind: Type) -> Type:
    exact = kind.kind in (Kind.INT, Kind.DECIMAL)
    return Type(Kind.DECIMAL if exact else Kind.DOUBLE, _scale(kind))


def common_type(kinds: Sequence[Type]) -> Type:
    """Of CASE, COALESCE, UNION: what can hold all of them."""
    return reduce(_common, kinds, NULL)


def _common(one: Type, other: Type) -> Type:
    if one.kind is Kind.NULL or other.kind is Kind.NULL:
        return other if one.kind is Kind.NULL else one
    if one.numeric and other.numeric:
        if one.kind is other.kind is Kind.FLOAT:
            return Type(Kind.FLOAT, _widest((one.scale, other.scale)))
        exact = not {one.kind, other.kind} & {Kind.DOUBLE, Kind.FLOAT}
        scale = _widest((_scale(one), _scale(other)))
        return Type(Kind.DECIMAL, scale) if exact and Kind.DECIMAL in (one.kind, other.kind) else _number(exact, scale)
    if one.kind is other.kind:
        return one
    return DATETIME if {one.kind, other.kind} == {Kind.DATE, Kind.DATETIME} else TEXT


def converted(expr: Expr, kind: Type) -> str:
    """An expression among others of a common type."""
    if kind.kind is Kind.TEXT and expr.type.kind is not Kind.TEXT:
        return as_text(expr)
    if kind.kind is Kind.DATETIME and expr.type.kind is Kind.DATE:
        return f"({expr.sql} || ' 00:00:00')"
    return expr.sql


def compared(sign: str, one: Expr, other: Expr) -> Expr:
    """A comparison by MySQL's rules: texts by collation, dates as dates, all else as numbers."""
    left, right = comparable(one, other)
    return made(f"({left} {sign} {right})", INT, one, other)


def comparable(one: Expr, other: Expr) -> tuple[str, str]:
    """Two expressions in forms that SQLite compares as MySQL would."""
    kinds = {one.type.kind, other.type.kind} - {Kind.NULL}
    if kinds <= {Kind.TEXT}:
        return one.by, other.by
    if kinds <= {Kind.TEXT, Kind.BYTES, Kind.NULL}:
        return one.sql, other.sql
    if one.type.temporal or other.type.temporal:
        if any(side.type.numeric and not _is_moment(side) for side in (one, other)):
            return as_number(one), as_number(other)
        both_days = kinds <= {Kind.DATE, Kind.TEXT, Kind.INT} and all(map(_is_day, (one, other)))
        kind = Kind.TIME if kinds <= {Kind.TIME, Kind.TEXT} else Kind.DATE if both_days else Kind.DATETIME
        return _moment(one, kind, other), _moment(other, kind, one)
    return as_number(one), as_number(other)


def _is_moment(number: Expr) -> bool:
    """Whether a number is a constant that reads as a date: 20200131."""
    return number.literal is not None and dates.parse(number.literal) is not None


def _is_day(expr: Expr) -> bool:
    return expr.literal is None or len(expr.literal.strip()) <= 10


def _moment(expr: Expr, kind: Kind, other: Expr) -> str:
    """An expression as a date, datetime or time to compare with `other`. A constant that is none is MySQL's error."""
    if expr.type.kind is kind or expr.type.kind is Kind.NULL:
        return expr.sql
    if expr.type.kind is Kind.DATE and kind is Kind.DATETIME:
        return f"({expr.sql} || ' 00:00:00')"
    convert = {Kind.DATE: dates.to_date, Kind.DATETIME: dates.to_datetime, Kind.TIME: dates.to_time}[kind]
    if expr.literal is None:
        return f"to_{kind}({as_text(expr)})"
    moment = convert(expr.literal)
    if moment is None and kind is not Kind.TIME:
        raise SqlError(f"Incorrect {other.type.kind.upper()} value: '{expr.literal}'")
    return "NULL" if moment is None else string(moment)
