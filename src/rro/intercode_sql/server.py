"""A real MySQL or MariaDB server as the engine, and loading the dump into one. Needs PyMySQL (pip
install pymysql).

Episodes share the server, so nothing that one does may reach another: statements run in read-only
transactions, only those that ask are sent at all, and a connection that may hold something of its
session is not used again."""

from __future__ import annotations

import os
import queue
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from rro.errors import DataError, RroError, UsageError
from rro.intercode_sql.engine import (
    CHARACTERS,
    EMPTY,
    INTERRUPTED,
    MAX_LENGTH,
    READ_ONLY,
    ROWS,
    TOO_LONG,
    WRITES,
    Cache,
    Result,
    cleaned,
    too_many_rows,
    words,
)

PASSWORD_VARIABLE = "RRO_SQL_PASSWORD"
SECONDS = 5.0  # for one statement
CONNECTIONS = 8
_FIRST_WORD = re.compile(
    r"(?:\s+|--[ \t\n][^\n]*(?:\n|$)|#[^\n]*(?:\n|$)|/\*(?![!M]).*?\*/)*(\w+)", re.DOTALL
)
_HIDDEN = re.compile(r"/\*M?!")  # a comment that the server executes
_TABLE = re.compile(r"(?:CREATE TABLE|INSERT INTO|REFERENCES|^USE) `[^`]+`")
_NAMED = re.compile(r"""(?P<text>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*")|[^'"]+|.""", re.DOTALL)
_LEAVES_TRACES = re.compile(
    r"@|\b(?:get_lock|into|for\s+update|lock\s+in|last_insert_id|sleep)\b", re.IGNORECASE
)
_WRITING = words(
    "ALL INSERT UPDATE DELETE CREATE DROP ALTER INDEX TRIGGER EVENT REFERENCES SUPER FILE GRANT"
)


@dataclass(frozen=True)
class Address:
    """Where a server is, and who asks. Its text never shows the password."""

    host: str
    port: int
    user: str
    password: str

    def __repr__(self) -> str:
        return f"mysql://{self.user}@{self.host}:{self.port}"


def has_password(url: str) -> bool:
    """Whether the password stands in the URL itself, so that it would be written wherever the URL
    is."""
    return bool(urlsplit(url).password)


def parse_url(url: str) -> Address:
    """mysql://user@host:port or mysql://user:password@host:port; without a password, that of
    $RRO_SQL_PASSWORD.

    Raises UsageError for anything else, without repeating the password."""
    try:
        parts = urlsplit(url)
        port = parts.port or 3306
    except ValueError:
        raise UsageError("the engine's URL must be mysql://user@host:port") from None
    if parts.scheme not in ("mysql", "mariadb") or not parts.hostname or not parts.username:
        raise UsageError("the engine's URL must be mysql://user@host:port")
    password = unquote(parts.password) if parts.password else os.environ.get(PASSWORD_VARIABLE, "")
    return Address(parts.hostname, port, unquote(parts.username), password)


