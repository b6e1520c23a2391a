"""The embedded engine: runs statements, read-only and within limits, in a process of their own."""

from __future__ import annotations

import logging
import math
import re
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import date, datetime
from pathlib import Path
from typing import Any

from rro.intercode_sql import engine
from rro.intercode_sql.embedded import dates, functions, library, numeric, syntax
from rro.intercode_sql.embedded.process import Statements
from rro.intercode_sql.embedded.queries import Queries
from rro.intercode_sql.embedded.show import shown
from rro.intercode_sql.embedded.store import Type, open_store
from rro.intercode_sql.embedded.syntax import Statement
from rro.intercode_sql.embedded.work import MAX_TEXT, STEPS, Work
from rro.intercode_sql.engine import Cache, Result, SqlError

log = logging.getLogger(__name__)
Converter = Callable[[Any], Any]

# Work of one statement (see `Work`). No recorded one does more than 4,000,000.
MAX_WORK = 10_000_000
# Bytes of one value within SQLite, of its statement, and of all its memory.
MAX_VALUE, MAX_STATEMENT, MAX_HEAP = 4 * MAX_TEXT, 1_000_000, 64_000_000
_ALLOWED = functions.ALLOWED | library.ALLOWED
_READS = (sqlite3.SQLITE_READ, sqlite3.SQLITE_SELECT)
_NO_MEMORY = "Out of sort memory, consider increasing server sort buffer size"
# Patterns of SQLite's messages, and the messages of MySQL that replace them.
_MESSAGES = {
    "interrupted": engine.INTERRUPTED,
    "parser stack|tree is too large|too many (?:columns|terms)": engine.TOO_DEEP,
    "integer overflow": "BIGINT value is out of range",
    "too big": "Illegal argument to a regular expression, or a text that is too long.",
    "aggregate": "Invalid use of group function",
    r"(?:no such function:|use function:) (\w+)": "FUNCTION {database}.{} does not exist",
    r"arguments to function (\w+)": "Incorrect parameter count in the call to native function '{}'",
    "user-defined|malformed": "Illegal argument to a function",
    "(.{,80})": "This version of MySQL doesn't yet support '{}'",
}


class SqliteEngine:
    """MySQL's dialect on SQLite, in a process of its own. Safe to share between threads.

    `dump` is MySQL's dump of all databases, `cache` the folder for the file that is built of it. A
    statement may do `steps` units of work (see `Work`), which are the same on every computer, and
    return `rows` rows. Raises DataError if the file is not a dump.
    """

    name = "sqlite"
    blocking = False

    def __init__(
        self,
        dump: Path,
        cache: Path | None = None,
        steps: int = MAX_WORK,
        rows: int = engine.MAX_ROWS,
    ) -> None:
        self.catalogue, connection = open_store(dump, cache)
        connection.close()
        self._statements = Statements(dump, cache, steps, rows)
        self._lock = threading.Lock()
        self.cache = Cache()

    def execute(self, database: str, sql: str) -> Result:
        """Run one statement with `database` in use. Its error is a result. Raises RroError if the
        process of the statements fails."""
        sql = engine.cleaned(sql)
        if not sql or len(sql) > engine.MAX_LENGTH:
            return Result(database, error=engine.TOO_LONG if sql else engine.EMPTY)
        result = self.cache.get((database, sql))
        if result is None:
            with self._lock:
                result = self.cache.get((database, sql)) or self._run(database, sql)
        return result

    def close(self) -> None:
        """End the process."""
        self._statements.close()

    def _run(self, database: str, sql: str) -> Result:
        result, warning = self._statements.run(database, sql)
        if warning:
            log.warning("%s", warning)
        self.cache.put((database, sql), result)
        return result


