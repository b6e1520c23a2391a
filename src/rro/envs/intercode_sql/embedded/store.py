"""The databases as one SQLite file, built from the MySQL dump on first use and kept in the user's cache.

A table `city` of the database `world_1` is stored as "world_1.city"; its column `#` numbers the rows in MySQL's order, that
of the primary key. A text column `Name` has a companion `Name#` with the key that it is compared by.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

from rro.envs.intercode_sql.embedded import collation
from rro.envs.intercode_sql.embedded.dump import Value, read_rows, read_schema, stored
from rro.envs.intercode_sql.embedded.schema import Catalogue, Column, Kind, Table, Type
from rro.errors import DataError

FORMAT = 1  # of the file: raise it when what is stored changes
INFORMATION = "information_schema"
_AFFINITY = {Kind.INT: "INTEGER", Kind.FLOAT: "REAL", Kind.DOUBLE: "REAL", Kind.DECIMAL: "REAL"}
_TEXT, _INT = Type(Kind.TEXT), Type(Kind.INT)
_INFORMATION: dict[str, tuple[str, ...]] = {
    "schemata": ("CATALOG_NAME", "SCHEMA_NAME", "DEFAULT_CHARACTER_SET_NAME", "DEFAULT_COLLATION_NAME"),
    "tables": ("TABLE_CATALOG", "TABLE_SCHEMA", "TABLE_NAME", "TABLE_TYPE", "ENGINE", "TABLE_ROWS"),
    "columns": (
        "TABLE_CATALOG", "TABLE_SCHEMA", "TABLE_NAME", "COLUMN_NAME", "ORDINAL_POSITION", "COLUMN_DEFAULT", "IS_NULLABLE",
        "DATA_TYPE", "CHARACTER_MAXIMUM_LENGTH", "COLUMN_TYPE", "COLUMN_KEY", "EXTRA", "COLUMN_COMMENT",
    ),
    "key_column_usage": ("TABLE_SCHEMA", "TABLE_NAME", "COLUMN_NAME", "CONSTRAINT_NAME", "ORDINAL_POSITION"),
}  # fmt: skip
_NUMBERS = ("ORDINAL_POSITION", "TABLE_ROWS", "CHARACTER_MAXIMUM_LENGTH")


def cache_root() -> Path:
    """$RRO_CACHE, or rro in the user's cache folder."""
    if named := os.environ.get("RRO_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rro"


def open_store(dump: Path, cache: Path | None = None) -> tuple[Catalogue, sqlite3.Connection]:
    """The catalogue of a dump, and a connection to its data that cannot write.

    `cache`: a folder for the built file (None: cache_root()). Where nothing can be written there, the data are built anew
    in memory. Raises DataError for a file that is no dump."""
    try:
        data = dump.read_bytes()
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{dump} cannot be read as a MySQL dump: {error}") from None
    catalogue = _with_information(read_schema(text, str(dump)))
    digest = hashlib.sha256(data).hexdigest()[:20]
    file = (cache or cache_root()) / f"intercode-sql-{digest}-v{FORMAT}.sqlite"
    try:
        if not file.exists():
            _build_file(file, catalogue, text)
        connection = sqlite3.connect(
            f"{file.absolute().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False
        )
        statistics = _read_statistics(connection)
    except (OSError, sqlite3.Error):
        connection = sqlite3.connect(":memory:", check_same_thread=False)
        _build(connection, catalogue, text)
        statistics = _read_statistics(connection)
    return replace(catalogue, statistics=statistics), connection


def _read_statistics(connection: sqlite3.Connection) -> dict[tuple[str, str], tuple[float, ...]]:
    rows = connection.execute("SELECT stored_as, numbers, per_key FROM statistics")
    return {(table, index): tuple(map(float, per_key.split())) for table, index, per_key in rows}


def _build_file(file: Path, catalogue: Catalogue, text: str) -> None:
    """Build beside the place and move there, so that the file is whole or absent, whoever else builds it meanwhile."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{file.stem}-", dir=file.parent)
    os.close(handle)
    try:
        with closing(sqlite3.connect(name)) as connection:
            connection.execute("PRAGMA journal_mode=OFF")
            connection.execute("PRAGMA synchronous=OFF")
            _build(connection, catalogue, text)
        os.replace(name, file)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name)


def _build(connection: sqlite3.Connection, catalogue: Catalogue, text: str) -> None:
    rows: dict[str, list[list[Value]]] = {}
    for database, name, values in read_rows(text):
        table = catalogue.databases[database][name]
        try:
            fitting = [[stored(v, c.type) for v, c in zip(row, table.columns, strict=True)] for row in values]
        except (ValueError, TypeError) as error:
            raise DataError(f"the dump's rows of {table.stored_as} do not fit its columns: {error}") from None
        rows.setdefault(table.stored_as, []).extend(fitting)
    for name, table in catalogue.databases[INFORMATION].items():
        rows[table.stored_as] = _information_rows(catalogue, name)
    connection.execute("BEGIN")
    connection.execute("CREATE TABLE statistics (stored_as TEXT, numbers TEXT, per_key TEXT)")
    for tables in catalogue.databases.values():
        for table in tables.values():
            _create(connection, table, rows.get(table.stored_as, []))
    connection.execute("COMMIT")
    connection.execute("ANALYZE")


def _create(connection: sqlite3.Connection, table: Table, rows: Sequence[Sequence[Value]]) -> None:
    others = [index for index in table.indexes if not index.primary]
    columns = ['"#" INTEGER PRIMARY KEY', *(f"{quoted(index.numbers)} INTEGER" for index in others)]
    name = quoted(table.stored_as)
    connection.execute(f"CREATE TABLE {name} ({', '.join([*columns, *map(_declaration, table.columns)])})")
    texts = [column.type.kind is Kind.TEXT for column in table.columns]
    if table.primary:  # mysqldump writes rows in the order of whichever index it reads them by
        ranks = _ranks(table, rows, table.primary.parts)
        rows = [row for _, row in sorted(zip(ranks, rows, strict=True), key=lambda pair: pair[0])]
    numbers = [_ranks(table, rows, index.parts) for index in others]
    wide = [
        [*places, *(part for value, text in zip(row, texts, strict=True) for part in _with_key(value, text))]
        for row, *places in zip(rows, *numbers, strict=True)
    ]
    marks = ", ".join("?" * (len(numbers) + len(texts) + sum(texts)))
    connection.executemany(f"INSERT INTO {name} VALUES (NULL, {marks})", wide)
    for index in table.indexes:
        parts = ", ".join(quoted(key_name(table.by_name[part])) for part in index.parts)
        connection.execute(f"CREATE INDEX {quoted(table.stored_as + index.numbers)} ON {name} ({parts})")
        per_key = " ".join(str(_per_key(table, rows, index.parts[:count])) for count in range(1, len(index.parts) + 1))
        connection.execute("INSERT INTO statistics VALUES (?, ?, ?)", (table.stored_as, index.numbers, per_key))


def quoted(name: str) -> str:
    """A name in SQLite's quotes."""
    return '"' + name.replace('"', '""') + '"'


def key_name(column: Column) -> str:
    """The stored column that a column is compared by."""
    return f"{column.name}#" if column.type.kind is Kind.TEXT else column.name


def _declaration(column: Column) -> str:
    declared = f"{quoted(column.name)} {_AFFINITY.get(column.type.kind, 'TEXT')}"
    return f"{declared}, {quoted(key_name(column))} TEXT" if column.type.kind is Kind.TEXT else declared


def _per_key(table: Table, rows: Sequence[Sequence[Value]], parts: Sequence[str]) -> float:
    """How many rows have the same values in `parts`, on average."""
    places = [list(table.by_name).index(part) for part in parts]
    values = {tuple(_sortable(row[place], table.columns[place]) for place in places) for row in rows}
    return len(rows) / len(values) if values else 1.0


def _ranks(table: Table, rows: Sequence[Sequence[Value]], index: Sequence[str]) -> list[int]:
    """The place of each row in the order of an index."""
    places = [list(table.by_name).index(part) for part in index]
    keys = [tuple(_sortable(row[place], table.columns[place]) for place in places) for row in rows]
    ranks = [0] * len(rows)
    for rank, place in enumerate(sorted(range(len(rows)), key=keys.__getitem__), 1):
        ranks[place] = rank
    return ranks


def _sortable(value: Value, column: Column) -> tuple[bool, Value]:
    return value is not None, collation.key(
        str(value)
    ) if column.type.kind is Kind.TEXT and value is not None else value or 0


def _with_key(value: Value, text: bool) -> tuple[Value, ...]:
    if not text:
        return (value,)
    return (value, None if value is None else collation.key(str(value)))


def _with_information(catalogue: Catalogue) -> Catalogue:
    """The catalogue with MySQL's tables about itself: the columns that agents ask for, not all."""
    tables = {
        name: Table(
            INFORMATION, name, tuple(Column(c, _INT if c in _NUMBERS else _TEXT, "varchar(64)") for c in columns)
        )
        for name, columns in _INFORMATION.items()
    }
    return Catalogue(dict(sorted({**catalogue.databases, INFORMATION: tables}.items())))


def _information_rows(catalogue: Catalogue, name: str) -> list[list[Value]]:
    databases = {name: tables for name, tables in catalogue.databases.items() if name != INFORMATION}
    if name == "schemata":
        return [["def", database, "utf8mb4", "utf8mb4_general_ci"] for database in catalogue.databases]
    rows: list[list[Value]] = []
    for database, tables in databases.items():
        for table in tables.values():
            if name == "tables":
                rows.append(["def", database, table.name, "BASE TABLE", "InnoDB", table.rows])
            elif name == "columns":
                rows += sorted(_column_rows(table), key=lambda row: collation.key(str(row[3])))
            elif table.primary:
                primary = enumerate(table.primary.parts, 1)
                rows += [[database, table.name, table.by_name[part].name, "PRIMARY", n] for n, part in primary]
    return rows


def _column_rows(table: Table) -> list[list[Value]]:
    return [
        [
            "def", table.database, table.name, column.name, number, column.default, "YES" if column.nullable else "NO",
            column.declared.partition("(")[0], _width(column), column.declared, column.key, column.extra, "",
        ]
        for number, column in enumerate(table.columns, 1)
    ]  # fmt: skip


def _width(column: Column) -> int | None:
    if column.type.kind is not Kind.TEXT:
        return None
    return int(column.declared.partition("(")[2].rstrip(")") or 65_535)
