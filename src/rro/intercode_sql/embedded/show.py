"""SHOW, DESCRIBE and USE, answered from the catalogue; and MySQL's refusal of what writes."""

from __future__ import annotations

import re
from typing import Any

from rro.intercode_sql.embedded.functions import like
from rro.intercode_sql.embedded.names import SqlError
from rro.intercode_sql.embedded.store import Catalogue, Table
from rro.intercode_sql.engine import READ_ONLY, WRITES, Result

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
    """The answer to a statement about the catalogue; None for what is none. Raises SqlError for
    what is wrong, or writes."""
    if sql and sql.split(None, 1)[0].upper() in WRITES:
        raise SqlError(READ_ONLY)
    match = next(filter(None, (re.fullmatch(form, sql, re.IGNORECASE) for form in _FORMS)), None)
    if match is None:
        return None
    found = {name: (text or "").strip("`'\"") for name, text in match.groupdict().items()}
    what, pattern = found["what"].upper(), found.get("like") or "%"
    if what in ("DATABASES", "SCHEMAS"):
        names = sorted({*catalogue, "information_schema", "mysql", "performance_schema", "sys"})
        return Result(database, tuple((name,) for name in names if like(pattern, name)))
    owner = (found.get("database") or found.get("owner") or database).lower()
    if owner not in catalogue:
        raise SqlError(f"Unknown database '{owner}'")
    if what == "USE":
        return Result(owner)
    if what == "TABLES":
        tables = [name for name in catalogue[owner] if like(pattern, name)]
        return Result(
            database, tuple((name, "BASE TABLE") if found["full"] else (name,) for name in tables)
        )
    table = catalogue[owner].get(found["table"].lower())
    if table is None:
        raise SqlError(f"Table '{owner}.{found['table'].lower()}' doesn't exist")
    return Result(
        database, tuple(_described(table, name) for name in table.columns if like(pattern, name))
    )


def _described(table: Table, name: str) -> tuple[Any, ...]:
    """One row of DESCRIBE; the driver gives type and default as bytes. Of the keys, PRI goes before
    UNI before MUL."""
    column, firsts = (
        table.columns[name],
        [names for names in table.indexes.values() if names[0] == name],
    )
    key = (
        "PRI"
        if name in table.indexes.get("#", ())
        else "UNI"
        if (name,) in table.unique
        else "MUL"
        if firsts
        else ""
    )
    default = None if column.default is None else column.default.encode()
    return column.name, column.declared.encode(), column.null, key, default, column.extra
