"""A MySQL or MariaDB server as the engine, and loading the dump into one. Needs PyMySQL.

Episodes share the server, so no statement may affect another episode: statements run in read-only
transactions, those that write are not sent at all, and a connection whose session may have changed
is closed. Knows nothing of tasks or rewards.
"""

from __future__ import annotations

import os
import queue
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from rro.errors import DataError, RroError, UsageError
from rro.intercode_sql.engine import (
    EMPTY,
    INTERRUPTED,
    MAX_CHARACTERS,
    MAX_LENGTH,
    MAX_ROWS,
    READ_ONLY,
    TOO_LONG,
    WRITES,
    Cache,
    Result,
    cleaned,
    too_many_rows,
)

PASSWORD_VARIABLE = "RRO_SQL_PASSWORD"
# Seconds for one statement.
STATEMENT_SECONDS = 5.0
MAX_CONNECTIONS = 8
_URL_FORM = "a server's URL must be mysql://user@host:port"
_FIRST_WORD = re.compile(
    r"(?:\s+|--[ \t\n][^\n]*(?:\n|$)|#[^\n]*(?:\n|$)|/\*(?![!M]).*?\*/)*(\w+)", re.DOTALL
)
# A comment that the server executes.
_EXECUTED_COMMENT = re.compile(r"/\*M?!")
_TABLE = re.compile(r"(?:CREATE TABLE|INSERT INTO|REFERENCES|^USE) `[^`]+`")
_NAMES = re.compile(r"""(?P<text>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*")|[^'"]+|.""", re.DOTALL)
_CHANGES_SESSION = re.compile(
    r"@|\b(?:get_lock|into|for\s+update|lock\s+in|last_insert_id|sleep)\b", re.IGNORECASE
)
_WRITE_RIGHTS = {
    *("ALL", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "INDEX", "TRIGGER", "EVENT"),
    *("REFERENCES", "SUPER", "FILE", "GRANT"),
}


@dataclass(frozen=True)
class Address:
    """A server and an account. As text it does not show the password."""

    host: str
    port: int
    user: str
    password: str

    def __repr__(self) -> str:
        return f"mysql://{self.user}@{self.host}:{self.port}"


def has_password(url: str) -> bool:
    """Whether a URL contains a password."""
    return bool(urlsplit(url).password)


