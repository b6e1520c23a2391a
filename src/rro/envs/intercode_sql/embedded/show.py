"""SHOW, DESCRIBE and USE, answered from the catalogue; and MySQL's refusal of what writes."""

from __future__ import annotations

import re
from typing import Any

from rro.envs.intercode_sql.embedded import collation
from rro.envs.intercode_sql.embedded.catalogue import TEXT, Catalogue, Column, Table
from rro.envs.intercode_sql.embedded.names import SqlError
from rro.envs.intercode_sql.engine import READ_ONLY, WRITES, Result

_NAME = r"(?:`[^`]+`|[\w$]+)"
_TABLE = rf"(?:(?P<owner>{_NAME})\s*\.\s*)?(?P<table>{_NAME})"
_LIKE = r"(?:\s+LIKE\s+(?:'(?P<like>[^']*)'|\"(?P<like2>[^\"]*)\"))?"
_FROM = rf"(?:\s+(?:FROM|IN)\s+(?P<database>{_NAME}))?"
_FORMS = [
    re.compile(rf"\s*{form}\s*", re.IGNORECASE)
    for form in (
        rf"(?P<what>SHOW\s+(?P<full>FULL\s+)?TABLES){_FROM}{_LIKE}",
        rf"(?P<what>SHOW\s+(?:DATABASES|SCHEMAS)){_LIKE}",
        rf"(?P<what>SHOW\s+(?P<full>FULL\s+)?(?:COLUMNS|FIELDS))\s+(?:FROM|IN)\s+{_TABLE}{_FROM}{_LIKE}",
        rf"(?P<what>DESC|DESCRIBE|EXPLAIN)\s+{_TABLE}(?:\s+(?P<like>{_NAME}))?",
        rf"(?P<what>USE)\s+(?P<database>{_NAME})",
    )
]


def shown(catalogue: Catalogue, database: str, sql: str) -> Result | None:
    """The answer to a statement about the catalogue; None for what is none. Raises SqlError for what is wrong, or writes."""
    if sql.split(None, 1)[0].upper() in WRITES if sql else False:
        raise SqlError(READ_ONLY)
    match = next(filter(None, (form.fullmatch(sql) for form in _FORMS)), None)
    if match is None:
        return None
    found = {name: (text or "").strip("`") for name, text in match.groupdict().items()}
    what, full = found["what"].upper().split()[-1], bool(found.get("full"))
    pattern = found.get("like") or found.get("like2") or "%"
    if what in ("DATABASES", "SCHEMAS"):
        names = sorted({*catalogue, "information_schema", "mysql", "performance_schema", "sys"})
        return Result(database, tuple((name,) for name in names if collation.like(name, pattern)))
    owner = (found.get("database") or found.get("owner") or database).lower()
    if owner not in catalogue:
        raise SqlError(f"Unknown database '{owner}'")
    if what == "USE":
        return Result(owner)
    if what == "TABLES":
        tables = [name for name in catalogue[owner] if collation.like(name, pattern)]
        return Result(database, tuple((name, "BASE TABLE") if full else (name,) for name in tables))
    table = catalogue[owner].get(found["table"].lower())
    if table is None:
        raise SqlError(f"Table '{owner}.{found['table'].lower()}' doesn't exist")
    columns = [column for column in table.columns.values() if collation.like(column.name, pattern)]
    return Result(database, tuple(_described(column, full) for column in columns))


def _described(column: Column, full: bool) -> tuple[Any, ...]:
    """One row of DESCRIBE; the driver gives type and default as bytes."""
    default = None if column.default is None else column.default.encode()
    ends = (column.null, column.key, default, column.extra)
    if not full:
        return column.name, column.declared.encode(), *ends
    collated = "utf8mb4_general_ci" if column.type == TEXT else None
    return column.name, column.declared.encode(), collated, *ends, "select,insert,update,references", ""
