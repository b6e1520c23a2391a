"""Engines, which run SQL: their interface, the results, and a cache of results.

An engine has no session: each statement comes with the database in use, and the result has the one
in use afterwards. So episodes that share an engine cannot affect each other. Knows nothing of tasks
or rewards.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

# Limits of one result. The characters are those of texts alone.
MAX_ROWS = 20_000
MAX_CHARACTERS = 20_000_000
# Limit of one statement, in characters.
MAX_LENGTH = 20_000
# MySQL's messages.
INTERRUPTED = "Query execution was interrupted, maximum statement execution time exceeded"
READ_ONLY = "Cannot execute statement in a READ ONLY transaction."
TOO_LONG = "Got a packet bigger than 'max_allowed_packet' bytes"
EMPTY = "Query was empty"
CACHED_STATEMENTS = 20_000
CACHED_CELLS = 2_000_000


_WRITES = """
    INSERT UPDATE DELETE REPLACE CREATE ALTER DROP TRUNCATE RENAME GRANT REVOKE LOAD LOCK UNLOCK SET
    CALL DO HANDLER BEGIN START COMMIT ROLLBACK SAVEPOINT PREPARE EXECUTE DEALLOCATE KILL FLUSH
    RESET ANALYZE OPTIMIZE REPAIR CHECK IMPORT INSTALL UNINSTALL SHUTDOWN RESTART PURGE CHANGE XA
    SIGNAL RESIGNAL GET BINLOG CACHE CLONE STOP"""
# First words of statements that are refused: they do more than read.
WRITES = frozenset(_WRITES.split())


def cleaned(sql: str) -> str:
    """The statement without surrounding whitespace and final semicolons."""
    return sql.strip().rstrip("; \t\r\n")


def too_many_rows(limit: int) -> str:
    """The error for a result of more than `limit` rows."""
    return f"Result set exceeds the limit of {limit} rows"


@dataclass(frozen=True)
class Result:
    """The result of a statement."""

    database: str
    """The database in use afterwards."""
    rows: tuple[tuple[Any, ...], ...] | None = None
    """The rows, with the values of Python's MySQL drivers. None if there is no result set."""
    error: str | None = None
    """MySQL's error message."""

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """Each row as text, which is what rewards compare."""
        return tuple(map(str, self.rows or ()))

    @cached_property
    def text(self) -> str:
        """The observation: the rows as Python displays a list of tuples, or the error."""
        if self.error is not None:
            return f"Error executing query: {self.error}"
        return "" if self.rows is None else f"[{', '.join(self.texts)}]"


class Engine(Protocol):
    """Runs SQL for any number of episodes at once."""

    name: str
    """Name and version, for the run folder."""
    blocking: bool
    """Whether `execute` waits for something outside this process."""

    def execute(self, database: str, sql: str) -> Result:
        """Run one statement with `database` in use. No statement raises: its error is a result."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...


class Cache:
    """The most recently used results, by database and statement. Safe to share between threads.

    Holds at most `statements` results with at most `cells` values in all.
    """

    def __init__(self, statements: int = CACHED_STATEMENTS, cells: int = CACHED_CELLS) -> None:
        self._statements, self._cells = statements, cells
        self._held: OrderedDict[tuple[str, str], Result] = OrderedDict()
        self._weight, self._lock = 0, threading.Lock()

    def get(self, key: tuple[str, str]) -> Result | None:
        """The result of a key, or None."""
        with self._lock:
            result = self._held.get(key)
            if result is not None:
                self._held.move_to_end(key)
            return result

    def put(self, key: tuple[str, str], result: Result) -> None:
        """Store a result, and drop the least recently used ones beyond the limits."""
        with self._lock:
            if key in self._held:
                self._weight -= _cells(self._held.pop(key))
            self._held[key] = result
            self._weight += _cells(result)
            while len(self._held) > 1 and self._is_full():
                self._weight -= _cells(self._held.popitem(last=False)[1])

    def _is_full(self) -> bool:
        return len(self._held) > self._statements or self._weight > self._cells

    def clear(self) -> None:
        """Drop all results."""
        with self._lock:
            self._held.clear()
            self._weight = 0


def _cells(result: Result) -> int:
    return 1 + len(result.rows) * len(result.rows[0]) if result.rows else 1
