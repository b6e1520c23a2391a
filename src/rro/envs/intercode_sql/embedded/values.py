"""Types at work: how MySQL converts and compares values, by nodes of SQLite's SQL; and as Python's drivers give them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date, datetime
from decimal import Decimal
from functools import reduce
from typing import Any

from sqlglot import exp

from rro.envs.intercode_sql.embedded import collation
from rro.envs.intercode_sql.embedded.catalogue import DATE, DATETIME, DOUBLE, INT, NULL, TEXT, Type
from rro.envs.intercode_sql.embedded.functions import number_text
from rro.envs.intercode_sql.embedded.names import Value


def call(name: str, *operands: Any) -> Any:
    return exp.Anonymous(this=name, expressions=[operand.copy() for operand in operands])


def key(value: Value) -> Any:
    """What a value is compared, grouped and sorted by: of a stored text, the column beside it."""
    if value.type != TEXT:
        return value.node
    if isinstance(value.node, exp.Literal):
        return exp.Literal.string(collation.key(value.node.this))
    if value.node.args.get("stored"):
        return exp.column(f"{value.node.name}#", value.node.table, quoted=True)
    return call("ci", value.node)


def as_text(value: Value) -> Any:
    """The value as MySQL writes it out."""
    if not value.type.numeric:
        return value.node
    return call("number_text", value.node, exp.Literal.number(-1 if value.type.scale is None else value.type.scale))


def as_number(value: Value) -> Any:
    """The value in arithmetic: of a text, the number it begins with; of a date, its digits."""
    if value.type in (DATE, DATETIME):
        return call("digits", value.node)
    return exp.cast(value.node, "real") if value.type == TEXT else value.node


def numeric(kind: Type) -> Type:
    """The type of what `as_number` gives."""
    return kind if kind.numeric else DOUBLE if kind == TEXT else INT


def number(exact: bool, scale: int | None) -> Type:
    return Type("double", scale) if not exact else Type("decimal", min(scale, 30)) if scale else INT


def widest(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else max(one, other)


def common_type(types: Iterable[Type]) -> Type:
    """Of CASE, COALESCE, UNION: what can hold all of them."""
    return reduce(_common, types, NULL)


def _common(one: Type, other: Type) -> Type:
    if one == other or NULL in (one, other):
        return other if one == NULL else one
    if one.numeric and other.numeric:
        return number(one.exact and other.exact, widest(one.scale, other.scale))
    return DATETIME if {one, other} == {DATE, DATETIME} else TEXT


def converted(value: Value, kind: Type) -> Any:
    """The value among others of a common type."""
    if kind == DATETIME and value.type == DATE:
        return call("timestamp", value.node)
    return as_text(value) if kind == TEXT else value.node


def comparable(one: Value, other: Value) -> list[Any]:
    """Two values in forms that SQLite compares as MySQL would: texts by collation, dates as dates, all else as numbers."""
    kinds = {one.type, other.type} - {NULL}
    if kinds <= {TEXT}:
        return [key(one), key(other)]
    if not kinds <= {TEXT, DATE, DATETIME}:
        return [as_number(one), as_number(other)]
    days = DATETIME not in kinds and all(len(v.node.name) <= 10 for v in (one, other) if v.node.is_string)
    kind, name = (DATE, "date") if days else (DATETIME, "timestamp")
    return [value.node if value.type in (kind, NULL) else call(name, value.node) for value in (one, other)]


def renderer(kind: Type) -> Callable[[Any], Any]:
    """From SQLite's values of a type to those of Python's MySQL drivers."""
    scale = kind.scale
    match kind.kind:
        case "int":
            return int
        case "decimal":
            return lambda value: Decimal(number_text(value, scale or 0))
        case "float" | "double" if scale is not None:
            return lambda value: float(number_text(float(value), scale))
        case "float":
            return lambda value: float(f"{value:.6g}")
        case "double":
            return float
        case "date":
            return date.fromisoformat
        case "datetime":
            return datetime.fromisoformat
    return lambda value: value
