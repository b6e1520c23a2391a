"""Reads a MySQL dump as mysqldump writes it: one INSERT a line, one column a line."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime

from rro.envs.intercode_sql.embedded.schema import Catalogue, Column, Index, Kind, Table, Type, declared_type
from rro.errors import DataError

Value = int | float | str | None

_USE = re.compile(r"USE `([^`]+)`;")
_CREATE_DATABASE = re.compile(r"CREATE DATABASE\s+(?:IF NOT EXISTS )?`([^`]+)`")
_CREATE = re.compile(r"CREATE TABLE `([^`]+)` \(")
_COLUMN = re.compile(r"\s+`([^`]+)` ([a-z]+(?:\([^)]*\))?)(.*?),?$")
_KEY = re.compile(r"\s+(PRIMARY KEY|UNIQUE KEY|KEY)(?: `[^`]+`)? \((.*)\)")
_KEY_PART = re.compile(r"`([^`]+)`")
_DEFAULT = re.compile(r"DEFAULT (?:'((?:[^']|'')*)'|(\S+))")
_INSERT = re.compile(r"INSERT INTO `([^`]+)` VALUES ")
_VALUE = re.compile(r"'((?:[^'\\]|\\.|'')*)'|(NULL)|(-?[0-9][0-9.eE+-]*)|([()])")
_ESCAPE = re.compile(r"\\(.)|''", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "Z": "\x1a", "b": "\b"}


def read_schema(dump: str, source: str) -> Catalogue:
    """The tables that a dump creates. Raises DataError where it creates none."""
    databases: dict[str, dict[str, Table]] = {}
    database, lines = "", iter(dump.splitlines())
    for line in lines:
        if match := _USE.match(line) or _CREATE_DATABASE.match(line):
            database = match[1].lower()
            databases.setdefault(database, {})
        elif match := _CREATE.match(line):
            table = _table(database, match[1].lower(), lines)
            databases.setdefault(database, {})[table.name] = table
        elif match := _INSERT.match(line):
            name = match[1].lower()
            if name not in databases.get(database, {}):
                raise DataError(f"{source}: rows for the table {match[1]}, which it does not create")
            table = databases[database][name]
            databases[database][name] = replace(table, rows=table.rows + line.count("),(") + 1)
    if not any(databases.values()):
        raise DataError(f"{source}: not a dump of MySQL databases: no CREATE TABLE in it")
    return Catalogue({name: dict(sorted(tables.items())) for name, tables in sorted(databases.items())})


def _table(database: str, name: str, lines: Iterator[str]) -> Table:
    columns: list[Column] = []
    indexes: list[Index] = []
    for line in lines:
        if line.startswith(")"):
            break
        if match := _COLUMN.match(line):
            columns.append(_column(match[1], match[2], match[3]))
        elif match := _KEY.match(line):
            parts = tuple(part.lower() for part in _KEY_PART.findall(match[2]))
            primary = match[1] == "PRIMARY KEY"
            numbers = "#" if primary else f"#{len(indexes) + 1}"
            indexes.append(Index(parts, match[1] != "KEY", primary, numbers))
            columns = [_with_key(column, match[1], parts) for column in columns]
    return Table(database, name, tuple(columns), tuple(indexes))


def _column(name: str, declared: str, rest: str) -> Column:
    default = _DEFAULT.search(rest)
    value, extra = None, "auto_increment" if "AUTO_INCREMENT" in rest else ""
    if default and default[2] != "NULL":
        value = default[1] if default[1] is not None else default[2]
    if default and default[2] == "CURRENT_TIMESTAMP":
        extra = "DEFAULT_GENERATED" + (" on update CURRENT_TIMESTAMP" if "ON UPDATE" in rest else "")
    return Column(name, declared_type(declared), declared, "NOT NULL" not in rest, "", value, extra)


def _with_key(column: Column, kind: str, parts: tuple[str, ...]) -> Column:
    """The Key column of DESCRIBE: PRI over UNI over MUL; only the first column of other indexes of several is marked."""
    name = column.name.lower()
    if kind == "PRIMARY KEY" and name in parts:
        return replace(column, key="PRI")
    if column.key or name != parts[0]:
        return column
    return replace(column, key="UNI" if kind == "UNIQUE KEY" and len(parts) == 1 else "MUL")


def read_rows(dump: str) -> Iterator[tuple[str, str, list[tuple[Value, ...]]]]:
    """(database, table, rows) of each INSERT, in the dump's order; numbers as they are, the rest as text."""
    database = ""
    for line in dump.splitlines():
        if match := _USE.match(line):
            database = match[1].lower()
        elif match := _INSERT.match(line):
            yield database, match[1].lower(), list(_rows(line[match.end() :]))


def _rows(values: str) -> Iterator[tuple[Value, ...]]:
    row: list[Value] = []
    for match in _VALUE.finditer(values):
        text, null, number, parenthesis = match.groups()
        if parenthesis == ")":
            yield tuple(row)
            row = []
        elif text is not None:
            row.append(_ESCAPE.sub(lambda found: _ESCAPES.get(found[1], found[1]) if found[1] else "'", text))
        elif null:
            row.append(None)
        elif number:
            row.append(float(number) if any(mark in number for mark in ".eE") else int(number))


def stored(value: Value, kind: Type) -> Value:
    """A value as the engine keeps it: FLOAT rounded to single precision, dates as MySQL writes them out."""
    if value is None:
        return None
    match kind.kind:
        case Kind.FLOAT:
            return float(struct.unpack("f", struct.pack("f", float(value)))[0])
        case Kind.DOUBLE | Kind.DECIMAL:
            return float(value)
        case Kind.INT:
            return int(value)
        case Kind.DATE:
            return str(value) if str(value).startswith("0000") else date.fromisoformat(str(value)).isoformat()
        case Kind.DATETIME:
            return str(value) if str(value).startswith("0000") else datetime.fromisoformat(str(value)).isoformat(" ")
    return str(value)
