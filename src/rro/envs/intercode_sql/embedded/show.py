"""SHOW, DESCRIBE and USE, answered from the catalogue; and MySQL's refusal of all that is not a query."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from rro.envs.intercode_sql.embedded import collation
from rro.envs.intercode_sql.embedded.schema import Catalogue, Column, Table
from rro.envs.intercode_sql.embedded.stopping import words
from rro.envs.intercode_sql.embedded.syntax import SqlError, error_near
from rro.envs.intercode_sql.engine import READ_ONLY

Rows = tuple[tuple[Any, ...], ...]
SYSTEM_DATABASES = ("information_schema", "mysql", "performance_schema", "sys")

_NAME = r"(?:`[^`]+`|[\w$]+)"
_TABLE = rf"({_NAME})(?:\s*\.\s*({_NAME}))?"
_LIKE = r"(?:\s+LIKE\s+(?:'([^']*)'|\"([^\"]*)\"))?"
_FROM = r"\s+(?:FROM|IN)\s+"
_RESERVED_TABLES = words("show table tables order group match rank like key keys to")
WRITES = words(
    """INSERT UPDATE DELETE REPLACE CREATE ALTER DROP TRUNCATE RENAME GRANT REVOKE LOAD LOCK UNLOCK SET CALL DO HANDLER BEGIN START
    COMMIT ROLLBACK SAVEPOINT PREPARE EXECUTE DEALLOCATE KILL FLUSH RESET ANALYZE OPTIMIZE REPAIR CHECK IMPORT INSTALL
    UNINSTALL SHUTDOWN RESTART PURGE CHANGE XA SIGNAL RESIGNAL GET BINLOG CACHE CLONE STOP"""
)


def answer(catalogue: Catalogue, database: str, sql: str) -> tuple[str, Rows | None] | None:
    """(database in use afterwards, rows) of a statement about the catalogue; None for a query, which others answer.

    Raises SqlError with MySQL's message for what is wrong or writes."""
    word = sql[:16].split(None, 1)[0].upper() if sql.strip() else ""
    if word in WRITES:
        raise SqlError(READ_ONLY)
    if word not in ("SHOW", "DESC", "DESCRIBE", "EXPLAIN", "USE"):
        return None
    for pattern, reply in _REPLIES:
        if match := pattern.match(sql):
            if match.end() < len(sql):
                raise error_near(sql, match.end())
            return reply(catalogue, database, match.groups())
    rest = re.match(r"\w+\s*", sql)
    raise error_near(sql, rest.end() if rest and rest.end() < len(sql) else len(sql))


def _bare(name: str | None) -> str:
    return (name or "").strip("`")


def _table(catalogue: Catalogue, database: str, first: str, second: str | None) -> Table:
    owner, name = (_bare(first), _bare(second)) if second else (database, _bare(first))
    if owner.lower() not in catalogue.databases:
        raise SqlError(f"Unknown database '{owner.lower()}'")
    table = catalogue.table(owner, name)
    if table is None:
        raise SqlError(f"Table '{owner.lower()}.{name.lower()}' doesn't exist")
    return table


def _matching(names: Sequence[str], pattern: str | None) -> list[str]:
    return [name for name in names if pattern is None or collation.like(pattern, "\\", False)(name)]


def _tables(catalogue: Catalogue, database: str, groups: Sequence[str | None]) -> tuple[str, Rows]:
    full, owner, *patterns = groups
    name = _bare(owner).lower() or database
    if name not in catalogue.databases:
        raise SqlError(f"Unknown database '{name}'")
    found = _matching(list(catalogue.databases[name]), patterns[0] or patterns[1])
    return database, tuple((table, "BASE TABLE") if full else (table,) for table in found)


def _databases(catalogue: Catalogue, database: str, groups: Sequence[str | None]) -> tuple[str, Rows]:
    names = _matching(sorted({*catalogue.databases, *SYSTEM_DATABASES}), groups[0] or groups[1])
    return database, tuple((name,) for name in names)


def _columns(catalogue: Catalogue, database: str, groups: Sequence[str | None]) -> tuple[str, Rows]:
    full, first, second, owner, *patterns = groups
    table = _table(catalogue, database, *((owner, first) if owner else (first, second)))  # type: ignore[arg-type]
    wanted = set(_matching([column.name for column in table.columns], patterns[0] or patterns[1]))
    rows = [_description(column, bool(full)) for column in table.columns if column.name in wanted]
    return database, tuple(rows)


def _describe(catalogue: Catalogue, database: str, groups: Sequence[str | None]) -> tuple[str, Rows]:
    first, second, column = groups
    if not second and first and first.lower() in _RESERVED_TABLES:
        raise error_near(first, 0)
    table = _table(catalogue, database, first or "", second)
    wanted = _bare(column).lower()
    rows = [_description(c, False) for c in table.columns if not wanted or c.name.lower() == wanted]
    return database, tuple(rows)


def _description(column: Column, full: bool) -> tuple[Any, ...]:
    """One row of DESCRIBE; the driver gives type and default as bytes."""
    default = None if column.default is None else column.default.encode()
    null = "YES" if column.nullable else "NO"
    if not full:
        return column.name, column.declared.encode(), null, column.key, default, column.extra
    collated = "utf8mb4_general_ci" if column.type.kind == "text" else None
    rights = "select,insert,update,references"
    return column.name, column.declared.encode(), collated, null, column.key, default, column.extra, rights, ""


def _use(catalogue: Catalogue, database: str, groups: Sequence[str | None]) -> tuple[str, None]:
    name = _bare(groups[0]).lower()
    if name not in catalogue.databases:
        raise SqlError(f"Unknown database '{name}'")
    return name, None


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(rf"\s*{text}\s*", re.IGNORECASE)


_REPLIES: tuple[tuple[re.Pattern[str], Callable[..., tuple[str, Rows | None]]], ...] = (
    (_pattern(rf"SHOW\s+(FULL\s+)?TABLES(?:{_FROM}({_NAME}))?{_LIKE}"), _tables),
    (_pattern(rf"SHOW\s+(?:DATABASES|SCHEMAS){_LIKE}"), _databases),
    (_pattern(rf"SHOW\s+(FULL\s+)?(?:COLUMNS|FIELDS){_FROM}{_TABLE}(?:{_FROM}({_NAME}))?{_LIKE}"), _columns),
    (_pattern(rf"(?:DESC|DESCRIBE|EXPLAIN)\s+{_TABLE}(?:\s+(?!to\b|where\b)({_NAME}))?"), _describe),
    (_pattern(rf"USE\s+({_NAME})"), _use),
)
