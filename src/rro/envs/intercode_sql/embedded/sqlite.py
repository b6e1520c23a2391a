"""The embedded engine: one statement from text to rows, within its limits, and nothing written."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

from rro.envs.intercode_sql.embedded import routines
from rro.envs.intercode_sql.embedded.queries import Queries
from rro.envs.intercode_sql.embedded.rendering import rendered
from rro.envs.intercode_sql.embedded.show import answer
from rro.envs.intercode_sql.embedded.store import open_store
from rro.envs.intercode_sql.embedded.syntax import TOO_DEEP, SqlError, cleaned, parse
from rro.envs.intercode_sql.engine import CHARACTERS, INTERRUPTED, ROWS, Cache, Result, too_many_rows

log = logging.getLogger(__name__)

STEPS = 5_000_000  # of SQLite's machine for one statement; no recorded one takes more than 700,000
SECONDS = 3.0  # of processor time for one statement, whose steps may be long ones
MAX_TEXT = 2_000_000  # bytes of one value within SQLite
_LOOK = 2_000  # steps between two looks at the limits
_READS = frozenset({sqlite3.SQLITE_READ, sqlite3.SQLITE_SELECT, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE})
_FORBIDDEN = frozenset({"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer", "zeroblob", "randomblob"})
_TOO_LARGE = ("stack overflow", "too big", "too many", "too large", "disk is full")


class SqliteEngine:
    """MySQL's dialect on SQLite, in process. Reads only: the file is opened read-only, `query_only` is set, and an authoriser
    refuses all but reading. Safe to share between threads."""

    name = "sqlite"
    blocking = False

    def __init__(self, dump: Path, cache: Path | None = None, steps: int = STEPS, rows: int = ROWS) -> None:
        """`dump`: MySQL's dump of all databases; `cache`: the folder for the built file. A statement may take `steps` of
        SQLite's machine, the same on every computer, and give `rows`. Raises DataError for a file that is no dump."""
        self.catalogue, self._connection = open_store(dump, cache)
        self._steps, self._rows = steps, rows
        self._left, self._deadline, self._failure = 0, 0.0, ""
        self._lock = threading.RLock()
        self.cache = Cache()
        _confine(self._connection)
        routines.register(self._connection, self._fail)
        self._connection.set_progress_handler(self._look, min(_LOOK, steps))

    def execute(self, database: str, sql: str) -> Result:
        """Run one statement with `database` in use."""
        sql = cleaned(sql)
        with self._lock:
            known = self.cache.get((database, sql))
            if known is None:
                known = self._run(database, sql)
                self.cache.put((database, sql), known)
            return known

    def close(self) -> None:
        self._connection.close()

    def _run(self, database: str, sql: str) -> Result:
        try:
            shown = answer(self.catalogue, database, sql)
            if shown is not None:
                return Result(shown[0], shown[1])
            return Result(database, self._select(database, sql))
        except SqlError as error:
            return Result(database, error=str(error).replace("{database}", database))
        except RecursionError:
            return Result(database, error=TOO_DEEP)
        except Exception as error:  # an agent's text must never end a run: what is not foreseen is an answer, too
            log.warning("not foreseen: %s in %r", repr(error)[:200], sql[:500])
            return Result(database, error="Unknown error")

    def _select(self, database: str, sql: str) -> tuple[tuple[Any, ...], ...]:
        query = Queries(self.catalogue, database).statement(parse(sql))
        self._failure, self._left = "", self._steps // min(_LOOK, self._steps)
        self._deadline = time.thread_time() + SECONDS
        try:
            rows = self._fetched(query.sql)
        except sqlite3.Error as error:
            raise SqlError(self._failure or _message(error)) from None
        except MemoryError:
            raise SqlError("Out of memory; the statement needs too much of it") from None
        return rendered(rows, [expr.type for _, expr in query.columns])

    def _fetched(self, sql: str) -> list[tuple[Any, ...]]:
        cursor = self._connection.execute(sql)
        try:
            rows: list[tuple[Any, ...]] = []
            size = 0
            while batch := cursor.fetchmany(1000):
                rows += batch
                size += sum(len(value) for row in batch for value in row if isinstance(value, str))
                if len(rows) > self._rows or size > CHARACTERS:
                    raise SqlError(too_many_rows(self._rows))
            return rows
        finally:
            cursor.close()

    def _look(self) -> int:
        """Called back from within a statement: not 0 stops it."""
        self._left -= 1
        return int(self._left < 0 or time.thread_time() > self._deadline)

    def _fail(self, message: str) -> None:
        """Called back from within a statement that MySQL gives up with this message: stop it at the next look."""
        self._failure, self._left = message, 0
        raise ValueError(message)


def _confine(connection: sqlite3.Connection) -> None:
    """No writing, no other files, bounded memory for what a statement sorts and joins."""
    connection.execute("PRAGMA query_only=ON")
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA cache_size=-16000")
    connection.set_authorizer(_authorise)
    if hasattr(connection, "setlimit"):
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_TEXT)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)


def _authorise(action: int, one: str | None, other: str | None, database: str | None, trigger: str | None) -> int:
    if action not in _READS or (action == sqlite3.SQLITE_FUNCTION and str(other).lower() in _FORBIDDEN):
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def _message(error: sqlite3.Error) -> str:
    """SQLite's words in MySQL's."""
    text = str(error)
    if "interrupted" in text:
        return INTERRUPTED
    if "integer overflow" in text:
        return "BIGINT value is out of range"
    if any(words in text for words in _TOO_LARGE):
        return "The statement is too large"
    log.warning("SQLite refused a translated statement: %s", text[:300])
    return "Unknown error"
