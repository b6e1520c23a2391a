"""Translated values in the forms that an operation, a comparison or a function needs: as a
number, a text or a key. Knows nothing of scopes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from sqlglot import exp
from sqlglot.dialects.sqlite import SQLite
from sqlglot.errors import ErrorLevel, UnsupportedError

from rro.intercode_sql.embedded import functions
from rro.intercode_sql.embedded.names import Value
from rro.intercode_sql.embedded.store import (
    BYTES,
    COLLATED,
    DATE,
    DATETIME,
    DOUBLE,
    INT,
    NULL,
    TEXT,
    TIME,
    UNSIGNED,
    Type,
    common_type,
    number,
)
from rro.intercode_sql.engine import SqlError

RESULTS = {"int": INT, "double": DOUBLE, "text": TEXT, "bytes": BYTES, "date": DATE, "time": TIME}
RESULTS |= {"datetime": DATETIME, "pi": Type("double", 6)}
_generate = SQLite().generator(unsupported_level=ErrorLevel.RAISE).generate
# Units of intervals without a time of day.
DAY_UNITS = {"DAY", "WEEK", "MONTH", "QUARTER", "YEAR", "YEAR_MONTH"}
TEMPORAL = (DATE, DATETIME, TIME)


def call(name: str, *operands: Any) -> Any:
    """A call of a function of SQLite. Operands are nodes, texts or integers."""
    nodes = [exp.convert(part) if isinstance(part, str | int) else part.copy() for part in operands]
    return exp.Anonymous(this=name, expressions=nodes)


def key(value: Value) -> Any:
    """What a value is compared, grouped and sorted by. For a stored text, the column beside it."""
    if value.type != TEXT:
        return value.node
    if isinstance(value.node, exp.Literal):
        return exp.Literal.string(functions.key(value.node.this))
    if value.node.args.get("stored"):
        return exp.column(f"{value.node.name}#", value.node.table, quoted=True)
    return call("ci", value.node)


def as_number(value: Value) -> Value:
    """The value in arithmetic. For a text, the number that it begins with."""
    if value.type in (TEXT, BYTES, COLLATED):
        return Value(exp.cast(value.node, "real"), DOUBLE)
    if value.type in TEMPORAL:
        return Value(call("my_stamp", value.node), INT)
    return Value(value.node, INT if value.type in (NULL, UNSIGNED) else value.type)


def as_text(value: Value) -> Any:
    """The node of the value as text."""
    kind, scale = value.type
    if kind in ("decimal", "float", "double"):
        if scale is None:
            return call("my_real_text", value.node, 6 if kind == "float" else 17)
        return call("my_fixed_text", value.node, scale)
    return exp.cast(value.node, "text") if value.type in (INT, UNSIGNED, BYTES) else value.node


def as_whole(value: Value) -> Any:
    """The node of the value as an integer: numbers are rounded, texts cut."""
    if value.type in (INT, UNSIGNED, NULL):
        return value.node
    if value.type in (TEXT, BYTES):
        return call("my_cast_text", value.node)
    one = as_number(value)
    return call("my_whole" if one.type.exact else "my_cast_real", one.node)


def unified(values: Iterable[Value]) -> tuple[list[Any], Type]:
    """The nodes of values that are alternatives, such as the results of CASE, and their type."""
    values = list(values)
    kind = common_type(value.type for value in values)
    return [as_text(value) if kind == TEXT else value.node for value in values], kind


def comparable(one: Value, other: Value) -> list[Any]:
    """Two values in forms that SQLite compares as MySQL does: texts by collation, dates as dates,
    everything else as numbers."""
    kinds = {one.type, other.type} - {NULL}
    if kinds <= {TEXT}:
        return [key(one), key(other)]
    if kinds <= {TEXT, BYTES, COLLATED} and kinds & {BYTES, COLLATED}:
        return [exp.cast(value.node, "blob") for value in (one, other)]
    if not kinds <= {TEXT, *TEMPORAL}:
        return [as_number(one).node, as_number(other).node]
    if TIME in kinds:
        return [call("my_time", value.node) for value in (one, other)]
    days = DATETIME not in kinds and all(
        len(value.node.name) <= 10 for value in (one, other) if value.node.is_string
    )
    kind, name = (DATE, "my_date") if days else (DATETIME, "my_timestamp")
    return [
        value.node if value.type in (kind, NULL) else call(name, value.node)
        for value in (one, other)
    ]


def aggregate(name: str, *operands: Any) -> Any:
    """A call of an aggregate of SQLite."""
    return exp.AnonymousAggFunc(this=name, expressions=call(name, *operands).expressions)


FORMS: dict[str, Callable[[Value], Any]] = {
    "t": as_text,
    "d": as_text,
    "h": lambda value: call("my_timestamp", value.node) if value.type == DATE else as_text(value),
    "n": lambda value: as_number(value).node,
    "i": as_whole,
    "v": lambda value: value.node,
}


def common_forms(values: Iterable[Value]) -> Iterator[Any]:
    """The nodes of values that a function compares with each other."""
    values = list(values)
    texts = all(value.type in (TEXT, BYTES, COLLATED, NULL, *TEMPORAL) for value in values)
    return iter([value.node if texts else as_number(value).node for value in values])


def result_type(name: str, values: list[Value]) -> Type:
    """The type of a function's result."""
    if name in RESULTS:
        return RESULTS[name]
    if name == "common":
        kinds = [value.type for value in values]
        kind = common_type(kinds)
        numbers = any(one.exact or one.kind in ("float", "double") for one in kinds)
        return DOUBLE if kind == TEXT and numbers else kind
    kind = as_number(values[0]).type
    if name == "first":
        return kind
    if name == "floor":
        wide = values[0].node.find(exp.Sum) is not None
        return DOUBLE if not kind.exact else Type("decimal", 0) if wide and kind != INT else INT
    places = literal(values[1].node) if len(values) > 1 else 0
    if kind == INT:
        return INT
    if places is None:
        return kind
    return Type("decimal" if kind.exact else "double", max(0, min(30, places)))


def literal(node: Any) -> int | None:
    """The value of a literal integer, or None."""
    sign, inner = (-1, node.this.unnest()) if isinstance(node, exp.Neg) else (1, node)
    return sign * int(inner.name) if inner.is_int else None


def quotient(kind: Type) -> Type:
    """The type of a division or an average: with four more digits after the point."""
    return number(kind.exact, None if kind.scale is None else kind.scale + 4)


def sql_of(node: Any) -> str:
    """The node in SQLite's SQL. Raises SqlError for what SQLGlot cannot express in it."""
    try:
        return _generate(node, copy=False)
    except UnsupportedError as error:
        raise SqlError(f"This version of MySQL doesn't yet support '{error}'") from None


class Query(NamedTuple):
    """A translated query. Its columns are named c1, c2 ...; if requested, one more, named #,
    numbers the rows."""

    sql: str
    columns: list[Value]


def column_of(name: str, alias: str = "") -> Any:
    """A column, of the table with that alias."""
    table = {"table": exp.Identifier(this=alias)} if alias else {}
    return exp.Column(this=exp.Identifier(this=name), **table)


def alias_of(node: Any, name: str) -> Any:
    """A copy of an expression under a name."""
    return exp.Alias(this=node.copy(), alias=exp.Identifier(this=name))
