"""What runs SQL for the environment: the contract of an engine, its results, and their cache.

An engine holds no session: the database in use comes with each statement and goes back with its
result, so episodes that share an engine cannot touch each other."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

ROWS = 20_000  # of one result
CHARACTERS = 20_000_000  # of one result, roughly
MAX_LENGTH = 20_000  # characters of one statement
INTERRUPTED = "Query execution was interrupted, maximum statement execution time exceeded"
READ_ONLY = "Cannot execute statement in a READ ONLY transaction."
TOO_LONG = "Got a packet bigger than 'max_allowed_packet' bytes"
EMPTY = "Query was empty"
CACHED_STATEMENTS = 20_000
CACHED_CELLS = 2_000_000


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


WRITES = words(
    """INSERT UPDATE DELETE REPLACE CREATE ALTER DROP TRUNCATE RENAME GRANT REVOKE LOAD LOCK UNLOCK SET CALL DO HANDLER BEGIN START
    COMMIT ROLLBACK SAVEPOINT PREPARE EXECUTE DEALLOCATE KILL FLUSH RESET ANALYZE OPTIMIZE REPAIR CHECK IMPORT INSTALL
    UNINSTALL SHUTDOWN RESTART PURGE CHANGE XA SIGNAL RESIGNAL GET BINLOG CACHE CLONE STOP"""
)  # first words of statements that do not ask


def cleaned(sql: str) -> str:
    """The text that the server parses: without blanks around it and semicolons behind it."""
    return sql.strip().rstrip("; \t\r\n")


def too_many_rows(limit: int) -> str:
    return f"Result set exceeds the limit of {limit} rows"


@dataclass(frozen=True)
class Result:
    """The answer to a statement: `rows` as Python's MySQL drivers give them, or None where there is
    no result set; `error` is MySQL's message; `database` is the one in use afterwards."""

    database: str
    rows: tuple[tuple[Any, ...], ...] | None = None
    error: str | None = None

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """Each row as text: what rewards compare."""
        return tuple(map(str, self.rows or ()))

    @cached_property
    def text(self) -> str:
        """The observation: the list of rows as Python writes it, or the error."""
        if self.error is not None:
            return f"Error executing query: {self.error}"
        return "" if self.rows is None else f"[{', '.join(self.texts)}]"


class Engine(Protocol):
    """`execute` never raises for what the SQL says. `blocking`: it waits for something outside this
    process."""

    name: str
    blocking: bool

    def execute(self, database: str, sql: str) -> Result: ...

    def close(self) -> None: ...


class Cache:
    """The latest results by (database, statement), bounded in number and in cells."""

    def __init__(self, statements: int = CACHED_STATEMENTS, cells: int = CACHED_CELLS) -> None:
        self._statements, self._cells = statements, cells
        self._held: OrderedDict[tuple[str, str], Result] = OrderedDict()
        self._weight, self._lock = 0, threading.Lock()

    def get(self, key: tuple[str, str]) -> Result | None:
        with self._lock:
            found = self._held.get(key)
            if found is not None:
                self._held.move_to_end(key)
            return found

    def put(self, key: tuple[str, str], result: Result) -> None:
        with self._lock:
            self._weight += _cells(result) - (
                _cells(self._held.pop(key)) if key in self._held else 0
            )
            self._held[key] = result
            while len(self._held) > self._statements or (
                self._weight > self._cells and len(self._held) > 1
            ):
                self._weight -= _cells(self._held.popitem(last=False)[1])

    def clear(self) -> None:
        with self._lock:
            self._held.clear()
            self._weight = 0


def _cells(result: Result) -> int:
    return 1 + len(result.rows) * len(result.rows[0]) if result.rows else 1
