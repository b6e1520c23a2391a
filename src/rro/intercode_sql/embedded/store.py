"""The databases as one SQLite file, built from the MySQL dump on first use and kept in the user's
cache folder.

The table `city` of the database `world_1` is stored as "world_1.city". Its column "#" numbers the
rows by the primary key, which is the order in which MySQL reads them, and "#2" by the second index;
"Name#" has the keys by which the text column `Name` is compared. Knows nothing of statements.
"""

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

from rro.errors import DataError, reason_of
from rro.intercode_sql.embedded.functions import key

# Version of the file's format: raise it with any change to what is stored.
FORMAT = 3


class Type(NamedTuple):
    """A type as far as MySQL's rules distinguish them.

    `kind` is int, unsigned, decimal, float (single precision), double, text, bytes, collated (text
    with a binary collation), date, datetime, time or null. `scale`
    is the number of digits after the point of a displayed number, None for as many as it needs.
    """

    kind: str
    scale: int | None = None

    @property
    def exact(self) -> bool:
        """Whether it is an exact number."""
        return self.kind in ("int", "decimal", "unsigned")


INT, DOUBLE, TEXT, NULL = Type("int", 0), Type("double"), Type("text"), Type("null")
DATE, DATETIME, TIME = Type("date"), Type("datetime"), Type("time")
# 64 bits, in SQLite with sign; texts that are compared byte by byte.
UNSIGNED, BYTES, COLLATED = Type("unsigned", 0), Type("bytes"), Type("collated")


def number(exact: bool, scale: int | None) -> Type:
    """The type of a number. Exact ones without digits after the point are integers."""
    if not exact:
        return Type("double", scale)
    return Type("decimal", min(scale, 30)) if scale else INT


def common_type(types: Iterable[Type]) -> Type:
    """The type that can hold values of all `types`: that of CASE, COALESCE, UNION, arithmetic."""
    kinds = {kind for kind in types if kind != NULL}
    if len(kinds) <= 1:
        return kinds.pop() if kinds else NULL
    if kinds == {DATE, DATETIME}:
        return DATETIME
    if kinds & {TEXT, BYTES, COLLATED, DATE, DATETIME, TIME}:
        return TEXT
    scales = [kind.scale for kind in kinds if kind.scale is not None]
    scale = max(scales) if len(scales) == len(kinds) else None
    if all(kind.exact for kind in kinds):
        return Type("decimal", scale) if any(kind.kind == "decimal" for kind in kinds) else INT
    return number(False, scale)


class Column(NamedTuple):
    """A column of a table. `declared`, `null`, `default` and `extra` are as DESCRIBE shows them."""

    name: str
    type: Type
    declared: str
    null: str
    default: str | None
    extra: str


@dataclass(eq=False)
class Table:
    """A table of a database."""

    database: str
    name: str
    """Its name in lower case."""
    columns: dict[str, Column] = field(default_factory=dict)
    """Its columns, by name in lower case."""
    indexes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The columns of each index, by the stored column that numbers the rows in its order; "#" is
    the primary key's."""
    unique: list[tuple[str, ...]] = field(default_factory=list)
    """The columns of each unique index."""
    keys: dict[str, str] = field(default_factory=dict)
    """The name of each index, by its stored column."""
    rows: int = 0
    """Number of rows."""
    created: str = ""
    """The statement that SHOW CREATE TABLE shows."""

    @property
    def stored_as(self) -> str:
        """Its quoted name in SQLite."""
        return f'"{self.database}.{self.name}"'


# Tables by database and name, in lower case and sorted.
Catalogue = Mapping[str, Mapping[str, Table]]
# The rows of each INSERT: its VALUES in SQLite's SQL.
Rows = list[tuple[Table, str]]

_USE = re.compile(r"(?:USE|CREATE DATABASE(?:\s+IF NOT EXISTS)?)\s+`([^`\"]+)`")
_CREATE = re.compile(r"CREATE TABLE `([^`\"]+)` \(")
_COLUMN = re.compile(r"\s+`([^`\"]+)` ([a-z]+(?:\([^)]*\))?)(.*?),?$")
_KEY = re.compile(r"\s+(PRIMARY|UNIQUE)?(?: ?KEY)(?: `([^`]+)`)? \((.*)\)")
_COLLATED = re.compile(r"(?<! utf8mb4) COLLATE (utf8mb4_\w+)")
_REFERENCE = re.compile(r"REFERENCES (`[^`]+`)")
_DEFAULT = re.compile(r"DEFAULT (?!NULL)(?:'((?:[^']|'')*)'|(\S+))")
_INSERT = re.compile(r"INSERT INTO `([^`]+)` (VALUES .*);$")
_ESCAPES = {"'": "''", "n": "\n", "t": "\t", "r": "\r", "0": "\ufffd"}


def declared_type(declared: str) -> Type:
    """The type of a column that is declared as e.g. "float(10,2)". Unknown types are text."""
    name, _, sizes = declared.partition("(")
    kind = "int" if name.endswith("int") else name.replace("timestamp", "datetime")
    if kind in ("decimal", "float", "double") and "," in sizes:
        return Type(kind, int(sizes.rstrip(")").split(",")[1]))
    if kind in ("int", "decimal"):
        return Type(kind, 0)
    return Type(kind) if kind in ("float", "double", "date", "datetime") else TEXT