class Runner:
    """Runs statements in this process, for one thread; the arguments are those of `SqliteEngine`.

    It only reads: the file is opened read-only, `query_only` is set, and an authoriser refuses
    everything else.
    """

    def __init__(self, dump: Path, cache: Path | None, steps: int, rows: int) -> None:
        self._catalogue, self._connection = open_store(dump, cache)
        self._work, self._rows = Work(steps), rows
        functions.register(self._connection, self._work)
        library.register(self._connection, self._work)
        for setting in ("query_only=ON", "temp_store=MEMORY", f"hard_heap_limit={MAX_HEAP}"):
            self._connection.execute(f"PRAGMA {setting}").fetchall()
        self._connection.set_authorizer(_authorise)
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE)
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, MAX_STATEMENT)
        self._connection.set_progress_handler(self._work.step, min(STEPS, steps))

    def run(self, database: str, sql: str) -> tuple[Result, str]:
        """The result of a statement, and a warning or ""."""
        try:
            if sql and sql.split(None, 1)[0].upper() in engine.WRITES:
                raise SqlError(engine.READ_ONLY)
            statement = syntax.parsed(sql)
            self._work.begin()
            result = shown(self._catalogue, database, statement, self._answer)
            return result or Result(database, self._select(database, statement)), ""
        except SqlError as error:
            message = str(error)
        except sqlite3.Error as error:
            message = str(self._work.error or _message(str(error), database))
        except (RecursionError, MemoryError):
            message = engine.TOO_DEEP
        # The text of an agent must never end a run, so unexpected errors are results, too.
        except Exception as error:
            warning = f"unexpected error: {repr(error)[:200]} in {sql[:500]!r}"
            return Result(database, error="Unknown error"), warning
        return Result(database, error=message), ""

    def _answer(self, database: str, sql: str) -> tuple[tuple[Any, ...], ...]:
        return self._select(database, syntax.parsed(sql))

    def _select(self, database: str, statement: Statement) -> tuple[tuple[Any, ...], ...]:
        """The rows of a query. Raises SqlError for what MySQL rejects, or what does more than
        read."""
        if error := engine.volatile(statement.text):
            raise SqlError(error)
        syntax.check_calls(statement, database)
        if not syntax.reads_only(statement):
            raise SqlError(engine.READ_ONLY)
        self._work.expect(
            max(
                [end - start for kind, start, end in statement.tokens if kind == "STRING"],
                default=0,
            )
        )
        query = Queries(self._catalogue, database, statement).query(statement.tree)
        converters = [_converter(column.type) for column in query.columns]
        try:
            return tuple(self._fetch(query.sql, converters))
        except (ValueError, ArithmeticError):  # infinity, or an invalid date
            raise SqlError("A value is out of range") from None
        except MemoryError:
            raise SqlError(_NO_MEMORY) from None

    def _fetch(self, sql: str, converters: list[Converter]) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        size, cost = 0, 8 * len(converters)
        with closing(self._connection.execute(sql)) as cursor:
            for values in cursor:
                self._work.spend(cost)
                row = _converted(values, converters)
                rows.append(row)
                size += engine.row_bytes(row)
                if len(rows) > self._rows or size > engine.MAX_BYTES:
                    raise SqlError(engine.too_many_rows(self._rows))
        return rows


def _converted(row: tuple[Any, ...], converters: list[Converter]) -> tuple[Any, ...]:
    pairs = zip(row, converters, strict=False)
    return tuple([None if value is None else convert(value) for value, convert in pairs])


def _message(error: str, database: str) -> str:
    """MySQL's message in place of SQLite's."""
    matches = ((re.search(pattern, error), text) for pattern, text in _MESSAGES.items())
    return next(text.format(*match.groups(), database=database) for match, text in matches if match)


def _converter(kind: Type) -> Converter:
    """Converts SQLite's values of a type to those of Python's MySQL drivers."""
    if kind.kind == "decimal":
        return lambda value: numeric.fixed(value, kind.scale or 0)
    if kind.kind in ("float", "double") and kind.scale is not None:
        return lambda value: float(numeric.fixed(float(value), kind.scale or 0))
    if kind.kind == "float":
        return lambda value: float(f"{value:.6g}")
    return _CONVERTERS.get(kind.kind, str)


def _integer(value: Any) -> int:
    if isinstance(value, float) and abs(value) >= 2**63:
        raise SqlError("BIGINT value is out of range")
    return int(value)


def _real(value: Any) -> float:
    if math.isinf(value):
        raise SqlError("DOUBLE value is out of range")
    return float(value)


_CONVERTERS: dict[str, Converter] = {
    **{"int": _integer, "double": _real, "date": date.fromisoformat, "time": dates.duration},
    **{"datetime": datetime.fromisoformat, "bytes": bytes, "unsigned": lambda value: value % 2**64},
}


def _authorise(action: int, one: str | None, other: str | None, *rest: str | None) -> int:
    allowed = action in _READS or (
        action == sqlite3.SQLITE_FUNCTION and str(other).lower() in _ALLOWED
    )
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY
