"""The embedded engine: runs one statement, read-only and within limits."""

from __future__ import annotations

import logging
import re
import sqlite3
import threading
import time
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlglot import exp
from sqlglot.dialects.mysql import MySQL
from sqlglot.errors import ParseError, SqlglotError

from rro.intercode_sql import engine
from rro.intercode_sql.embedded.functions import ALLOWED, number_text, register
from rro.intercode_sql.embedded.names import SqlError
from rro.intercode_sql.embedded.queries import Queries
from rro.intercode_sql.embedded.show import shown
from rro.intercode_sql.embedded.store import DATE, DATETIME, DOUBLE, INT, Type, open_store
from rro.intercode_sql.engine import Cache, Result

log = logging.getLogger(__name__)
Converter = Callable[[Any], Any]

# Steps of SQLite's virtual machine for one statement. No recorded one takes more than 700,000.
MAX_STEPS = 3_000_000
# Seconds of processor time for one statement, in which single steps may be long.
MAX_SECONDS = 1.0
# Bytes of one value within SQLite.
MAX_VALUE = 2_000_000
# SQLGlot's parser is recursive, and takes exponential time for joins without ON.
MAX_DEPTH, MAX_TOKENS, MAX_BARE_JOINS = 60, 4_000, 8
# Steps between two checks of the limits.
_CHECK_EVERY = 2_000
_DIALECT = MySQL()
_RESERVED = MySQL.Generator.RESERVED_KEYWORDS
_READS = (sqlite3.SQLITE_READ, sqlite3.SQLITE_SELECT)
_TOO_DEEP = "Thread stack overrun: the statement is nested too deeply"
# Patterns of SQLite's messages, and the messages of MySQL that replace them.
_MESSAGES = {
    "interrupted": engine.INTERRUPTED,
    "integer overflow": "BIGINT value is out of range",
    "user-defined function raised": "Subquery returns more than 1 row",
    "too big": "Illegal argument to a regular expression, or a text that is too long.",
    "aggregate": "Invalid use of group function",
    r"(?:no such function:|use function:) (\w+)": "FUNCTION {database}.{} does not exist",
    r"arguments to function (\w+)": "Incorrect parameter count in the call to native function '{}'",
    "(.{,80})": "This version of MySQL doesn't yet support '{}'",
}


class SqliteEngine:
    """MySQL's dialect on SQLite, in this process. Safe to share between threads.

    `dump` is MySQL's dump of all databases, `cache` the folder for the file that is built of it. A
    statement may take `steps` of SQLite's virtual machine, which is the same on every computer, and
    return `rows` rows. It only reads: the file is opened read-only, `query_only` is set, and an
    authoriser refuses everything else. Raises DataError if the file is not a dump.
    """

    name = "sqlite"
    blocking = False

    def __init__(
        self,
        dump: Path,
        cache: Path | None = None,
        steps: int = MAX_STEPS,
        rows: int = engine.MAX_ROWS,
    ) -> None:
        self.catalogue, self._connection = open_store(dump, cache)
        self._steps, self._rows = steps, rows
        self._checks_left, self._deadline = 0, 0.0
        self._lock = threading.RLock()
        self.cache = Cache()
        register(self._connection)
        self._connection.execute("PRAGMA query_only=ON")
        self._connection.set_authorizer(_authorise)
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE)
        self._check_every = min(_CHECK_EVERY, steps)
        self._connection.set_progress_handler(self._check_limits, self._check_every)

    def execute(self, database: str, sql: str) -> Result:
        """Run one statement with `database` in use. Its error is a result; nothing raises."""
        sql = engine.cleaned(sql)
        with self._lock:
            result = self.cache.get((database, sql))
            if result is None:
                result = self._run(database, sql)
                self.cache.put((database, sql), result)
            return result

    def close(self) -> None:
        """Close the database file."""
        self._connection.close()

    def _run(self, database: str, sql: str) -> Result:
        try:
            result = shown(self.catalogue, database, sql)
            return result or Result(database, self._select(database, sql))
        except SqlError as error:
            return Result(database, error=str(error))
        except sqlite3.Error as error:
            return Result(database, error=_message(str(error), database))
        except (RecursionError, MemoryError):
            return Result(database, error=_TOO_DEEP)
        # The text of an agent must never end a run, so unexpected errors are results, too.
        except Exception as error:
            log.warning("unexpected error: %s in %r", repr(error)[:200], sql[:500])
            return Result(database, error="Unknown error")

    def _select(self, database: str, sql: str) -> tuple[tuple[Any, ...], ...]:
        nodes = _parsed(sql)
        query = Queries(self.catalogue, database, nodes).query(nodes[0])
        rows = self._fetch(query.sql)
        converters = [_converter(column.type) for column in query.columns]
        try:
            return tuple(_converted(row, converters) for row in rows)
        except (ValueError, ArithmeticError):  # infinity, or an invalid date
            raise SqlError("A value is out of range") from None

    def _fetch(self, sql: str) -> list[tuple[Any, ...]]:
        self._checks_left = self._steps // self._check_every
        self._deadline = time.thread_time() + MAX_SECONDS
        rows: list[tuple[Any, ...]] = []
        size, cursor = 0, self._connection.execute(sql)
        while batch := cursor.fetchmany(1000):
            rows += batch
            size += sum(len(value) for row in batch for value in row if isinstance(value, str))
            if len(rows) > self._rows or size > engine.MAX_CHARACTERS:
                raise SqlError(engine.too_many_rows(self._rows))
        return rows

    def _check_limits(self) -> int:
        """Called by SQLite while a statement runs. A value other than 0 stops it."""
        self._checks_left -= 1
        return int(self._checks_left < 0 or time.thread_time() > self._deadline)