def read_dump(dump: str, source: str) -> tuple[Catalogue, Rows]:
    """The tables of a dump written by mysqldump, and their rows. Raises DataError that begins with
    `source` if the text is no such dump."""
    databases: dict[str, dict[str, Table]] = {}
    rows: Rows = []
    database, table, inside = "", Table("", ""), False
    for line in dump.splitlines():
        if inside:
            table.created += f"\n{_shown(line)}"
            inside = not line.startswith(")")
        if match := _USE.match(line):
            database = match[1].lower()
            databases.setdefault(database, {})
        elif match := _CREATE.match(line):
            table, inside = Table(database, match[1].lower()), True
            table.created = f"CREATE TABLE `{table.name}` ("
            databases.setdefault(database, {})[table.name] = table
        elif match := _INSERT.match(line):
            into = databases.get(database, {}).get(match[1].lower())
            if into is None:
                raise DataError(
                    f"{source}: rows for the table {match[1]}, which it does not create"
                )
            into.rows += match[2].count("),(") + 1
            rows.append((into, _unescaped(match[2])))
        elif match := _COLUMN.match(line):
            table.columns[match[1].lower()] = _column(*match.groups())
        elif match := _KEY.match(line):
            columns = tuple(re.findall(r"`([^`]+)`", match[3].lower()))
            order = "#" if match[1] == "PRIMARY" else f"#{len(table.indexes) + 1}"
            table.indexes[order], table.keys[order] = columns, match[2] or "PRIMARY"
            table.unique += [columns] if match[1] else []
    if not any(databases.values()):
        raise DataError(f"{source}: not a dump of MySQL databases: no CREATE TABLE in it")
    return {name: dict(sorted(databases[name].items())) for name in sorted(databases)}, rows


def _shown(line: str) -> str:
    """A line of CREATE TABLE as SHOW CREATE TABLE has it."""
    if line.startswith(")"):
        return line.rstrip(";")
    line = _COLLATED.sub(r" CHARACTER SET utf8mb4 COLLATE \1", line)
    return _REFERENCE.sub(lambda match: f"REFERENCES {match[1].lower()}", line)


def _unescaped(values: str) -> str:
    """MySQL's escapes replaced by what SQLite's SQL has for them."""
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), values)


def _column(name: str, declared: str, rest: str) -> Column:
    match, extra = _DEFAULT.search(rest), "auto_increment" if "AUTO_INCREMENT" in rest else ""
    default = (match[2] if match[1] is None else match[1]) if match else None
    if default == "CURRENT_TIMESTAMP":
        update = " on update CURRENT_TIMESTAMP" if "ON UPDATE" in rest else ""
        extra = f"DEFAULT_GENERATED{update}"
    null = "NO" if "NOT NULL" in rest else "YES"
    return Column(name, declared_type(declared), declared, null, default, extra)


def open_store(dump: Path, cache: Path | None = None) -> tuple[Catalogue, sqlite3.Connection]:
    """The catalogue of a dump, and a connection to its data.

    `cache` is the folder for the built file (default: $RRO_CACHE, or rro in the user's cache
    folder). If it cannot be written, the data are built in memory. Raises DataError if the file is
    not a dump.
    """
    try:
        text = dump.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{dump} cannot be read as a MySQL dump: {reason_of(error)}") from None
    catalogue, rows = read_dump(text, str(dump))
    digest = hashlib.sha256(text.encode()).hexdigest()[:20]
    file = cache_folder(cache) / f"intercode-sql-{digest}-v{FORMAT}.sqlite"
    try:
        if not file.exists():
            _build_file(file, catalogue, rows)
        uri = f"{file.absolute().as_uri()}?mode=ro&immutable=1"
        connection = sqlite3.connect(uri, uri=True, check_same_thread=False, cached_statements=0)
        connection.execute("SELECT count(*) FROM sqlite_master")
    except (OSError, sqlite3.Error):
        connection = sqlite3.connect(":memory:", check_same_thread=False, cached_statements=0)
        _build(connection, catalogue, rows)
    return catalogue, connection


def cache_folder(cache: Path | None) -> Path:
    """The folder for what is built on first use, if `cache` names no other."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rro"
    return cache or Path(os.environ.get("RRO_CACHE") or home)


def _build_file(file: Path, catalogue: Catalogue, rows: Rows) -> None:
    """Build the file beside its place and move it there, so that it is complete or absent even if
    several processes build it at once."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{file.stem}-", dir=file.parent) as scratch:
        with closing(sqlite3.connect(Path(scratch) / file.name)) as connection:
            _build(connection, catalogue, rows)
        os.replace(Path(scratch) / file.name, file)


def _build(connection: sqlite3.Connection, catalogue: Catalogue, rows: Rows) -> None:
    """Fill each table as declared, then the stored one from it, with row numbers and keys."""
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
                f"the dump's rows of {table.database}.{table.name} cannot be stored: {error}"
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
        if number != "#":
            columns.append((f'"{number}" INTEGER', f"row_number() OVER (ORDER BY {order})"))
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