def parse_url(url: str) -> Address:
    """Parse mysql://user@host:port or mysql://user:password@host:port. The default port is 3306,
    the default password that of $RRO_SQL_PASSWORD.

    Raises UsageError for anything else, without repeating the password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 3306
    except ValueError:
        raise UsageError(_URL_FORM) from None
    if parts.scheme not in ("mysql", "mariadb") or not parts.hostname or not parts.username:
        raise UsageError(_URL_FORM)
    password = unquote(parts.password) if parts.password else os.environ.get(PASSWORD_VARIABLE, "")
    return Address(parts.hostname, port, unquote(parts.username), password)


@dataclass
class _Lease:
    """A connection lent for one statement. It is closed afterwards unless `reusable`."""

    connection: Any
    reusable: bool


class ServerEngine:
    """Runs statements on a server, over at most 8 connections. Safe to share between threads.

    `seconds` and `rows` limit each statement. Raises UsageError if the URL is none, if PyMySQL is
    not installed, or if the account may write and `allow_writer` is not set; RroError if the server
    cannot be reached.
    """

    blocking = True

    def __init__(
        self,
        url: str,
        allow_writer: bool = False,
        seconds: float = STATEMENT_SECONDS,
        rows: int = MAX_ROWS,
    ) -> None:
        self._address = parse_url(url)
        self._seconds, self._rows = seconds, rows
        self._idle: queue.LifoQueue[Any] = queue.LifoQueue()
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self.cache = Cache()
        with self._lease() as lease:
            settings = _ask(lease.connection, "SELECT version(), @@lower_case_table_names = 0")
            grants = _ask(lease.connection, "SHOW GRANTS")
        version, case_sensitive = settings[0]
        self._case_sensitive = bool(case_sensitive)
        self.name = f"{'mariadb' if 'mariadb' in version.lower() else 'mysql'} {version}"
        if not allow_writer and any(map(_may_write, grants)):
            raise UsageError(
                f"the account of {self._address!r} may write: use one with SELECT alone, or set "
                "the option allow_writer = true (transactions are read-only either way)"
            )

    def execute(self, database: str, sql: str) -> Result:
        """Run one statement with `database` in use. Raises RroError if the connection is lost; an
        error of the statement is a result."""
        sql = cleaned(sql)
        result = self.cache.get((database, sql))
        if result is None:
            result = self._run(database, sql)
            # Next time the server may be less busy.
            if result.error != INTERRUPTED:
                self.cache.put((database, sql), result)
        return result

    def close(self) -> None:
        """Close the idle connections."""
        with suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def _run(self, database: str, sql: str) -> Result:
        word = _FIRST_WORD.match(sql)
        if _EXECUTED_COMMENT.search(sql) or (word is not None and word[1].upper() in WRITES):
            return Result(database, error=READ_ONLY)
        if not sql or len(sql) > MAX_LENGTH:
            return Result(database, error=TOO_LONG if sql else EMPTY)
        with self._lease(reusable=not _CHANGES_SESSION.search(sql)) as lease:
            return self._answer(lease, database, sql)

    def _answer(self, lease: _Lease, database: str, sql: str) -> Result:
        import pymysql  # type: ignore[import-untyped,unused-ignore]

        try:
            if database:
                lease.connection.select_db(database)
            with lease.connection.cursor(pymysql.cursors.SSCursor) as cursor:
                statement = sql.encode("utf-8", "replace").decode()
                cursor.execute(in_lower_case(statement) if self._case_sensitive else statement)
                rows = self._fetch(cursor, lease) if cursor.description else None
        except pymysql.MySQLError as error:
            return Result(database, error=self._message(error, lease))
        if rows is not None and len(rows) > self._rows:
            return Result(database, error=too_many_rows(self._rows))
        current = _ask(lease.connection, "SELECT database()")[0][0] or ""
        return Result(current.lower(), None if rows is None else tuple(rows))

    def _message(self, error: Exception, lease: _Lease) -> str:
        """The message of a statement's error. Raises RroError if the connection is lost."""
        import pymysql

        code, message = (*error.args, 0, "")[:2]
        if isinstance(error, pymysql.OperationalError) and code in (2006, 2013):
            lease.reusable = False
            raise RroError(f"the connection to {self._address!r} was lost: {message}") from None
        return INTERRUPTED if code in (1969, 3024, 1317) else str(message)

    def _fetch(self, cursor: Any, lease: _Lease) -> list[tuple[Any, ...]]:
        """The rows; too many of them if the result exceeds a limit."""
        rows: list[tuple[Any, ...]] = []
        size = 0
        while batch := cursor.fetchmany(1000):
            rows += batch
            texts = (value for row in batch for value in row if isinstance(value, str | bytes))
            size += sum(map(len, texts))
            if len(rows) > self._rows or size > MAX_CHARACTERS:
                # Closing the connection is cheaper than reading the rest.
                lease.reusable = False
                cursor._result.unbuffered_active = False
                return rows + [()] * self._rows
        return rows

    @contextmanager
    def _lease(self, reusable: bool = True) -> Iterator[_Lease]:
        """A connection for one statement. Waits until one is free."""
        with self._free:
            lease = _Lease(self._connection(reusable), reusable)
            try:
                yield lease
            finally:
                if lease.reusable:
                    self._idle.put(lease.connection)
                else:
                    lease.connection._force_close()

    def _connection(self, reusable: bool) -> Any:
        """An idle connection, or a new one. A statement that may change its session gets a new
        one."""
        if reusable:
            with suppress(queue.Empty):
                return self._idle.get_nowait()
        connection = connect(self._address, read_timeout=self._seconds + 10)
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION TRANSACTION READ ONLY")
            for limit in (
                f"max_execution_time = {int(self._seconds * 1000)}",
                f"max_statement_time = {self._seconds}",
            ):
                with suppress(Exception):  # MySQL has the first, MariaDB the second
                    cursor.execute(f"SET SESSION {limit}")
        return connection


def in_lower_case(sql: str) -> str:
    """The statement with all names in lower case, for servers on which names of tables are
    case-sensitive. The recordings are of a server on which they are not."""
    return _NAMES.sub(lambda match: match[0] if match["text"] else match[0].lower(), sql)


def connect(address: Address, read_timeout: float = 60.0) -> Any:
    """Open a connection of PyMySQL. `read_timeout` is in seconds. Raises RroError if that fails,
    UsageError if PyMySQL is not installed."""
    try:
        import pymysql
    except ImportError:
        raise UsageError("a MySQL server as engine needs PyMySQL: pip install pymysql") from None
    try:
        return pymysql.connect(
            host=address.host,
            port=address.port,
            user=address.user,
            password=address.password,
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=10,
            read_timeout=read_timeout,
        )
    except pymysql.MySQLError as error:
        raise RroError(f"cannot connect to {address!r}: {error.args[-1]}") from None


def _ask(connection: Any, sql: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())


def _may_write(grant: tuple[str, ...]) -> bool:
    """Whether a row of SHOW GRANTS gives the right to do more than read."""
    rights = re.match(r"GRANT (.*?) (?:ON|TO)\b", grant[0])
    return rights is None or any(
        right.split("(")[0].split()[0] in _WRITE_RIGHTS for right in rights[1].upper().split(", ")
    )


def load_dump(url: str, dump: Path) -> int:
    """Load the databases of a dump into a server; returns the number of tables filled.

    The dump's accounts and rights are left out. Raises DataError if the dump cannot be read,
    RroError if the server cannot be reached or refuses a statement.
    """
    import pymysql

    try:
        text = dump.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{dump} cannot be read as a MySQL dump: {error}") from None
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
