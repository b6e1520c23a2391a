"""Calls into environments from an event loop, each within a time limit: one that is slow or hangs
does not delay the others.

Environments that only compute share one thread. A call that takes long keeps that thread, and the
others go on in a new one. Each call of an environment that blocks, or once took long, has its own
thread, so that no pool can be used up. All are daemon threads: none keeps the process alive."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary, finalize

from rro.environments.base import Benchmark, Environment
from rro.errors import PluginError, RroError

T = TypeVar("T")
log = logging.getLogger(__name__)

# Seconds after which a call no longer holds up the others.
PATIENCE = 3.0
# Threads that may be left hanging: a process can only have some thousands.
MOST_HANGING = 1000
# Seconds: short calls that are made within them are reported together, as waking the event loop
# takes longer than they do.
_REPORT_INTERVAL = 0.001


async def call_with_timeout(
    owner: Environment | Benchmark, timeout: float, work: Callable[[], T]
) -> T:
    """Call into an environment, or into a benchmark that makes one; gives what the call does.

    Raises TimeoutError if it takes longer than `timeout` seconds from its start; RroError if so
    many calls hang that the process cannot go on."""
    loop = asyncio.get_running_loop()
    shared = _threads.get(loop) or _new_thread(loop)
    kind = type(owner.unwrapped if isinstance(owner, Environment) else owner)
    call = _Call(work, kind, timeout, shared, loop)
    if getattr(owner, "blocking", False) or kind in shared.slow:
        threading.Thread(target=call.run_alone, daemon=True, name=kind.__name__).start()
    else:
        shared.put(call)
    return await call.result()


def hanging_calls() -> int:
    """How many calls ran out of time and have not come back yet."""
    return len(_hanging)


class _Abandoned(BaseException):
    """Raised in a thread that hangs in Python code, so that it ends."""


class _Call(Generic[T]):
    """One call: run in some thread, awaited in the event loop. `kind` is the class of its owner."""

    def __init__(
        self,
        work: Callable[[], T],
        kind: type,
        timeout: float,
        shared: _SharedThread,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.kind, self.loop, self.thread = kind, loop, 0
        self._work, self._timeout, self._shared = work, timeout, shared
        self._outcome: tuple[T | None, BaseException | None]
        self._answer: asyncio.Future[None] = loop.create_future()
        self._started, self._ended = 0.0, False
        self._ending = threading.Lock()

    def run(self) -> None:
        """In a thread. Does nothing if no one waits for the result any more."""
        if self._answer.done():
            return
        self.thread, self._started = threading.get_ident(), time.monotonic()
        with suppress(_Abandoned):
            try:
                self._outcome = self._work(), None
            except (StopIteration, StopAsyncIteration) as error:
                # No coroutine can raise them.
                self._outcome = None, PluginError(error)
            except (Exception, _Abandoned) as error:
                self._outcome = None, error
            except BaseException as error:
                # Ctrl-C goes to the main thread: SystemExit, KeyboardInterrupt and the like are
                # the environment's own.
                self._outcome = None, PluginError(error)
            with self._ending:
                self._ended = True
            self._shared.finished.append(self)
        _hanging.discard(self)

    def run_alone(self) -> None:
        """In a thread of its own."""
        self.run()
        self._shared.report(self.loop)

    def deliver(self) -> None:
        """In the event loop: the result is there."""
        if not self._answer.done():
            self._answer.set_result(None)

    async def result(self) -> T:
        """In the event loop: what the call returned or raised, or TimeoutError."""
        self._timer = self.loop.call_later(min(PATIENCE, self._timeout), self._check_time)
        try:
            await self._answer
        finally:
            self._answer.cancel()
            self._timer.cancel()
        result, error = self._outcome
        if error is not None:
            raise error
        return result  # type: ignore[return-value]

    def _check_time(self) -> None:
        """In the event loop, whenever the call may have reached a limit."""
        running = self._started and not self._ended
        taken = time.monotonic() - self._started if running else 0.0
        if taken >= min(PATIENCE, self._timeout):
            self._shared.hand_over(self)
        if taken >= self._timeout:
            self._give_up()
        else:
            limit = self._timeout if taken >= PATIENCE else min(PATIENCE, self._timeout)
            self._timer = self.loop.call_later(limit - taken, self._check_time)

    def _give_up(self) -> None:
        name = self.kind.__name__
        with self._ending:
            if self._ended:  # just now
                return
            _hanging.add(self)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self.thread), ctypes.py_object(_Abandoned)
            )
        error: Exception = TimeoutError(f"{name} did not answer within {self._timeout:g} s")
        if len(_hanging) >= MOST_HANGING:
            error = RroError(
                f"{len(_hanging)} calls of {name} never came back; fix what they wait for, then "
                "resume the run"
            )
        self._answer.set_exception(error)


class _SharedThread:
    """An event loop's thread for short calls, which it runs one after another and reports in
    groups. `slow` are the classes that had a long call."""

    def __init__(self) -> None:
        self.slow: set[type] = set()
        self.finished: deque[_Call[Any]] = deque()
        # True: there are calls; False: there will be none any more.
        self.wake: SimpleQueue[bool] = SimpleQueue()
        self._waiting: deque[_Call[Any]] = deque()
        self._start()

    def put(self, call: _Call[Any]) -> None:
        """In the event loop: run this call after those that wait."""
        self._waiting.append(call)
        if len(self._waiting) == 1:  # else the thread was woken, or is at work
            call.loop.call_soon(self.wake.put, True)

    def hand_over(self, call: _Call[Any]) -> None:
        """Leave the thread to this call if it runs there; the others go on in a new one."""
        if call.thread == self._worker.ident:
            self.slow.add(call.kind)
            log.info(
                "a call of %s takes long: from now on each of its calls has its own thread",
                call.kind.__name__,
            )
            self._start()
            self._deliver()

    def report(self, loop: asyncio.AbstractEventLoop) -> None:
        """From any thread: have the event loop deliver what is finished."""
        try:
            loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:  # the loop has closed: no one waits any more
            self.finished.clear()

    def _deliver(self) -> None:
        while self.finished:
            self.finished.popleft().deliver()

    def _start(self) -> None:
        self._worker = threading.Thread(target=self._serve, daemon=True, name="environments")
        self._worker.start()

    def _serve(self) -> None:
        more = True
        while more and self._run_waiting():
            more = self.wake.get()
        # It may have been meant for the thread that took over.
        self.wake.put(more)

    def _run_waiting(self) -> bool:
        """Run the calls that wait; False if the thread was handed over to one of them."""
        reported = time.monotonic()
        while self._waiting:
            call = self._waiting.popleft()
            call.run()
            handed_over = self._worker is not threading.current_thread()
            late = time.monotonic() > reported + _REPORT_INTERVAL
            if handed_over or not self._waiting or late:
                self.report(call.loop)
                reported = time.monotonic()
            if handed_over:
                return False
        return True


_hanging = set[_Call[Any]]()
_threads: WeakKeyDictionary[asyncio.AbstractEventLoop, _SharedThread] = WeakKeyDictionary()


def _new_thread(loop: asyncio.AbstractEventLoop) -> _SharedThread:
    """One for each event loop: a forked process has its parent's loops, but none of its threads."""
    shared = _threads[loop] = _SharedThread()
    finalize(loop, shared.wake.put, False).atexit = False
    return shared
