"""The databases as one SQLite file, built from the MySQL dump on first use and kept in the user's cache.

The table `city` of the database `world_1` is stored as "world_1.city". Its column "#" numbers the rows by the primary key,
the order in which MySQL reads them, "#2" by the second index; "Name#" holds what the text `Name` is compared by.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import struct
import tempfile
from contextlib import closing
from pathlib import Path

from rro.envs.intercode_sql.embedded import collation
from rro.envs.intercode_sql.embedded.catalogue import TEXT, Catalogue, Column, Table, read_dump
from rro.errors import DataError

FORMAT = 2  # of the file: raise it when what is stored changes
Rows = list[tuple[Table, str]]  # of an INSERT: VALUES in SQLite's SQL


def open_store(dump: Path, cache: Path | None = None) -> tuple[Catalogue, sqlite3.Connection]:
    """The catalogue of a dump, and a connection to its data that cannot write.

    `cache`: a folder for the built file (None: $RRO_CACHE, or rro in the user's cache folder). Where nothing can be written
    there, the data are built anew in memory. Raises DataError for a file that is no dump."""
    try:
        text = dump.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{dump} cannot be read as a MySQL dump: {error}") from None
    catalogue, rows = read_dump(text, str(dump))
    digest = hashlib.sha256(text.encode()).hexdigest()[:20]
    file = (cache or _cache_root()) / f"intercode-sql-{digest}-v{FORMAT}.sqlite"
    try:
        if not file.exists():
            _build_file(file, catalogue, rows)
        uri = f"{file.absolute().as_uri()}?mode=ro&immutable=1"
        connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        _count(connection, catalogue)
    except (OSError, sqlite3.Error):
        connection = sqlite3.connect(":memory:", check_same_thread=False)
        _build(connection, catalogue, rows)
        _count(connection, catalogue)
    return catalogue, connection


def _cache_root() -> Path:
    return Path(os.environ.get("RRO_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rro")


def _tables(catalogue: Catalogue) -> list[Table]:
    return [table for tables in catalogue.values() for table in tables.values()]


def _count(connection: sqlite3.Connection, catalogue: Catalogue) -> None:
    for table in _tables(catalogue):
        table.rows = connection.execute(f"SELECT count(*) FROM {table.stored_as}").fetchone()[0]


def _build_file(file: Path, catalogue: Catalogue, rows: Rows) -> None:
    """Build beside the place and move there, so that the file is whole or absent, whoever else builds it meanwhile."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{file.stem}-", dir=file.parent) as scratch:
        with closing(sqlite3.connect(Path(scratch) / file.name)) as connection:
            _build(connection, catalogue, rows)
        os.replace(Path(scratch) / file.name, file)


def _build(connection: sqlite3.Connection, catalogue: Catalogue, rows: Rows) -> None:
    """Fill every table as it is declared, then the stored one from it, with row numbers and keys."""
    connection.isolation_level = None
    connection.create_function("key", 1, lambda text: None if text is None else collation.key(text))
    connection.create_function("single", 1, lambda x: None if x is None else struct.unpack("f", struct.pack("f", x))[0])
    connection.execute("BEGIN")
    for table in _tables(catalogue):
        declared = ", ".join(f'"{column.name}" {_affinity(column)}' for column in table.columns.values())
        connection.execute(f"CREATE TEMP TABLE {table.stored_as} ({declared})")
    for table, values in rows:
        try:
            connection.execute(f"INSERT INTO temp.{table.stored_as} {values}")
        except sqlite3.Error as error:
            raise DataError(f"the dump's rows of {table.database}.{table.name} do not fit: {error}") from None
    for table in _tables(catalogue):
        _store(connection, table)
    connection.execute("COMMIT")


def _store(connection: sqlite3.Connection, table: Table) -> None:
    keys = {name: f'key("{name}")' if column.type == TEXT else f'"{name}"' for name, column in table.columns.items()}
    primary = [keys[name] for name in table.primary] or ["rowid"]
    columns = [('"#" INTEGER PRIMARY KEY', f"row_number() OVER (ORDER BY {', '.join(primary)})")]
    for index in table.indexes:
        if index.order != "#":
            order = ", ".join([keys[name] for name in index.columns] + primary)
            columns.append((f'"{index.order}" INTEGER', f"row_number() OVER (ORDER BY {order})"))
    for name, column in table.columns.items():
        stored = f'single("{name}")' if column.type.kind == "float" else f'"{name}"'
        columns.append((f'"{column.name}" {_affinity(column)}', stored))
        columns += [(f'"{column.name}#" TEXT', keys[name])] if column.type == TEXT else []
    connection.execute(f"CREATE TABLE main.{table.stored_as} ({', '.join(name for name, _ in columns)})")
    values = ", ".join(value for _, value in columns)
    connection.execute(f"INSERT INTO main.{table.stored_as} SELECT {values} FROM temp.{table.stored_as}")
    connection.execute(f"DROP TABLE temp.{table.stored_as}")
    for index in table.indexes:
        indexed = ", ".join(f'"{name}#"' if table.columns[name].type == TEXT else f'"{name}"' for name in index.columns)
        connection.execute(f'CREATE INDEX "{table.stored_as[1:-1]}{index.order}" ON {table.stored_as} ({indexed})')


def _affinity(column: Column) -> str:
    return {"int": "INTEGER", "decimal": "REAL", "float": "REAL", "double": "REAL"}.get(column.type.kind, "TEXT")
