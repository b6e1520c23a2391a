"""The databases as one SQLite file, built from the MySQL dump on first use and kept in the user's
cache.

The table `city` of the database `world_1` is stored as "world_1.city". Its column "#" numbers the
rows by the primary key, the order in which MySQL reads them, "#2" by the second index; "Name#"
holds what the text `Name` is compared by."""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import struct
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from rro.errors import DataError
from rro.intercode_sql.embedded.functions import key

FORMAT = 3  # of the file: raise it when what is stored changes


class Type(NamedTuple):
    """A class of values that MySQL's rules tell apart: int, decimal, float (single precision),
    double, text, date, datetime, null. `scale`: digits after the point that a number is shown with,
    None for as many as it needs."""

    kind: str
    scale: int | None = None

    @property
    def exact(self) -> bool:
        return self.kind in ("int", "decimal")


INT, DOUBLE, TEXT, NULL = Type("int", 0), Type("double"), Type("text"), Type("null")
DATE, DATETIME = Type("date"), Type("datetime")


def number(exact: bool, scale: int | None) -> Type:
    return Type("double", scale) if not exact else Type("decimal", min(scale, 30)) if scale else INT


def common_type(types: Iterable[Type]) -> Type:
    """Of CASE, COALESCE, UNION, arithmetic: what can hold all of them."""
    kinds = {kind for kind in types if kind != NULL}
    if len(kinds) <= 1 or kinds & {TEXT, DATE, DATETIME}:
        return kinds.pop() if len(kinds) == 1 else TEXT if kinds else NULL
    scales = [kind.scale for kind in kinds if kind.scale is not None]
    return number(
        all(kind.exact for kind in kinds), max(scales) if len(scales) == len(kinds) else None
    )


class Column(NamedTuple):
    """A column; `declared` and what follows are as DESCRIBE shows them."""

    name: str
    type: Type
    declared: str
    null: str
    default: str | None
    extra: str


@dataclass
class Table:
    """`name` and the names of columns are in lower case. `indexes`: their columns by the stored
    column that numbers the rows in their order, which is "#" for the primary key; `unique`: those
    of unique indexes."""

    database: str
    name: str
    columns: dict[str, Column] = field(default_factory=dict)
    indexes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unique: list[tuple[str, ...]] = field(default_factory=list)
    rows: int = 0

    @property
    def stored_as(self) -> str:
        return f'"{self.database}.{self.name}"'


Catalogue = Mapping[str, Mapping[str, Table]]  # by database and name, in lower case and sorted
Rows = list[tuple[Table, str]]  # of an INSERT: VALUES in SQLite's SQL

_USE = re.compile(r"(?:USE|CREATE DATABASE(?:\s+IF NOT EXISTS)?)\s+`([^`\"]+)`")
_CREATE = re.compile(r"CREATE TABLE `([^`\"]+)` \(")
_COLUMN = re.compile(r"\s+`([^`\"]+)` ([a-z]+(?:\([^)]*\))?)(.*?),?$")
_KEY = re.compile(r"\s+(PRIMARY|UNIQUE)?(?: ?KEY)(?: `[^`]+`)? \((.*)\)")
_DEFAULT = re.compile(r"DEFAULT (?!NULL)(?:'((?:[^']|'')*)'|(\S+))")
_INSERT = re.compile(r"INSERT INTO `([^`]+)` (VALUES .*);$")
_ESCAPES = {"'": "''", "n": "\n", "t": "\t", "r": "\r", "0": "\ufffd"}


def declared_type(declared: str) -> Type:
    """The type of a column declared as e.g. "float(10,2)"; what is not known is text."""
    name, _, sizes = declared.partition("(")
    kind = "int" if name.endswith("int") else name.replace("timestamp", "datetime")
    if kind in ("decimal", "float", "double") and "," in sizes:
        return Type(kind, int(sizes.rstrip(")").split(",")[1]))
    return (
        Type(kind)
        if kind in ("float", "double", "date", "datetime")
        else Type(kind, 0)
        if kind in ("int", "decimal")
        else TEXT
    )


def read_dump(dump: str, source: str) -> tuple[Catalogue, Rows]:
    """The tables that a dump of mysqldump's creates, and their rows. Raises DataError, which names
    `source`, for other texts."""
    databases: dict[str, dict[str, Table]] = {}
    rows: Rows = []
    database, table = "", Table("", "")
    for line in dump.splitlines():
        if match := _USE.match(line):
            database = match[1].lower()
            databases.setdefault(database, {})
        elif match := _CREATE.match(line):
            table = databases.setdefault(database, {})[match[1].lower()] = Table(
                database, match[1].lower()
            )
        elif match := _INSERT.match(line):
            into = databases.get(database, {}).get(match[1].lower())
            if into is None:
                raise DataError(
                    f"{source}: rows for the table {match[1]}, which it does not create"
                )
            into.rows += match[2].count("),(") + 1
            rows.append(
                (into, re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), match[2]))
            )
        elif match := _COLUMN.match(line):
            table.columns[match[1].lower()] = _column(*match.groups())
        elif match := _KEY.match(line):
            columns = tuple(re.findall(r"`([^`]+)`", match[2].lower()))
            table.indexes["#" if match[1] == "PRIMARY" else f"#{len(table.indexes) + 1}"] = columns
            table.unique += [columns] if match[1] else []
    if not any(databases.values()):
        raise DataError(f"{source}: not a dump of MySQL databases: no CREATE TABLE in it")
    return {name: dict(sorted(databases[name].items())) for name in sorted(databases)}, rows


