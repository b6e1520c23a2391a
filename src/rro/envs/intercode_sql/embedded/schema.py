"""What the databases hold, as MySQL declares it: types, columns, tables. No data and no SQL engine here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property


class Kind(StrEnum):
    """The classes of values that MySQL's rules of comparison, arithmetic and rendering tell apart."""

    INT = "int"
    DECIMAL = "decimal"
    FLOAT = "float"  # single precision
    DOUBLE = "double"
    TEXT = "text"
    BYTES = "bytes"  # text that compares byte by byte
    DATE = "date"
    DATETIME = "datetime"
    TIME = "time"
    NULL = "null"


NUMERIC = frozenset({Kind.INT, Kind.DECIMAL, Kind.FLOAT, Kind.DOUBLE})
TEMPORAL = frozenset({Kind.DATE, Kind.DATETIME, Kind.TIME})


@dataclass(frozen=True, slots=True)
class Type:
    """`scale`: digits after the point that a number is shown with; None: as many as it needs."""

    kind: Kind
    scale: int | None = None

    @property
    def numeric(self) -> bool:
        return self.kind in NUMERIC

    @property
    def temporal(self) -> bool:
        return self.kind in TEMPORAL


_KINDS = {
    Kind.INT: ("tinyint", "smallint", "mediumint", "int", "integer", "bigint", "year", "bit", "bool", "boolean"),
    Kind.DECIMAL: ("decimal", "numeric", "dec", "fixed"),
    Kind.FLOAT: ("float",),
    Kind.DOUBLE: ("double", "real"),
    Kind.DATE: ("date",),
    Kind.DATETIME: ("datetime", "timestamp"),
    Kind.TIME: ("time",),
    Kind.BYTES: ("binary", "varbinary", "blob", "tinyblob", "mediumblob", "longblob"),
}
_KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names}
_DECLARED = re.compile(r"(\w+)(?:\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\))?")


def declared_type(declared: str) -> Type:
    """The type of a column declared as e.g. "float(10,2)"; what is unknown is text."""
    match = _DECLARED.match(declared.lower())
    if match is None:
        return Type(Kind.TEXT)
    kind = _KIND_OF.get(match[1], Kind.TEXT)
    if kind is Kind.DECIMAL:
        return Type(kind, int(match[3] or 0))
    return Type(kind, int(match[3]) if match[3] and kind in NUMERIC else None)


@dataclass(frozen=True)
class Column:
    """`declared`, `key`, `default` and `extra` are as DESCRIBE shows them."""

    name: str
    type: Type
    declared: str
    nullable: bool = True
    key: str = ""
    default: str | None = None
    extra: str = ""

    @property
    def width(self) -> int:
        """Bytes that a value takes at most within an index."""
        size = _DECLARED.match(self.declared)
        if self.type.kind in (Kind.TEXT, Kind.BYTES):
            return 4 * int((size and size[2]) or 255) + 2 + self.nullable
        return {Kind.DOUBLE: 8, Kind.DATE: 3, Kind.DATETIME: 5}.get(self.type.kind, 4) + self.nullable


@dataclass(frozen=True)
class Index:
    """`parts` are its columns, in lower case; `numbers` the stored column that numbers the table's rows in its order."""

    parts: tuple[str, ...]
    unique: bool
    primary: bool
    numbers: str


@dataclass(frozen=True)
class Table:
    """`name` is in lower case: the server runs with lower_case_table_names = 1. The primary key is the first index."""

    database: str
    name: str
    columns: tuple[Column, ...]
    indexes: tuple[Index, ...] = ()
    rows: int = 0

    @property
    def stored_as(self) -> str:
        """Its name in the SQLite file that holds all databases."""
        return f"{self.database}.{self.name}"

    @cached_property
    def primary(self) -> Index | None:
        return next((index for index in self.indexes if index.primary), None)

    @cached_property
    def by_name(self) -> Mapping[str, Column]:
        return {column.name.lower(): column for column in self.columns}


@dataclass(frozen=True)
class Catalogue:
    """All databases of a server: tables in SHOW TABLES' order, by database, names in lower case. `statistics`: how many rows
    have the same value in the first, the first two ... columns of an index, by (table as stored, numbers of the index)."""

    databases: Mapping[str, Mapping[str, Table]]
    statistics: Mapping[tuple[str, str], tuple[float, ...]] = field(default_factory=dict)

    def table(self, database: str, name: str) -> Table | None:
        return self.databases.get(database.lower(), {}).get(name.lower())
