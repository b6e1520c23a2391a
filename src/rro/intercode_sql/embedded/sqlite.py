"""The embedded engine: one statement from text to rows, within its limits, and nothing written."""

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

STEPS = 3_000_000  # of SQLite's machine for one statement; no recorded one takes more than 700,000
SECONDS = 1.0  # of processor time for one statement, whose steps may be long ones
MAX_TEXT = 2_000_000  # bytes of one value within SQLite
# SQLGlot's parser recurses, and takes exponential time for joins without ON.
MAX_DEPTH, MAX_TOKENS, MAX_BARE_JOINS = 60, 4_000, 8
_LOOK = 2_000  # steps between two looks at the limits
_DIALECT = MySQL()
_RESERVED = MySQL.Generator.RESERVED_KEYWORDS
_READS = (sqlite3.SQLITE_READ, sqlite3.SQLITE_SELECT)
_TOO_DEEP = "Thread stack overrun: the statement is nested too deeply"
_MESSAGES = {  # of SQLite, and what MySQL says instead
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
    """MySQL's dialect on SQLite, in process. Reads only: the file is opened read-only, `query_only`
    is set, and an authoriser refuses all but reading. Safe to share between threads."""

    name = "sqlite"
    blocking = False

    def __init__(
        self, dump: Path, cache: Path | None = None, steps: int = STEPS, rows: int = engine.MAX_ROWS
    ) -> None:
        """`dump`: MySQL's dump of all databases; `cache`: the folder for the built file. A
        statement may take `steps` of SQLite's machine, the same on every computer, and give `rows`.
        Raises DataError for a file that is no dump."""
        self.catalogue, self._connection = open_store(dump, cache)
        self._steps, self._rows = steps, rows
        self._left, self._deadline = 0, 0.0
        self._lock = threading.RLock()
        self.cache = Cache()
        register(self._connection)
        self._connection.execute("PRAGMA query_only=ON")
        self._connection.set_authorizer(_authorise)
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_TEXT)
        self._connection.set_progress_handler(self._look, min(_LOOK, steps))

    def execute(self, database: str, sql: str) -> Result:
        """Run one statement with `database` in use."""
        sql = engine.cleaned(sql)
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
            return shown(self.catalogue, database, sql) or Result(
                database, self._selected(database, sql)
            )
        except SqlError as error:
            return Result(database, error=str(error))
        except sqlite3.Error as error:
            found = ((re.search(part, str(error)), message) for part, message in _MESSAGES.items())
            return Result(
                database,
                error=next(
                    m.format(*match.groups(), database=database) for match, m in found if match
                ),
            )
        except (RecursionError, MemoryError):
            return Result(database, error=_TOO_DEEP)
        except (
            Exception
        ) as error:  # an agent's text must never end a run: what is not foreseen is an answer, too
            log.warning("not foreseen: %s in %r", repr(error)[:200], sql[:500])
            return Result(database, error="Unknown error")

    def _selected(self, database: str, sql: str) -> tuple[tuple[Any, ...], ...]:
        nodes = _parsed(sql)
        query = Queries(self.catalogue, database, nodes).query(nodes[0])
        self._left, self._deadline = (
            self._steps // min(_LOOK, self._steps),
            time.thread_time() + SECONDS,
        )
        rows: list[tuple[Any, ...]] = []
        size, cursor = 0, self._connection.execute(query.sql)
        while batch := cursor.fetchmany(1000):
            rows += batch
            size += sum(len(value) for row in batch for value in row if isinstance(value, str))
            if len(rows) > self._rows or size > engine.MAX_CHARACTERS:
                raise SqlError(engine.too_many_rows(self._rows))
        shows = [_renderer(column.type) for column in query.columns]
        try:
            return tuple(
                tuple(v if v is None else show(v) for v, show in zip(row, shows, strict=True))
                for row in rows
            )
        except (ValueError, ArithmeticError):  # infinity, and dates that are none
            raise SqlError("A value is out of range") from None

    def _look(self) -> int:
        """Called back from within a statement: not 0 stops it."""
        self._left -= 1
        return int(self._left < 0 or time.thread_time() > self._deadline)


def _renderer(kind: Type) -> Callable[[Any], Any]:
    """From SQLite's values of a type to those of Python's MySQL drivers."""
    if kind.kind == "decimal":
        return lambda value: Decimal(number_text(value, kind.scale or 0))
    if kind.kind in ("float", "double") and kind.scale is not None:
        return lambda value: float(number_text(float(value), kind.scale or 0))
    if kind.kind == "float":
        return lambda value: float(f"{value:.6g}")
    shows: dict[Type, Callable[[Any], Any]] = {INT: int, DOUBLE: float, DATE: date.fromisoformat}
    return shows.get(kind, datetime.fromisoformat if kind == DATETIME else str)


def _authorise(action: int, one: str | None, other: str | None, *rest: str | None) -> int:
    allowed = action in _READS or (
        action == sqlite3.SQLITE_FUNCTION and str(other).lower() in ALLOWED
    )
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _parsed(sql: str) -> list[Any]:
    """The nodes of one query, the root first. Raises SqlError for what SQLGlot's grammar refuses,
    and for what is too large."""
    if not sql or len(sql) > engine.MAX_LENGTH:
        raise SqlError(engine.TOO_LONG if sql else engine.EMPTY)
    try:
        tokens = list(_DIALECT.tokenize(sql))
        _check_tokens(tokens)
        (tree,) = _DIALECT.parser().parse(tokens, sql)
    except ParseError as error:
        found = error.errors[0]
        raise _near(f"{found['highlight']}{found['end_context']}", found["line"]) from None
    except (SqlglotError, ValueError):
        raise _near(sql, 1) from None
    if not isinstance(tree, exp.Query):
        raise _near(sql, 1)
    nodes = list(tree.walk())
    for node in nodes:
        if isinstance(node, exp.Into | exp.Lock):
            raise SqlError(engine.READ_ONLY)
        reserved = (
            isinstance(node, exp.Identifier) and not node.quoted and node.name.lower() in _RESERVED
        )
        if (
            reserved and node.parent is not None and not node.parent.args.get("table")
        ):  # SQLGlot takes it for a name
            raise _near(sql[node.meta.get("start", 0) :], node.meta.get("line", 1))
    return nodes


def _check_tokens(tokens: list[Any]) -> None:
    """Refuse what would overrun the parser, and COUNT (*): a name torn off its bracket is not
    MySQL's own function."""
    words, depth = [token.text.upper() for token in tokens], 0
    if not words or words[0] not in ("SELECT", "WITH", "("):
        raise ValueError(words)
    for place, word in enumerate(words[1:], 1):
        depth += (word == "(") - (word == ")")
        torn = word == "(" and tokens[place].start > tokens[place - 1].end + 1
        if torn and words[place - 1] in ("COUNT", "SUM", "AVG", "MIN", "MAX"):
            raise SqlError(
                f"FUNCTION {words[place - 1]} does not exist: its bracket must follow at once"
            )
        if depth > MAX_DEPTH:
            raise SqlError(_TOO_DEEP)
    if len(tokens) > MAX_TOKENS or words.count("JOIN") - words.count("ON") > MAX_BARE_JOINS:
        raise SqlError(_TOO_DEEP)


def _near(text: str, line: int) -> SqlError:
    return SqlError(
        "You have an error in your SQL syntax; check the manual that corresponds to your MySQL server version for the right "
        f"syntax to use near '{text[:80]}' at line {line}"
    )
