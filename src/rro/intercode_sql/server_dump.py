"""Loads the benchmark's dump into a MySQL or MariaDB server. Needs PyMySQL."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from rro.errors import DataError, RroError, reason_of
from rro.intercode_sql.server import connect, parse_url

_TABLE = re.compile(r"(?:CREATE TABLE|INSERT INTO|REFERENCES|^USE) `[^`]+`")


def load_dump(url: str, dump: Path) -> int:
    """Load the databases of a dump into a server; returns the number of tables filled.

    The dump's accounts and rights are left out. Raises DataError if the dump cannot be read,
    RroError if the server cannot be reached or refuses a statement.
    """
    import pymysql

    try:
        text = dump.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{dump} cannot be read as a MySQL dump: {reason_of(error)}") from None
    address = parse_url(url)
    connection = connect(address)
    try:
        loaded = 0
        with connection.cursor() as cursor:
            cursor.execute("SET foreign_key_checks = 0")
            for statement in _statements(text):
                cursor.execute(statement)
                loaded += statement.startswith("INSERT")
        return loaded
    except pymysql.MySQLError as error:
        raise RroError(f"{address!r} refused the dump: {error.args[-1]}") from None
    finally:
        connection.close()


def _statements(text: str) -> Iterator[str]:
    """The dump's statements that create and fill databases and tables, names in lower case."""
    for statement in _split(text):
        if statement.startswith("CREATE DATABASE"):
            # Without its options, which depend on the server's version.
            name = re.sub(r"/\*!\d+ .*?\*/", "", statement).lower()
            yield f"{name} DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"
        elif created := re.match(r"CREATE TABLE (`[^`]+`)", statement):
            yield f"DROP TABLE IF EXISTS {created[1].lower()}"
            yield _TABLE.sub(_lower_name, statement)
        elif statement.startswith(("USE", "INSERT")):
            yield _TABLE.sub(_lower_name, statement, count=1)


def _split(text: str) -> Iterator[str]:
    """The statements of a dump. mysqldump ends each at the end of a line."""
    lines: list[str] = []
    for line in text.splitlines():
        if not lines and (not line.strip() or line.startswith(("--", "/*"))):
            continue
        lines.append(line)
        if line.rstrip().endswith(";"):
            yield "\n".join(lines).rstrip("; ")
            lines = []


def _lower_name(match: re.Match[str]) -> str:
    words, quote, name = match[0].partition("`")
    return words + quote + name.lower()
