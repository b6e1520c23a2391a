"""SHOW, DESCRIBE and USE, answered from the catalogue. Knows no query's plan, so EXPLAIN of one is
refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rro.intercode_sql.embedded.functions import like
from rro.intercode_sql.embedded.store import TEXT, Catalogue, Table
from rro.intercode_sql.embedded.syntax import Statement
from rro.intercode_sql.engine import TOO_DEEP, Result, SqlError

# Characters of a condition, which is translated anew for each row.
MAX_CONDITION = 1000
_NAME = r"(?:`[^`]+`|[\w$]+)"
_TABLE = rf"(?:(?P<owner>{_NAME})\s*\.\s*)?(?P<table>{_NAME})"
_FROM = rf"(?:\s*\b(?:FROM|IN)\s*(?P<database>{_NAME}))?"
_TEXT = r"'[^']*'|\"[^\"]*\""
_FILTER = rf"(?:\s*\bLIKE\s*(?P<like>{_TEXT})|\s*\bWHERE\b(?P<where>.*))?\s*"
# Only statements of MySQL's grammar are compared.
_FORMS = tuple(
    re.compile(form, re.IGNORECASE | re.DOTALL)
    for form in (
        rf"\s*SHOW\s+(?P<full>FULL\s+)?(?P<what>TABLES){_FROM}{_FILTER}",
        rf"\s*SHOW\s+(?P<what>DATABASES|SCHEMAS){_FILTER}",
        rf"\s*SHOW\s+(?P<full>FULL\s+)?(?P<what>COLUMNS|FIELDS)\s+(?:FROM|IN)\s*{_TABLE}{_FROM}{_FILTER}",
        rf"\s*SHOW\s+(?P<what>INDEX|INDEXES|KEYS)\s+(?:FROM|IN)\s*{_TABLE}{_FROM}{_FILTER}",
        rf"\s*SHOW\s+(?P<what>CREATE)\s+TABLE\s*{_TABLE}\s*",
        rf"\s*(?P<what>DESCRIBE|DESC|EXPLAIN)\s*{_TABLE}(?:\s*(?P<like>{_NAME}|{_TEXT}))?\s*",
        rf"\s*(?P<what>USE)\s*(?P<database>{_NAME})\s*",
    )
)
_DESCRIBE = ("DESCRIBE", "DESC", "EXPLAIN")
_EXPLAIN = re.compile(
    rf"\s*(?:DESCRIBE|DESC|EXPLAIN)\b(?:\s*EXTENDED\b|\s*FORMAT\s*=\s*(?:{_NAME}|{_TEXT}))?",
    re.IGNORECASE,
)
_UNSUPPORTED = "This version of MySQL doesn't yet support '{}'"
_FIELDS = ("Field", "Type", "Null", "Key", "Default", "Extra")
_FULL_FIELDS = (*_FIELDS[:2], "Collation", *_FIELDS[2:], "Privileges", "Comment")
_PRIVILEGES = "select,insert,update,references"
_INDEX = """
    Table Non_unique Key_name Seq_in_index Column_name Collation Cardinality Sub_part Packed Null
    Index_type Comment Index_comment Visible Expression"""
# The rows of a query in a database.
Run = Callable[[str, str], Sequence[tuple[Any, ...]]]


class _Listing(NamedTuple):
    columns: Sequence[str]
    rows: Sequence[tuple[Any, ...]]
    named: int = 0
    """The column that LIKE compares."""


def shown(catalogue: Catalogue, database: str, statement: Statement, run: Run) -> Result | None:
    """The result of a statement about the catalogue, or None for a query, which `run` answers.
    Raises SqlError if a name is unknown, or for what the catalogue does not have."""
    first = statement.words[0]
    if first not in ("SHOW", "USE", *_DESCRIBE):
        return None
    if first in _DESCRIBE and not {"SELECT", "VALUES", "TABLE", "("}.isdisjoint(statement.words):
        run(database, _EXPLAIN.sub("", statement.text, count=1))  # for the errors of the query
        raise SqlError(_UNSUPPORTED.format("EXPLAIN of a query"))
    match = next(filter(None, (form.fullmatch(statement.text) for form in _FORMS)), None)
    if match is None:
        raise SqlError(_UNSUPPORTED.format(statement.text[:80]))
    parts = {name: (text or "").strip("`'\"") for name, text in match.groupdict().items()}
    owner = (parts.get("database") or parts.get("owner") or database).lower()
    what = parts["what"].upper()
    if what not in ("DATABASES", "SCHEMAS") and owner not in catalogue:
        raise SqlError(f"Unknown database '{owner}'" if owner else "No database selected")
    if what == "USE":
        return Result(owner)
    listing = _listing(what, catalogue, owner, parts, run)
    rows, pattern = listing.rows, parts.get("like")
    if pattern:
        rows = [row for row in rows if like(pattern, row[listing.named])]
    elif len(parts.get("where", "")) > MAX_CONDITION:
        raise SqlError(TOO_DEEP)
    elif parts.get("where"):
        rows = [
            row
            for row in rows
            if _holds(listing.columns, row, match["where"], lambda sql: run(database, sql))
        ]
    return Result(database, tuple(rows))


def _listing(
    what: str, catalogue: Catalogue, owner: str, parts: dict[str, str], run: Run
) -> _Listing:
    full = bool(parts.get("full"))
    if what in ("DATABASES", "SCHEMAS"):
        names = sorted({*catalogue, "information_schema", "mysql", "performance_schema", "sys"})
        return _Listing(["Database"], [(name,) for name in names])
    if what == "TABLES":
        kind = ("BASE TABLE",) if full else ()
        rows = [(name, *kind) for name in catalogue[owner]]
        return _Listing([f"Tables_in_{owner}", *(["Table_type"] if full else [])], rows)
    name = parts["table"].lower()
    if name not in catalogue[owner]:
        raise SqlError(f"Table '{owner}.{name}' doesn't exist")
    table = catalogue[owner][name]
    if what == "CREATE":
        return _Listing(["Table", "Create Table"], [(name, table.created)])
    if what in ("INDEX", "INDEXES", "KEYS"):
        return _Listing(_INDEX.split(), _indexed(table, run), named=2)
    rows = [_described(table, column, full) for column in table.columns]
    return _Listing(_FULL_FIELDS if full else _FIELDS, rows)


def _holds(
    columns: Sequence[str], row: tuple[Any, ...], condition: str, run: Callable[[str], Any]
) -> bool:
    """Whether the condition of WHERE holds for a row: whether a query on it has a row."""
    pairs = zip(columns, row, strict=True)
    values = ", ".join(f"{_constant(value)} AS `{column}`" for column, value in pairs)
    return bool(run(f"SELECT 1 FROM (SELECT {values}) AS listing WHERE {condition}"))


def _constant(value: Any) -> str:
    if value is None or isinstance(value, int):
        return "NULL" if value is None else str(value)
    text = value.decode() if isinstance(value, bytes) else value
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def _described(table: Table, name: str, full: bool) -> tuple[Any, ...]:
    """One row of DESCRIBE. The drivers return type and default as bytes."""
    column = table.columns[name]
    default = None if column.default is None else column.default.encode()
    key, declared = _key(table, name), column.declared.encode()
    shown = column.null, key, default, column.extra
    if not full:
        return column.name, declared, *shown
    collation = "utf8mb4_general_ci" if column.type == TEXT else None
    return column.name, declared, collation, *shown, _PRIVILEGES, ""


def _key(table: Table, name: str) -> str:
    """The most important kind of key that a column belongs to."""
    if name in table.indexes.get("#", ()):
        return "PRI"
    if (name,) in table.unique:
        return "UNI"
    return "MUL" if any(names[0] == name for names in table.indexes.values()) else ""


def _indexed(table: Table, run: Run) -> list[tuple[Any, ...]]:
    """The rows of SHOW INDEX. The cardinality, which MySQL estimates, is counted."""
    rows = []
    for index, names in table.indexes.items():
        other = int(names not in table.unique)
        for number, name in enumerate(names, 1):
            distinct = ", ".join(f"`{column}`" for column in names[:number])
            query = f"SELECT COUNT(*) FROM (SELECT DISTINCT {distinct} FROM `{table.name}`) AS d"
            ((count,),) = run(table.database, query)
            column = table.columns[name]
            null = "YES" if column.null == "YES" else ""
            key = (table.name, other, table.keys[index], number, column.name, "A", count)
            rows.append((*key, None, None, null, "BTREE", "", "", "YES", None))
    return rows
