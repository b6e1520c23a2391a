"""Translated values, as SQLite's SQL, and the forms in which an operation, a comparison or a
function needs them: as a number, a text or a key. Knows nothing of scopes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from rro.intercode_sql.embedded import functions
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
# Units of intervals without a time of day.
DAY_UNITS = {"DAY", "WEEK", "MONTH", "QUARTER", "YEAR", "YEAR_MONTH"}
TEMPORAL = (DATE, DATETIME, TIME)
_TEXTS = (TEXT, BYTES, COLLATED)


class Value(NamedTuple):
    """A translated expression."""

    sql: str
    """SQLite's SQL, which can be part of any other."""
    type: Type
    """Its type in MySQL."""
    parts: Sequence[Value] = ()
    """The values of which it is made; none of a subquery."""
    kind: str = ""
    """What it is: "=", "AND", "OR", "+", "*", "row", "SUM" or "aggregate", where that counts."""
    name: str = ""
    """Its name in the statement, if it is a column."""
    text: str | None = None
    """The text of a constant."""
    table: str = ""
    """Of a column, the alias of its source in SQLite."""
    column: str = ""
    """Of a column, its name in that, in lower case."""
    stored_key: str = ""
    """Of a text, the column with its keys, if there is one."""

    def contains(self, kind: str) -> bool:
        """Whether it is, or is made of, a value of that kind."""
        return self.kind == kind or any(part.contains(kind) for part in self.parts)


class Query(NamedTuple):
    """A translated query. Its columns are named c1, c2 ...; if requested, it has more: one named #,
    which numbers the rows, and for some texts c1, their keys, "c1#"."""

    sql: str
    columns: list[Value]


def column(
    table: str, name: str, value: Value, key: bool = False, shown: str | None = None
) -> Value:
    """A column with the type of `value`, in the source `table`, whose keys are in another if `key`
    is set; its name in the statement is `shown`."""
    of = f"{table}." if table else ""
    keys = f'{of}"{name}#"' if key else ""
    shown = value.name if shown is None else shown
    return Value(f'{of}"{name}"', value.type, (), "", shown, None, table, name.lower(), keys)


def quoted(text: str) -> str:
    """A text as SQLite's SQL. A NUL would end its statement, and lone surrogates are not UTF-8."""
    text = text.replace("\0", "\ufffd").replace("'", "''")
    return f"'{text}'" if text.isascii() else f"'{text.encode('utf-8', 'replace').decode()}'"


def constant(text: str) -> Value:
    """A constant text."""
    return Value(quoted(text), TEXT, text=text)


def call(name: str, *operands: str | int) -> str:
    """A call of a function of SQLite."""
    return f"{name}({', '.join(map(str, operands))})"


def cast(sql: str, kind: str) -> str:
    """CAST."""
    return f"CAST({sql} AS {kind})"


def key(value: Value) -> str:
    """What a value is compared, grouped and sorted by. For a stored text, the column beside it."""
    if value.type != TEXT:
        return value.sql
    if value.text is not None:
        return quoted(functions.key(value.text))
    return value.stored_key or call("ci", value.sql)


def as_number(value: Value) -> Value:
    """The value in arithmetic. For a text, the number that it begins with."""
    if value.type in _TEXTS:
        return Value(cast(value.sql, "REAL"), DOUBLE, (value,), text=value.text)
    if value.type in TEMPORAL:
        return Value(call("my_stamp", value.sql), INT, (value,))
    return value._replace(type=INT) if value.type in (NULL, UNSIGNED) else value


def as_text(value: Value) -> str:
    """The value as text."""
    kind, scale = value.type
    if kind in ("decimal", "float", "double"):
        if scale is None:
            return call("my_real_text", value.sql, 6 if kind == "float" else 17)
        return call("my_fixed_text", value.sql, scale)
    return cast(value.sql, "TEXT") if value.type in (INT, UNSIGNED, BYTES) else value.sql


def as_whole(value: Value) -> str:
    """The value as an integer: numbers are rounded, texts cut."""
    if value.type in (INT, UNSIGNED, NULL):
        return value.sql
    if value.type in (TEXT, BYTES):
        return call("my_cast_text", value.sql)
    one = as_number(value)
    return call("my_whole" if one.type.exact else "my_cast_real", one.sql)


def unified(values: Sequence[Value]) -> tuple[list[str], Type]:
    """Values that are alternatives, such as the results of CASE, in one form, and their type."""
    kind = common_type([value.type for value in values])
    return [as_text(value) if kind == TEXT else value.sql for value in values], kind


def comparable(one: Value, other: Value) -> tuple[str, str]:
    """Two values in forms that SQLite compares as MySQL does: texts by collation, dates as dates,
    everything else as numbers."""
    kinds = {one.type, other.type} - {NULL}
    if kinds <= {TEXT}:
        return key(one), key(other)
    if kinds <= {*_TEXTS}:
        return cast(one.sql, "BLOB"), cast(other.sql, "BLOB")
    if not kinds <= {TEXT, *TEMPORAL}:
        return as_number(one).sql, as_number(other).sql
    if TIME in kinds:
        return call("my_time", one.sql), call("my_time", other.sql)
    days = DATETIME not in kinds and all(len(value.text or "") <= 10 for value in (one, other))
    kind, name = (DATE, "my_date") if days else (DATETIME, "my_timestamp")
    left, right = (
        value.sql if value.type in (kind, NULL) else call(name, value.sql) for value in (one, other)
    )
    return left, right


FORMS: dict[str, Callable[[Value], str]] = {
    "t": as_text,
    "d": as_text,
    "h": lambda value: call("my_timestamp", value.sql) if value.type == DATE else as_text(value),
    "n": lambda value: as_number(value).sql,
    "i": as_whole,
    "v": lambda value: value.sql,
}


def common_forms(values: Sequence[Value]) -> Iterator[str]:
    """The forms of values that a function compares with each other."""
    texts = all(value.type in (*_TEXTS, NULL, *TEMPORAL) for value in values)
    return iter([value.sql if texts else as_number(value).sql for value in values])


def result_type(name: str, values: Sequence[Value]) -> Type:
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
        wide = kind != INT and values[0].contains("SUM")
        return DOUBLE if not kind.exact else Type("decimal", 0) if wide else INT
    places = position(values[1]) if len(values) > 1 else 0
    if kind == INT:
        return INT
    if places is None:
        return kind
    return Type("decimal" if kind.exact else "double", max(0, min(30, places)))


def position(value: Value) -> int | None:
    """The value of a constant integer, or None."""
    return int(value.text[:20]) if value.text and value.type == INT else None


def quotient(kind: Type) -> Type:
    """The type of a division or an average: with four more digits after the point."""
    return number(kind.exact, None if kind.scale is None else kind.scale + 4)


def joined(sign: str, one: Value, other: Value, kind: Type) -> Value:
    """An operation on two values that associates to the left: `a + b + c` in one pair of brackets,
    as deep ones overrun SQLite's parser."""
    group = "+" if sign == "-" else sign
    left = one.sql[1:-1] if one.kind == group else one.sql
    return Value(f"({left} {sign} {other.sql})", kind, (one, other), group)


def alternatives(conditions: Iterable[str], sign: str = "OR") -> str:
    """Conditions of which one, or all, must hold."""
    return f"({f' {sign} '.join(conditions)})"


def unsupported(what: str) -> SqlError:
    """MySQL's error for what it does not support, for what this engine does not."""
    return SqlError(f"This version of MySQL doesn't yet support '{what[:80]}'")
