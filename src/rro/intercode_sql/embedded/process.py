"""A process of its own for the statements: they can neither hold this one's threads nor fill its
memory, and its threads do not slow them down. Knows nothing of SQL."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import weakref
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rro.errors import RroError
from rro.intercode_sql.engine import Result

# Seconds of processor time, and of any time, after which the process is ended. Statements end long
# before, by the count of their work; an answer never depends on these.
MAX_SECONDS, MAX_WAIT = 2.0, 120.0
# Bytes that the process may take in addition to those with which it begins.
MAX_MEMORY = 200_000_000
# Cells in one message. Reading one holds the interpreter.
_CELLS = 10_000


class Statements:
    """Answers statements in another process, which it starts, and starts anew if it has ended.

    `arguments` are those of `rro.intercode_sql.embedded.sqlite.Runner`. For one thread at a time.
    """

    def __init__(self, *arguments: Any) -> None:
        self._arguments, self._owner = arguments, 0

    def run(self, database: str, sql: str) -> tuple[Result, str]:
        """The result of a statement, and a warning or "". Raises RroError if there is none because
        the process came to a limit or was ended."""
        # A forked process must not use the pipe of the one that forked it.
        if self._owner != os.getpid():
            self._start()
        try:
            self._pipe.send((database, sql))
            return self._received()
        except (EOFError, OSError):
            self.close()
            raise RroError(
                "the process of the embedded SQL engine ended within a statement, which may have "
                f"taken more than {MAX_SECONDS:g} s of processor time"
            ) from None
        except BaseException:  # the answer would be taken for that of the next statement
            self.close()
            raise

    def close(self) -> None:
        """End the process."""
        if self._owner == os.getpid():
            self._end()
        self._owner = 0

    def _received(self) -> tuple[Result, str]:
        if not self._pipe.poll(MAX_WAIT):
            raise EOFError
        database, error, warning, rows, more = self._pipe.recv()
        for _ in range(more):
            rows += self._pipe.recv()
        return Result(database, rows if rows is None else tuple(rows), error), warning

    def _start(self) -> None:
        self._pipe, theirs = Pipe()
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            f"from rro.intercode_sql.embedded.process import serve; serve({theirs.fileno()})"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self._owner = os.getpid()
        self._end = weakref.finalize(self, _end, process, self._pipe, self._owner)
        self._pipe.send(self._arguments)


def _end(process: subprocess.Popen[bytes], pipe: Connection, owner: int) -> None:
    if owner == os.getpid():
        pipe.close()
        process.kill()
        process.wait()


def serve(descriptor: int) -> None:
    """The other process: answers statements until the pipe ends."""
    from rro.intercode_sql.embedded.sqlite import Runner

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe = Connection(descriptor)
    with suppress(EOFError, OSError):
        runner = Runner(*pipe.recv())
        _limit_memory()
        gc.freeze()  # what is there stays, and need not be gone through again
        while True:
            database, sql = pipe.recv()
            signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
            _send(pipe, *runner.run(database, sql))
            signal.setitimer(signal.ITIMER_PROF, 0)


def _send(pipe: Connection, result: Result, warning: str) -> None:
    rows, parts = result.rows, []
    if rows:
        size = max(1, _CELLS // len(rows[0]))
        parts = [list(rows[place : place + size]) for place in range(0, len(rows), size)]
    first = None if rows is None else parts[0] if parts else []
    pipe.send((result.database, result.error, warning, first, max(0, len(parts) - 1)))
    for part in parts[1:]:
        pipe.send(part)


def _limit_memory() -> None:
    with suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        size = pages * resource.getpagesize() + MAX_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
