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
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from rro.errors import DataError, RroError, UsageError, reason_of
from rro.intercode_sql.engine import (
    EMPTY,
    INTERRUPTED,
    MAX_BYTES,
    MAX_LENGTH,
    MAX_ROWS,
    RANDOM,
    READ_ONLY,
    TOO_LONG,
    WRITES,
    Cache,
    Result,
    SqlError,
    cleaned,
    lexemes,
    row_bytes,
    syntax_error,
    too_many_rows,
    volatile,
)

PASSWORD_VARIABLE = "RRO_SQL_PASSWORD"
# Seconds for one statement.
STATEMENT_SECONDS = 5.0
MAX_CONNECTIONS = 8
_URL_FORM = "a server's URL must be mysql://user@host:port"
# A comment that the server executes.
_EXECUTED_COMMENT = re.compile(r"/\*M?!")
_TABLE = re.compile(r"(?:CREATE TABLE|INSERT INTO|REFERENCES|^USE) `[^`]+`")
_NAMES = re.compile(r"""(?P<text>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*")|[^'"]+|.""", re.DOTALL)
# First words of statements that only read, and what SHOW may show, or not.
_READS = {"SELECT", "WITH", "SHOW", "DESC", "DESCRIBE", "EXPLAIN", "USE", "VALUES", "TABLE", "("}
_SHOWN = {"TABLES", "COLUMNS", "FIELDS", "DATABASES", "SCHEMAS", "INDEX", "INDEXES", "KEYS"}
_NOT_SHOWN = """
    PROCESSLIST STATUS VARIABLES WARNINGS ERRORS COUNT ENGINE ENGINES GRANTS PRIVILEGES PROFILE
    PROFILES GLOBAL SESSION LOCAL OPEN TABLE BINARY BINLOG MASTER SLAVE REPLICA REPLICAS ALL
    RELAYLOG EVENTS TRIGGERS PROCEDURE FUNCTION PACKAGE PLUGINS EXPLAIN ANALYZE USER_STATISTICS
    INDEX_STATISTICS CLIENT_STATISTICS TABLE_STATISTICS STORAGE CHARACTER CHARSET COLLATION"""
_SYSTEM = {"MYSQL", "PERFORMANCE_SCHEMA", "SYS"}
# What may be read of information_schema.
_CATALOGUE = {"TABLES", "COLUMNS", "SCHEMATA", "STATISTICS", "KEY_COLUMN_USAGE", "VIEWS"}
_CATALOGUE |= {"TABLE_CONSTRAINTS", "REFERENTIAL_CONSTRAINTS"}
_ACCESS = "Access denied for user ''@'%' to database '{}'"
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
        limit = _Limited(connection, 2 * self._seconds)
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
        connection = connect(self._address, read_timeout=2 * self._seconds)
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


def vetted(sql: str) -> str:
    """The statement to send: without comments, which may hold hints, and with a constant for
    RAND(). Raises SqlError for a statement that does more than read, that reaches what other
    episodes or the server's administration have to do with, or whose answer may differ when it is
    replayed."""
    if error := volatile(sql):
        raise SqlError(error)
    kept = [(kind, " " if kind == "comment" else part) for kind, part in lexemes(sql)]
    if any(kind == "comment" and _EXECUTED_COMMENT.match(part) for kind, part in lexemes(sql)):
        raise SqlError(READ_ONLY)
    words = [
        "''" if kind == "text" else part.strip("`").upper() for kind, part in kept if part.strip()
    ]
    if not words:
        raise SqlError(EMPTY)
    _check_verb(words, sql)
    _check_words(words)
    sent = "".join(part for _, part in kept)
    return _RAND.sub(lambda match: match["text"] or str(RANDOM), sent)


# RAND() outside of texts and quoted names.
_RAND = re.compile(
    r"""(?P<text>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*"|`[^`]*`)|\bRAND\s*\(\s*\)""",
    re.DOTALL | re.IGNORECASE,
)


def _check_verb(words: list[str], sql: str) -> None:
    if words[0] in WRITES:
        raise SqlError(READ_ONLY)
    if words[0] not in _READS:
        raise SqlError(syntax_error(sql))
    if words[0] == "SHOW":
        what = next((word for word in words[1:] if word not in ("FULL", "EXTENDED")), "")
        if what in _NOT_SHOWN.split():
            raise SqlError(f"Access denied; SHOW {what} is not available")
        if what not in _SHOWN and words[1:3] != ["CREATE", "TABLE"]:
            raise SqlError(syntax_error(sql[4:].lstrip()))
    if words[0] in ("EXPLAIN", "DESC", "DESCRIBE") and {"ANALYZE", "CONNECTION"} & set(words[1:5]):
        raise SqlError("Access denied; EXPLAIN shows the plan of a SELECT only")


def _check_words(words: list[str]) -> None:
    pairs = list(zip(words, [*words[1:], ""], strict=True))
    for (word, after), before in zip(pairs, ["", *words], strict=False):
        if word in ("INTO", "PROCEDURE") or (word, after) in _LOCKS:
            raise SqlError(READ_ONLY)
        opened = (
            after == "." or before == "USE" or (words[0] == "SHOW" and before in ("FROM", "IN"))
        )
        if word in _SYSTEM and opened:
            raise SqlError(_ACCESS.format(word.lower()))
        if word == "INFORMATION_SCHEMA" and before == "USE":
            raise SqlError(_ACCESS.format(word.lower()))
    for place, (word, after) in enumerate(pairs):
        if (word, after) == ("INFORMATION_SCHEMA", ".") and words[place + 2] not in _CATALOGUE:
            raise SqlError(_ACCESS.format(word.lower()))


_LOCKS = {("FOR", "UPDATE"), ("FOR", "SHARE"), ("LOCK", "IN"), ("VALUE", "FOR")}


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
