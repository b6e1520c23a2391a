"""What the databases hold, as MySQL declares it; read from the dump that mysqldump wrote, a column or an INSERT a line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from rro.errors import DataError


class Type(NamedTuple):
    """A class of values that MySQL's rules tell apart: int, decimal, float (single precision), double, text, bytes (a text
    compared as such), date, datetime, null. `scale`: digits after the point that a number has, None for as many as needed."""

    kind: str
    scale: int | None = None

    @property
    def exact(self) -> bool:
        return self.kind in ("int", "decimal")

    @property
    def numeric(self) -> bool:
        return self.kind in ("int", "decimal", "float", "double")

    @property
    def temporal(self) -> bool:
        return self.kind in ("date", "datetime")


INT, DOUBLE, TEXT, BYTES = Type("int", 0), Type("double"), Type("text"), Type("bytes")
DATE, DATETIME, NULL = Type("date"), Type("datetime"), Type("null")
_KINDS = {"double": "double", "float": "float", "decimal": "decimal", "date": "date"}
_KINDS |= {"datetime": "datetime", "timestamp": "datetime", "year": "int"}


def declared_type(declared: str) -> Type:
    """The type of a column declared as e.g. "float(10,2)"; what is not known is text."""
    name, _, sizes = declared.partition("(")
    kind = "int" if name.endswith("int") else _KINDS.get(name, "text")
    if "," in sizes and kind in ("decimal", "float", "double"):
        return Type(kind, int(sizes.rstrip(")").split(",")[1]))
    return Type(kind, 0 if kind in ("int", "decimal") else None)


@dataclass
class Column:
    """A column; `declared` and what follows are as DESCRIBE shows them."""

    name: str
    type: Type
    declared: str
    null: str
    key: str
    default: str | None
    extra: str


class Index(NamedTuple):
    """`columns` are in lower case; `order` is the stored column that numbers the rows in the index's order."""

    columns: tuple[str, ...]
    unique: bool
    order: str


@dataclass
class Table:
    """`name` and the names of `columns` are in lower case. The primary key is the index whose order is "#"."""

    database: str
    name: str
    columns: dict[str, Column] = field(default_factory=dict)
    indexes: list[Index] = field(default_factory=list)
    rows: int = 0

    @property
    def stored_as(self) -> str:
        """Its name in the one SQLite file that holds all databases."""
        return f'"{self.database}.{self.name}"'

    @property
    def primary(self) -> tuple[str, ...]:
        return next((index.columns for index in self.indexes if index.order == "#"), ())


Catalogue = Mapping[str, Mapping[str, Table]]  # by database and name, in lower case and sorted

_USE = re.compile(r"(?:USE|CREATE DATABASE(?:\s+IF NOT EXISTS)?)\s+`([^`\"]+)`")
_CREATE = re.compile(r"CREATE TABLE `([^`\"]+)` \(")
_COLUMN = re.compile(r"\s+`([^`\"]+)` ([a-z]+(?:\([^)]*\))?)(.*?),?$")
_KEY = re.compile(r"\s+(PRIMARY KEY|UNIQUE KEY|KEY)(?: `[^`]+`)? \((.*)\)")
_DEFAULT = re.compile(r"DEFAULT (?!NULL)(?:'((?:[^']|'')*)'|(\S+?)(?:,|\s|$))")
_INSERT = re.compile(r"INSERT INTO `([^`]+)` (VALUES .*);$")
_ESCAPES = {"'": "''", "n": "\n", "t": "\t", "r": "\r", "0": "\ufffd"}


def read_dump(dump: str, source: str) -> tuple[Catalogue, list[tuple[Table, str]]]:
    """The tables that a dump creates, and their rows: for each INSERT the table, and VALUES in SQLite's SQL.

    Raises DataError, which names `source`, for a text that is no such dump."""
    databases: dict[str, dict[str, Table]] = {}
    rows: list[tuple[Table, str]] = []
    database, table = "", Table("", "")
    for line in dump.splitlines():
        if match := _USE.match(line):
            database = match[1].lower()
            databases.setdefault(database, {})
        elif match := _CREATE.match(line):
            table = databases.setdefault(database, {})[match[1].lower()] = Table(database, match[1].lower())
        elif match := _INSERT.match(line):
            if match[1].lower() not in databases.get(database, {}):
                raise DataError(f"{source}: rows for the table {match[1]}, which it does not create")
            values = re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), match[2])
            rows.append((databases[database][match[1].lower()], values))
        elif match := _COLUMN.match(line):
            table.columns[match[1].lower()] = _column(*match.groups())
        elif match := _KEY.match(line):
            _add_index(table, match[1], tuple(re.findall(r"`([^`]+)`", match[2].lower())))
    if not any(databases.values()):
        raise DataError(f"{source}: not a dump of MySQL databases: no CREATE TABLE in it")
    return {name: dict(sorted(databases[name].items())) for name in sorted(databases)}, rows


def _column(name: str, declared: str, rest: str) -> Column:
    found, extra = _DEFAULT.search(rest), "auto_increment" if "AUTO_INCREMENT" in rest else ""
    default = found[1] if found and found[1] is not None else found and found[2]
    if default == "CURRENT_TIMESTAMP":
        extra = "DEFAULT_GENERATED" + (" on update CURRENT_TIMESTAMP" if "ON UPDATE" in rest else "")
    return Column(name, declared_type(declared), declared, "NO" if "NOT NULL" in rest else "YES", "", default, extra)


def _add_index(table: Table, kind: str, columns: tuple[str, ...]) -> None:
    """Note an index, and mark its columns as DESCRIBE does: PRI before UNI before MUL, of several only the first."""
    primary = kind == "PRIMARY KEY"
    table.indexes.append(Index(columns, kind != "KEY", "#" if primary else f"#{len(table.indexes) + 1}"))
    for name in columns if primary else columns[:1]:
        mark = "PRI" if primary else "UNI" if kind == "UNIQUE KEY" and len(columns) == 1 else "MUL"
        table.columns[name].key = table.columns[name].key or mark