def _converted(row: tuple[Any, ...], converters: list[Converter]) -> tuple[Any, ...]:
    pairs = zip(row, converters, strict=True)
    return tuple(None if value is None else convert(value) for value, convert in pairs)


def _message(error: str, database: str) -> str:
    """MySQL's message in place of SQLite's."""
    matches = ((re.search(pattern, error), text) for pattern, text in _MESSAGES.items())
    return next(text.format(*match.groups(), database=database) for match, text in matches if match)


def _converter(kind: Type) -> Converter:
    """Converts SQLite's values of a type to those of Python's MySQL drivers."""
    if kind.kind == "decimal":
        return lambda value: Decimal(number_text(value, kind.scale or 0))
    if kind.kind in ("float", "double") and kind.scale is not None:
        return lambda value: float(number_text(float(value), kind.scale or 0))
    if kind.kind == "float":
        return lambda value: float(f"{value:.6g}")
    if kind == DATETIME:
        return datetime.fromisoformat
    simple: dict[Type, Converter] = {INT: int, DOUBLE: float, DATE: date.fromisoformat}
    return simple.get(kind, str)


def _authorise(action: int, one: str | None, other: str | None, *rest: str | None) -> int:
    allowed = action in _READS or (
        action == sqlite3.SQLITE_FUNCTION and str(other).lower() in ALLOWED
    )
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _parsed(sql: str) -> list[Any]:
    """The nodes of one query, the root first. Raises SqlError for a syntax error, for a statement
    that does not only read, and for one that is too large."""
    if not sql or len(sql) > engine.MAX_LENGTH:
        raise SqlError(engine.TOO_LONG if sql else engine.EMPTY)
    try:
        tokens = list(_DIALECT.tokenize(sql))
        _check_tokens(tokens)
        (tree,) = _DIALECT.parser().parse(tokens, sql)
    except ParseError as error:
        first = error.errors[0]
        raise _near(f"{first['highlight']}{first['end_context']}", first["line"]) from None
    except (SqlglotError, ValueError):
        raise _near(sql, 1) from None
    if not isinstance(tree, exp.Query):
        raise _near(sql, 1)
    nodes = list(tree.walk())
    for node in nodes:
        if isinstance(node, exp.Into | exp.Lock):
            raise SqlError(engine.READ_ONLY)
        if _is_reserved(node):
            raise _near(sql[node.meta.get("start", 0) :], node.meta.get("line", 1))
    return nodes


def _is_reserved(node: Any) -> bool:
    """Whether SQLGlot takes a reserved word for a name. After a point, MySQL does so, too."""
    if not isinstance(node, exp.Identifier) or node.quoted or node.name.lower() not in _RESERVED:
        return False
    return node.parent is not None and not node.parent.args.get("table")


def _check_tokens(tokens: list[Any]) -> None:
    """Raises SqlError for what would overrun the parser, and for COUNT (*): with a space before the
    bracket, it is not MySQL's own function. Raises ValueError for what is no query."""
    words, depth = [token.text.upper() for token in tokens], 0
    if not words or words[0] not in ("SELECT", "WITH", "("):
        raise ValueError(words)
    for place, word in enumerate(words[1:], 1):
        depth += (word == "(") - (word == ")")
        spaced = word == "(" and tokens[place].start > tokens[place - 1].end + 1
        if spaced and words[place - 1] in ("COUNT", "SUM", "AVG", "MIN", "MAX"):
            raise SqlError(
                f"FUNCTION {words[place - 1]} does not exist: its bracket must follow at once"
            )
        if depth > MAX_DEPTH:
            raise SqlError(_TOO_DEEP)
    if len(tokens) > MAX_TOKENS or words.count("JOIN") - words.count("ON") > MAX_BARE_JOINS:
        raise SqlError(_TOO_DEEP)


def _near(text: str, line: int) -> SqlError:
    return SqlError(
        "You have an error in your SQL syntax; check the manual that corresponds to your MySQL "
        f"server version for the right syntax to use near '{text[:80]}' at line {line}"
    )
