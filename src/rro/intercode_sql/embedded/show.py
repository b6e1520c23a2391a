"""SHOW, DESCRIBE and USE, answered from the catalogue. Knows no query's plan, so EXPLAIN of one is
refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rro.intercode_sql.embedded.functions import like
from rro.intercode_sql.embedded.store import TEXT, Catalogue, Table
from rro.intercode_sql.embedded.syntax import Node, Statement
from rro.intercode_sql.embedded.values import unsupported
from rro.intercode_sql.engine import TOO_DEEP, Result, SqlError

# Characters of a condition, which is translated anew for each row.
MAX_CONDITION = 1000
_FIELDS = ("Field", "Type", "Null", "Key", "Default", "Extra")
_FULL_FIELDS = (*_FIELDS[:2], "Collation", *_FIELDS[2:], "Privileges", "Comment")
_PRIVILEGES = "select,insert,update,references"
_INDEX = """
    Table Non_unique Key_name Seq_in_index Column_name Collation Cardinality Sub_part Packed Null
    Index_type Comment Index_comment Visible Expression"""
_KINDS = ("show_tables", "show_columns", "show_index", "show_create")
_ALL = ("TABLES", "DATABASES", "SCHEMAS")
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
    tree, last = statement.tree, statement.tree.parts[-1]
    if tree.kind == "explain":
        run(database, statement.source(last))  # for the errors of the query
        raise unsupported("EXPLAIN of a query")
    if tree.kind == "show" or "EXTENDED" in statement.own_words(tree):
        raise unsupported(statement.text)
    if tree.kind not in ("use", "show_databases", *_KINDS):
        return None
    table, within = tree.part("table"), tree.part("in_database")
    *owners, name = statement.path(table) if table else [""]
    if within or tree.kind == "use":
        owners = [statement.name((within or tree).parts[1])]
    owner = (owners[0] if owners else database).lower()
    if tree.kind != "show_databases" and owner not in catalogue:
        raise SqlError(f"Unknown database '{owner}'" if owner else "No database selected")
    if tree.kind == "use":
        return Result(owner)
    listing = _listing(tree.kind, catalogue, owner, name.lower(), "FULL" in statement.words, run)
    rows = listing.rows
    if isinstance(last, Node) and last.kind == "where":
        condition = statement.source(last.parts[1])
        if len(condition) > MAX_CONDITION:
            raise SqlError(TOO_DEEP)
        rows = [row for row in rows if _holds(listing.columns, row, condition, database, run)]
    elif not (last is table or last is within or _ends(statement, last)):
        pattern = last.parts[-1] if isinstance(last, Node) else last
        rows = [row for row in rows if like(statement.name(pattern), row[listing.named])]
    return Result(database, tuple(rows))


def _listing(
    kind: str, catalogue: Catalogue, owner: str, name: str, full: bool, run: Run
) -> _Listing:
    if kind == "show_databases":
        names = sorted({*catalogue, "information_schema", "mysql", "performance_schema", "sys"})
        return _Listing(["Database"], [(name,) for name in names])
    if kind == "show_tables":
        shown = ("BASE TABLE",) if full else ()
        rows = [(name, *shown) for name in catalogue[owner]]
        return _Listing([f"Tables_in_{owner}", *(["Table_type"] if full else [])], rows)
    if name not in catalogue[owner]:
        raise SqlError(f"Table '{owner}.{name}' doesn't exist")
    table = catalogue[owner][name]
    if kind == "show_create":
        return _Listing(["Table", "Create Table"], [(name, table.created)])
    if kind == "show_index":
        return _Listing(_INDEX.split(), _indexed(table, run), named=2)
    rows = [_described(table, column, full) for column in table.columns]
    return _Listing(_FULL_FIELDS if full else _FIELDS, rows)


def _ends(statement: Statement, last: Node | int) -> bool:
    """Whether a statement ends with what it lists, without a filter."""
    return isinstance(last, int) and statement.words[last] in _ALL


def _holds(
    columns: Sequence[str], row: tuple[Any, ...], condition: str, database: str, run: Run
) -> bool:
    """Whether the condition of WHERE holds for a row: whether a query on it has a row."""
    pairs = zip(columns, row, strict=True)
    values = ", ".join(f"{_constant(value)} AS `{column}`" for column, value in pairs)
    return bool(run(database, f"SELECT 1 FROM (SELECT {values}) AS listing WHERE {condition}"))


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