def _column(name: str, declared: str, rest: str) -> Column:
    found, extra = _DEFAULT.search(rest), "auto_increment" if "AUTO_INCREMENT" in rest else ""
    default = (found[2] if found[1] is None else found[1]) if found else None
    if default == "CURRENT_TIMESTAMP":
        extra = "DEFAULT_GENERATED" + (
            " on update CURRENT_TIMESTAMP" if "ON UPDATE" in rest else ""
        )
    return Column(
        name,
        declared_type(declared),
        declared,
        "NO" if "NOT NULL" in rest else "YES",
        default,
        extra,
    )


def open_store(dump: Path, cache: Path | None = None) -> tuple[Catalogue, sqlite3.Connection]:
    """The catalogue of a dump, and a connection to its data that cannot write.

    `cache`: a folder for the built file (None: $RRO_CACHE, or rro in the user's cache folder).
    Where nothing can be written there, the data are built anew in memory. Raises DataError for a
    file that is no dump."""
    try:
        text = dump.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{dump} cannot be read as a MySQL dump: {error}") from None
    catalogue, rows = read_dump(text, str(dump))
    digest = hashlib.sha256(text.encode()).hexdigest()[:20]
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rro"
    file = (
        cache or Path(os.environ.get("RRO_CACHE") or home)
    ) / f"intercode-sql-{digest}-v{FORMAT}.sqlite"
    try:
        if not file.exists():
            _build_file(file, catalogue, rows)
        uri = f"{file.absolute().as_uri()}?mode=ro&immutable=1"
        connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        connection.execute("SELECT count(*) FROM sqlite_master")
    except (OSError, sqlite3.Error):
        connection = sqlite3.connect(":memory:", check_same_thread=False)
        _build(connection, catalogue, rows)
    return catalogue, connection


def _build_file(file: Path, catalogue: Catalogue, rows: Rows) -> None:
    """Build beside the place and move there, so that the file is whole or absent, whoever else
    builds it meanwhile."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{file.stem}-", dir=file.parent) as scratch:
        with closing(sqlite3.connect(Path(scratch) / file.name)) as connection:
            _build(connection, catalogue, rows)
        os.replace(Path(scratch) / file.name, file)


def _build(connection: sqlite3.Connection, catalogue: Catalogue, rows: Rows) -> None:
    """Fill every table as it is declared, then the stored one from it, with row numbers and
    keys."""
    connection.isolation_level = None
    connection.create_function("key", 1, lambda text: None if text is None else key(text))
    connection.create_function(
        "single", 1, lambda x: None if x is None else struct.unpack("f", struct.pack("f", x))[0]
    )
    connection.execute("BEGIN")
    tables = [table for database in catalogue.values() for table in database.values()]
    for table in tables:
        declared = ", ".join(
            f'"{column.name}" {_affinity(column)}' for column in table.columns.values()
        )
        connection.execute(f"CREATE TEMP TABLE {table.stored_as} ({declared})")
    for table, values in rows:
        try:
            connection.execute(f"INSERT INTO temp.{table.stored_as} {values}")
        except sqlite3.Error as error:
            raise DataError(
                f"the dump's rows of {table.database}.{table.name} do not fit: {error}"
            ) from None
    for table in tables:
        _store(connection, table)
    connection.execute("COMMIT")


def _store(connection: sqlite3.Connection, table: Table) -> None:
    keys = {
        name: f'key("{name}")' if column.type == TEXT else f'"{name}"'
        for name, column in table.columns.items()
    }
    primary = [keys[name] for name in table.indexes.get("#", ())] or ["rowid"]
    columns = [('"#" INTEGER PRIMARY KEY', f"row_number() OVER (ORDER BY {', '.join(primary)})")]
    for number, names in table.indexes.items():
        order = ", ".join([keys[name] for name in names] + primary)
        columns += (
            [(f'"{number}" INTEGER', f"row_number() OVER (ORDER BY {order})")]
            if number != "#"
            else []
        )
    for name, column in table.columns.items():
        value = f'single("{name}")' if column.type.kind == "float" else f'"{name}"'
        columns.append((f'"{column.name}" {_affinity(column)}', value))
        columns += [(f'"{column.name}#" TEXT', keys[name])] if column.type == TEXT else []
    connection.execute(
        f"CREATE TABLE main.{table.stored_as} ({', '.join(name for name, _ in columns)})"
    )
    values = ", ".join(value for _, value in columns)
    connection.execute(
        f"INSERT INTO main.{table.stored_as} SELECT {values} FROM temp.{table.stored_as}"
    )
    for number, names in table.indexes.items():
        indexed = ", ".join(
            f'"{name}#"' if table.columns[name].type == TEXT else f'"{name}"' for name in names
        )
        connection.execute(
            f'CREATE INDEX "{table.database}.{table.name}{number}" ON {table.stored_as} ({indexed})'
        )


def _affinity(column: Column) -> str:
    return {"int": "INTEGER", "decimal": "REAL", "float": "REAL", "double": "REAL"}.get(
        column.type.kind, "TEXT"
    )
