"""A MySQL or MariaDB server as the engine. Needs PyMySQL.

Episodes share the server, so no statement may affect another episode: statements run in read-only
transactions, those that write are not sent at all, and a connection whose session may have changed
is closed. Knows nothing of tasks or rewards.
"""

from __future__ import annotations

import os
import queue
import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from rro.errors import RroError, UsageError
from rro.intercode_sql.engine import (
    EMPTY,
    INTERRUPTED,
    MAX_BYTES,
    MAX_LENGTH,
    MAX_ROWS,
    TOO_LONG,
    Cache,
    Result,
    SqlError,
    cleaned,
    row_bytes,
    too_many_rows,
)
from rro.intercode_sql.server_rules import vetted

PASSWORD_VARIABLE = "RRO_SQL_PASSWORD"
# Seconds for one statement.
STATEMENT_SECONDS = 5.0
# Limits after which the connection of a statement that does not end is closed. Closing it takes
# time as well, and all is to be over within twice the limit.
PATIENCE = 1.5
MAX_CONNECTIONS = 8
_URL_FORM = "a server's URL must be mysql://user@host:port"
_NAMES = re.compile(r"""(?P<text>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*")|[^'"]+|.""", re.DOTALL)
# The same in all sessions, so that a statement always has the same result. 1795348800 is noon of
# engine.TODAY.
_SESSION = (
    "SESSION TRANSACTION READ ONLY",
    "SESSION time_zone = '+00:00'",
    "SESSION timestamp = 1795348800",
    # MariaDB knows ONLY_FULL_GROUP_BY, but not functional dependence.
    "SESSION sql_mode = CONCAT('STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,"
    "ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION' /*!80000 , ',ONLY_FULL_GROUP_BY' */)",
)
# Names of temporary tables in messages.
_TEMPORARY = re.compile(r"[\w./-]*#sql[\w.-]*")
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
        """Run one statement with `database` in use. Its error is a result, and so is that it ran
        too long or that the server closed the connection twice. Raises RroError if the server
        cannot be reached."""
        sql = cleaned(sql)
        if not sql or len(sql) > MAX_LENGTH:
            return Result(database, error=TOO_LONG if sql else EMPTY)
        result = self.cache.get((database, sql))
        if result is None:
            try:
                result = self._run(database, vetted(sql))
            except SqlError as error:
                result = Result(database, error=str(error))
            self.cache.put((database, sql), result)
        return result

    def close(self) -> None:
        """Close the idle connections."""
        with suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def _run(self, database: str, sql: str) -> Result:
        """The result. A statement whose connection is lost runs once more, in a new one."""
        sql = sql.encode("utf-8", "replace").decode()
        sql = in_lower_case(sql) if self._case_sensitive else sql
        for new in (not database, True):
            with suppress(_Lost), self._lease(new) as lease:
                return self._answer(lease, database, sql)
        return Result(database, error="Lost connection to MySQL server during query")

    def _answer(self, lease: _Lease, database: str, sql: str) -> Result:
        import pymysql  # type: ignore[import-untyped,unused-ignore]

        connection, lease.reusable = lease.connection, False
        limit = _Limited(connection, PATIENCE * self._seconds)
        cursor = connection.cursor(pymysql.cursors.SSCursor)
        try:
            if database:
                connection.select_db(database)
            cursor.execute(sql)
            rows = self._fetch(cursor) if cursor.description else None
        except (_TooLarge, pymysql.MySQLError, ValueError, ArithmeticError) as error:
            if cursor._result is not None:
                cursor._result.unbuffered_active = False  # or PyMySQL would read the rest
            lease.reusable = isinstance(error, pymysql.MySQLError) and error.args[0] not in _BROKEN
            return Result(database, error=self._message(error, connection))
        finally:
            limit.end()
        lease.reusable = True
        if sql.split(None, 1)[0].upper() == "USE":
            database = (_ask(connection, "SELECT database()")[0][0] or "").lower()
        return Result(database, rows)

    def _message(self, error: Exception, connection: Any) -> str:
        """The message of a statement's error. Raises _Lost if it is that the server has closed the
        connection."""
        code, message = (*error.args, 0, "")[:2]
        if isinstance(error, _TooLarge):
            return too_many_rows(self._rows)
        if isinstance(error.__context__, TimeoutError):
            # The server does not check its limit within a function.
            self._kill(connection.thread_id())
            return INTERRUPTED
        if code in _BROKEN:
            raise _Lost from None
        if not isinstance(code, int):
            return "A value is out of range"
        return INTERRUPTED if code in (1969, 3024, 1317) else _TEMPORARY.sub("#sql", str(message))

    def _kill(self, thread: int) -> None:
        """End a session that no one waits for."""
        with suppress(Exception), closing(connect(self._address, read_timeout=5)) as connection:
            _ask(connection, f"KILL {thread}")

    def _fetch(self, cursor: Any) -> tuple[tuple[Any, ...], ...]:
        """The rows. Raises _TooLarge beyond a limit."""
        rows: list[tuple[Any, ...]] = []
        size = 0
        while (row := cursor.fetchone()) is not None:
            rows.append(row)
            size += row_bytes(row)
            if len(rows) > self._rows or size > MAX_BYTES:
                raise _TooLarge
        return tuple(rows)

    @contextmanager
    def _lease(self, new: bool = False) -> Iterator[_Lease]:
        """A connection for one statement, a new one on request. Waits until one is free."""
        with self._free:
            lease = _Lease(self._connection(new), True)
            try:
                yield lease
            finally:
                if lease.reusable:
                    self._idle.put(lease.connection)
                else:
                    lease.connection._force_close()

    def _connection(self, new: bool) -> Any:
        """An idle connection, or a new one."""
        if not new:
            with suppress(queue.Empty):
                return self._idle.get_nowait()
        connection = connect(self._address, read_timeout=PATIENCE * self._seconds)
        with connection.cursor() as cursor:
            for setting in _SESSION:
                cursor.execute(f"SET {setting}")
            for limit in (
                f"max_execution_time = {int(self._seconds * 1000)}",
                f"max_statement_time = {self._seconds}",
                "max_session_mem_used = 268435456",
            ):
                with suppress(Exception):  # MySQL has the first, MariaDB the others
                    cursor.execute(f"SET SESSION {limit}")
        return connection


# PyMySQL's codes of a connection that cannot be used any more.
_BROKEN = (0, 2006, 2013, 2014, 2055, 1927, 1053)


class _Lost(Exception):
    """The server has closed the connection."""


class _TooLarge(Exception):
    """A result exceeds the limits."""


class _Limited:
    """Limits what a connection may receive until `end`: `MAX_BYTES`, within `seconds`."""

    def __init__(self, connection: Any, seconds: float) -> None:
        self._connection, self._file = connection, connection._rfile
        self._left, self._end = 2 * MAX_BYTES, time.monotonic() + seconds
        connection._rfile = self

    def read(self, count: int) -> bytes:
        """Read so many bytes, as PyMySQL asks for them."""
        self._left -= count
        if self._left < 0:
            raise _TooLarge
        if time.monotonic() > self._end:
            raise TimeoutError
        data: bytes = self._file.read(count)
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def end(self) -> None:
        """Receive without limits again, if the connection is still open."""
        if self._connection._rfile is self:
            self._connection._rfile = self._file


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
