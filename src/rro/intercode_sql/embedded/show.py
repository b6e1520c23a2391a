"""SHOW, DESCRIBE and USE, answered from the catalogue, and the refusal of statements that write."""

from __future__ import annotations

import re
from typing import Any

from rro.intercode_sql.embedded.functions import like
from rro.intercode_sql.embedded.store import Catalogue, Table
from rro.intercode_sql.engine import READ_ONLY, WRITES, Result, SqlError

_NAME = r"(?:`[^`]+`|[\w$]+)"
_TABLE = rf"(?:(?P<owner>{_NAME})\s*\.\s*)?(?P<table>{_NAME})"
_END = r"(?:\s+LIKE\s+(?P<like>'[^']*'|\"[^\"]*\"))?"
_FROM = rf"(?:\s+(?:FROM|IN)\s+(?P<database>{_NAME}))?"
_FORMS = (
    rf"\s*SHOW\s+(?P<full>FULL\s+)?(?P<what>TABLES){_FROM}{_END}\s*",
    rf"\s*SHOW\s+(?P<what>DATABASES|SCHEMAS){_END}\s*",
    rf"\s*SHOW\s+(?P<full>FULL\s+)?(?P<what>COLUMNS|FIELDS)\s+(?:FROM|IN)\s+{_TABLE}{_FROM}{_END}\s*",
    rf"\s*(?P<what>DESC|DESCRIBE|EXPLAIN)\s+{_TABLE}(?:\s+(?P<like>{_NAME}))?\s*",
    rf"\s*(?P<what>USE)\s+(?P<database>{_NAME})\s*",
)


def shown(catalogue: Catalogue, database: str, sql: str) -> Result | None:
    """The result of a statement about the catalogue, or None if it is another statement. Raises
    SqlError if a name is unknown, or for a statement that writes."""
    if sql and sql.split(None, 1)[0].upper() in WRITES:
        raise SqlError(READ_ONLY)
    match = next(filter(None, (re.fullmatch(form, sql, re.IGNORECASE) for form in _FORMS)), None)
    if match is None:
        return None
    parts = {name: (text or "").strip("`'\"") for name, text in match.groupdict().items()}
    what, pattern = parts["what"].upper(), parts.get("like") or "%"
    if what in ("DATABASES", "SCHEMAS"):
        names = sorted({*catalogue, "information_schema", "mysql", "performance_schema", "sys"})
        return Result(database, tuple((name,) for name in names if like(pattern, name)))
    owner = (parts.get("database") or parts.get("owner") or database).lower()
    if owner not in catalogue:
        raise SqlError(f"Unknown database '{owner}'")
    if what == "USE":
        return Result(owner)
    if what == "TABLES":
        tables = [name for name in catalogue[owner] if like(pattern, name)]
        kind = ("BASE TABLE",) if parts["full"] else ()
        return Result(database, tuple((name, *kind) for name in tables))
    name = parts["table"].lower()
    if name not in catalogue[owner]:
        raise SqlError(f"Table '{owner}.{name}' doesn't exist")
    table = catalogue[owner][name]
    columns = (column for column in table.columns if like(pattern, column))
    return Result(database, tuple(_described(table, column) for column in columns))


def _described(table: Table, name: str) -> tuple[Any, ...]:
    """One row of DESCRIBE. The drivers return type and default as bytes."""
    column = table.columns[name]
    default = None if column.default is None else column.default.encode()
    key = _key(table, name)
    return column.name, column.declared.encode(), column.null, key, default, column.extra


def _key(table: Table, name: str) -> str:
    """The most important kind of key that a column belongs to."""
    if name in table.indexes.get("#", ()):
        return "PRI"
    if (name,) in table.unique:
        return "UNI"
    return "MUL" if any(names[0] == name for names in table.indexes.values()) else ""
