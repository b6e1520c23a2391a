"""Engines, which run SQL: their interface, the results, and a cache of results.

An engine has no session: each statement comes with the database in use, and the result has the one
in use afterwards. So episodes that share an engine cannot affect each other. Knows nothing of tasks
or rewards.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from sys import getsizeof
from typing import Any, Protocol


class SqlError(Exception):
    """MySQL answers the statement with an error; the text is its message."""


# Limits of one result: rows, and bytes of this process's memory.
MAX_ROWS = 20_000
MAX_BYTES = 32_000_000
# Limit of one statement, in characters.
MAX_LENGTH = 20_000
# The current time and RAND() are fixed, so that replaying an episode gives the same results.
TODAY, RANDOM = "2026-11-22", 0.15522042769493574
# MySQL's messages.
INTERRUPTED = "Query execution was interrupted, maximum statement execution time exceeded"
READ_ONLY = "Cannot execute statement in a READ ONLY transaction."
TOO_LONG = "Got a packet bigger than 'max_allowed_packet' bytes"
EMPTY = "Query was empty"
TOO_DEEP = "Thread stack overrun: the statement is nested too deeply"
CACHED_STATEMENTS = 20_000
CACHED_BYTES = 64_000_000


_WRITES = """
    INSERT UPDATE DELETE REPLACE CREATE ALTER DROP TRUNCATE RENAME GRANT REVOKE LOAD LOCK UNLOCK SET
    CALL DO HANDLER BEGIN START COMMIT ROLLBACK SAVEPOINT PREPARE EXECUTE DEALLOCATE KILL FLUSH
    RESET ANALYZE OPTIMIZE REPAIR CHECK IMPORT INSTALL UNINSTALL SHUTDOWN RESTART PURGE CHANGE XA
    SIGNAL RESIGNAL GET BINLOG CACHE CLONE STOP BACKUP CHECKSUM HELP IF CASE LOOP WHILE FOR"""
# First words of statements that are refused: they do more than read.
WRITES = frozenset(_WRITES.split())
_VOLATILE = """
    UUID UUID_SHORT UUID_V4 UUID_V7 SYS_GUID SYSDATE SLEEP BENCHMARK CONNECTION_ID LAST_INSERT_ID
    FOUND_ROWS ROW_COUNT GET_LOCK RELEASE_LOCK RELEASE_ALL_LOCKS IS_FREE_LOCK IS_USED_LOCK LOAD_FILE
    USER CURRENT_USER SESSION_USER SYSTEM_USER CURRENT_ROLE RANDOM_BYTES ENCRYPT DES_ENCRYPT
    MASTER_POS_WAIT MASTER_GTID_WAIT SOURCE_POS_WAIT WAIT_FOR_EXECUTED_GTID_SET NEXTVAL LASTVAL
    WAIT_UNTIL_SQL_THREAD_AFTER_GTIDS SETVAL BINLOG_GTID_POS PS_THREAD_ID PS_CURRENT_THREAD_ID
    PERCONA_VERSION WSREP_LAST_WRITTEN_GTID WSREP_LAST_SEEN_GTID WSREP_SYNC_WAIT_UPTO_GTID"""
# Functions that are refused: their value depends on the session, the server, or chance, or they
# reach files, locks or time.
VOLATILE = frozenset(_VOLATILE.split())
_MAY_BE_VOLATILE = VOLATILE | {"RAND"}
_LEXEMES = re.compile(
    r"""(?P<comment>/\*.*?(?:\*/|\Z)|\#[^\n]*|--(?=[\s\x00-\x1f]|\Z)[^\n]*)
    | (?P<text>'(?:[^'\\]|\\.|'')*(?:'|\Z)|"(?:[^"\\]|\\.|"")*(?:"|\Z))
    | (?P<name>`[^`]*(?:`|\Z)) | (?P<word>[\w$]+) | (?P<space>\s+) | (?P<sign>.)""",
    re.DOTALL | re.VERBOSE,
)


def lexemes(sql: str) -> Iterator[tuple[str, str]]:
    """The parts of a statement as MySQL reads them, each with its kind: comment, text, name (in
    backquotes), word, space or sign."""
    return ((str(match.lastgroup), match[0]) for match in _LEXEMES.finditer(sql))


def volatile(sql: str) -> str | None:
    """The error for a statement that uses a function or a variable whose value may differ when the
    statement is replayed; None for any other."""
    if "@" not in sql and _MAY_BE_VOLATILE.isdisjoint(re.findall(r"\w+", sql.upper())):
        return None
    parts = [part for part in lexemes(sql) if part[0] not in ("comment", "space")]
    for place, (kind, part) in enumerate(parts):
        name, after = part.upper(), [text for _, text in parts[place + 1 : place + 3]]
        if (kind, part) == ("sign", "@"):
            return "Access denied; variables are not available"
        called = after[:1] == ["("] or name in ("CURRENT_USER", "CURRENT_ROLE")
        if (
            kind == "word"
            and called
            and (name in VOLATILE or (name == "RAND" and after[1:] != [")"]))
        ):
            return denied(name)
    return None


def denied(routine: str) -> str:
    """The error for a function that is refused."""
    return f"execute command denied to user ''@'%' for routine '{routine.lower()}'"


def syntax_error(text: str, line: int = 1) -> str:
    """The error for a statement that MySQL cannot parse from `text` on."""
    return (
        "You have an error in your SQL syntax; check the manual that corresponds to your MySQL "
        f"server version for the right syntax to use near '{text[:80]}' at line {line}"
    )


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
        # Not by map, which would not let other threads run before it ends.
        return tuple([str(row) for row in self.rows or ()])

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
        """Run one statement with `database` in use. Its error is a result. Raises RroError if the
        engine itself fails, so that there is no answer."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...


class Cache:
    """The most recently used results, by database and statement. Safe to share between threads.

    Holds at most `statements` results, which take about `size` bytes in all.
    """

    def __init__(self, statements: int = CACHED_STATEMENTS, size: int = CACHED_BYTES) -> None:
        self._statements, self._size = statements, size
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
        weight = _weight(key, result)
        with self._lock:
            if key in self._held:
                self._weight -= _weight(key, self._held.pop(key))
            self._held[key] = result
            self._weight += weight
            while len(self._held) > 1 and self._is_full():
                self._weight -= _weight(*self._held.popitem(last=False))

    def _is_full(self) -> bool:
        return len(self._held) > self._statements or self._weight > self._size

    def clear(self) -> None:
        """Drop all results."""
        with self._lock:
            self._held.clear()
            self._weight = 0


def row_bytes(row: tuple[Any, ...]) -> int:
    """The memory of a row."""
    return getsizeof(row) + sum(map(getsizeof, row))


def _weight(key: tuple[str, str], result: Result) -> int:
    """The memory of a result, twice over for the texts that are made of it."""
    return 500 + getsizeof(key[1]) + 2 * sum(map(row_bytes, result.rows or ()))