class ServerEngine:
    """Runs statements on a server. Safe to share between threads; `blocking`, as it waits for the
    server."""

    blocking = True

    def __init__(
        self, url: str, allow_writer: bool = False, seconds: float = SECONDS, rows: int = ROWS
    ) -> None:
        """Raises UsageError where the account may write (unless `allow_writer`), RroError where the
        server is not reached."""
        self._address = parse_url(url)
        self._seconds, self._rows = seconds, rows
        self._idle: queue.LifoQueue[Any] = queue.LifoQueue()
        self._places: queue.Queue[None] = queue.Queue()
        for _ in range(CONNECTIONS):
            self._places.put(None)
        self.cache = Cache()
        with self._connection() as (connection, _):
            version, by_case = _ask(connection, "SELECT version(), @@lower_case_table_names = 0")[0]
            grants = _ask(connection, "SHOW GRANTS")
        self._by_case = bool(by_case)
        self.name = f"{'mariadb' if 'mariadb' in version.lower() else 'mysql'} {version}"
        if not allow_writer and any(map(_may_write, grants)):
            raise UsageError(
                f"the account of {self._address!r} may write: use one with SELECT alone, or allow it with the option "
                "allow_writer = true (its transactions are read-only either way)"
            )

    def execute(self, database: str, sql: str) -> Result:
        """Run one statement with `database` in use. Raises RroError where the server is lost; never
        for what the SQL says."""
        sql = cleaned(sql)
        known = self.cache.get((database, sql))
        if known is None:
            known = self._run(database, sql)
            if known.error != INTERRUPTED:  # another time the server may be less busy
                self.cache.put((database, sql), known)
        return known

    def close(self) -> None:
        with suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def _run(self, database: str, sql: str) -> Result:
        word = _FIRST_WORD.match(sql)
        if _HIDDEN.search(sql) or (word is not None and word[1].upper() in WRITES):
            return Result(database, error=READ_ONLY)
        if not sql or len(sql) > MAX_LENGTH:
            return Result(database, error=TOO_LONG if sql else EMPTY)
        with self._connection(keep=not _LEAVES_TRACES.search(sql)) as (connection, discard):
            return self._answered(connection, database, sql, discard)

    def _answered(self, connection: Any, database: str, sql: str, discard: Any) -> Result:
        import pymysql  # type: ignore[import-untyped,unused-ignore]

        try:
            if database:
                connection.select_db(database)
            with connection.cursor(pymysql.cursors.SSCursor) as cursor:
                statement = sql.encode("utf-8", "replace").decode()
                cursor.execute(in_lower_case(statement) if self._by_case else statement)
                rows = self._fetched(cursor, discard) if cursor.description else None
        except pymysql.MySQLError as error:
            code, message = (*error.args, 0, "")[:2]
            if isinstance(error, pymysql.OperationalError) and code in (2006, 2013):
                discard()
                raise RroError(f"the connection to {self._address!r} was lost: {message}") from None
            interrupted = code in (1969, 3024, 1317)
            return Result(database, error=INTERRUPTED if interrupted else str(message))
        if rows is not None and len(rows) > self._rows:
            return Result(database, error=too_many_rows(self._rows))
        current = _ask(connection, "SELECT database()")[0][0] or ""
        return Result(current.lower(), None if rows is None else tuple(rows))

    def _fetched(self, cursor: Any, discard: Any) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        size = 0
        while batch := cursor.fetchmany(1000):
            rows += batch
            size += sum(
                len(value) for row in batch for value in row if isinstance(value, str | bytes)
            )
            if len(rows) > self._rows or size > CHARACTERS:
                discard()  # rather than read what is left
                cursor._result.unbuffered_active = False
                return rows + [()] * self._rows
        return rows

    @contextmanager
    def _connection(self, keep: bool = True) -> Iterator[tuple[Any, Any]]:
        """A connection for one statement, and what to call where it must not be used again."""
        self._places.get()
        connection: Any = None
        sound = keep

        def discard() -> None:
            nonlocal sound
            sound = False

        try:
            try:
                connection = self._idle.get_nowait() if keep else self._opened()
            except queue.Empty:
                connection = self._opened()
            yield connection, discard
        finally:
            if connection is not None and sound:
                self._idle.put(connection)
            elif connection is not None:
                connection._force_close()
            self._places.put(None)

    def _opened(self) -> Any:
        connection = connect(self._address, read_timeout=self._seconds + 10)
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION TRANSACTION READ ONLY")
            for limit in (
                f"max_execution_time = {int(self._seconds * 1000)}",
                f"max_statement_time = {self._seconds}",
            ):
                with suppress(Exception):  # MySQL has the one, MariaDB the other
                    cursor.execute(f"SET SESSION {limit}")
        return connection


def in_lower_case(sql: str) -> str:
    """The statement with all names in lower case, for servers that tell tables and aliases by case:
    MySQL's recordings are of one that does not, and columns are never told by case."""
    return _NAMED.sub(lambda found: found[0] if found["text"] else found[0].lower(), sql)


def connect(address: Address, read_timeout: float = 60.0) -> Any:
    """A connection of PyMySQL. Raises RroError where there is none, UsageError without PyMySQL."""
    try:
        import pymysql
    except ImportError:
        raise UsageError("a MySQL server as engine needs PyMySQL: pip install pymysql") from None
    try:
        return pymysql.connect(
            host=address.host, port=address.port, user=address.user, password=address.password, charset="utf8mb4",
            autocommit=True, connect_timeout=10, read_timeout=read_timeout,
        )  # fmt: skip
    except pymysql.MySQLError as error:
        raise RroError(f"cannot connect to {address!r}: {error.args[-1]}") from None


def _ask(connection: Any, sql: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())


def _may_write(grant: tuple[str, ...]) -> bool:
    """Whether a row of SHOW GRANTS gives more than reading."""
    rights = re.match(r"GRANT (.*?) (?:ON|TO)\b", grant[0])
    return rights is None or any(
        right.split("(")[0].split()[0] in _WRITING for right in rights[1].upper().split(", ")
    )


def load_dump(url: str, dump: Path) -> int:
    """Load the databases of the dump into a server; returns how many tables were filled. What the
    dump says of accounts and rights is left out. Raises DataError for a dump that cannot be read,
    RroError for what the server refuses."""
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
    """The dump's statements that make databases, tables and rows; mysqldump ends each with a
    line."""
    lines: list[str] = []
    for line in text.splitlines():
        if not lines and (not line.strip() or line.startswith(("--", "/*"))):
            continue
        lines.append(line)
        if line.rstrip().endswith(";"):
            statement = "\n".join(lines).rstrip("; ")
            lines = []
            if statement.startswith(
                "CREATE DATABASE"
            ):  # without its options, which servers know by version
                yield (
                    re.sub(r"/\*!\d+ .*?\*/", "", statement).lower()
                    + " DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"
                )
            elif created := re.match(r"CREATE TABLE (`[^`]+`)", statement):
                yield f"DROP TABLE IF EXISTS {created[1].lower()}"
                yield _TABLE.sub(_lower_name, statement)
            elif statement.startswith(("USE", "INSERT")):
                yield _TABLE.sub(_lower_name, statement, count=1)


def _lower_name(found: re.Match[str]) -> str:
    words, quote, name = found[0].partition("`")
    return words + quote + name.lower()
