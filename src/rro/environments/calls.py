"""Calls into environments from an event loop, each within a time limit: one that is slow or hangs
stalls no other.

Environments that only compute are called in turn, in one thread: that is as fast as it gets where
Python runs one thread at a time. A call that takes long keeps that thread, and the others go on in
a new one. Environments that block, and those that once took long, have a thread for each call, so
that no pool can be used up. All are daemon threads: none keeps the process alive."""

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
from rro.errors import RroError

T = TypeVar("T")
log = logging.getLogger(__name__)

PATIENCE = 3.0  # seconds after which a call no longer holds up the others
MOST_HANGING = 1000  # threads that may be left behind: a process may have only some thousands
# seconds: short calls made within them are reported together, as waking the event loop takes longer
# than they do
_TELL = 0.001


async def call_with_timeout(
    owner: Environment | Benchmark, timeout: float, work: Callable[[], T]
) -> T:
    """Call into an environment, or into a benchmark that makes one: its result, or what it raised.
    Raises TimeoutError past `timeout` seconds from when the call began; RroError where so many
    calls hang that the process cannot go on."""
    loop = asyncio.get_running_loop()
    lane = _lanes.get(loop) or _new_lane(loop)
    kind = type(owner.unwrapped if isinstance(owner, Environment) else owner)
    call = _Call(work, kind, timeout, lane, loop)
    if getattr(owner, "blocking", False) or kind in lane.slow:
        threading.Thread(target=call.make_alone, daemon=True, name=kind.__name__).start()
    else:
        lane.put(call)
    return await call.result()


class _Abandoned(BaseException):
    """Raised in a thread that hangs in Python code, so that it ends and leaves the processor to the
    others."""


class _Call(Generic[T]):
    """One call: made in some thread, awaited in the event loop."""

    def __init__(
        self,
        work: Callable[[], T],
        kind: type,
        timeout: float,
        lane: _Lane,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.kind, self.loop, self._work, self._timeout, self._lane = (
            kind,
            loop,
            work,
            timeout,
            lane,
        )
        self._outcome: tuple[T | None, BaseException | None]
        self._answer: asyncio.Future[None] = loop.create_future()
        self._begun, self.thread, self._ended = 0.0, 0, False
        self._ending = threading.Lock()

    def make(self) -> None:
        """In a thread. Nothing is done where no one waits any more."""
        if self._answer.done():
            return
        self.thread, self._begun = threading.get_ident(), time.monotonic()
        with suppress(_Abandoned):
            try:
                self._outcome = self._work(), None
            except BaseException as error:
                self._outcome = None, error
            with self._ending:
                self._ended = True
            self._lane.made.append(self)
        _hanging.discard(self)

    def make_alone(self) -> None:
        """In a thread of its own."""
        self.make()
        self._lane.tell(self.loop)

    def deliver(self) -> None:
        """In the event loop."""
        if not self._answer.done():
            self._answer.set_result(None)

    async def result(self) -> T:
        self._timer = self.loop.call_later(min(PATIENCE, self._timeout), self._look)
        try:
            await self._answer
        finally:
            self._answer.cancel()
            self._timer.cancel()
        result, error = self._outcome
        if error is not None:
            raise error
        return result  # type: ignore[return-value]

    def _look(self) -> None:
        """In the event loop, whenever the call may have come to a limit."""
        taken = time.monotonic() - self._begun if self._begun and not self._ended else 0.0
        if taken >= min(PATIENCE, self._timeout):
            self._lane.leave_to(self)
        if taken >= self._timeout:
            self._give_up()
        else:
            left = (self._timeout if taken >= PATIENCE else min(PATIENCE, self._timeout)) - taken
            self._timer = self.loop.call_later(left, self._look)

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
            what = f"{len(_hanging)} calls of {name} never came back; mend what they wait for, then resume the run"
            error = RroError(what)
        self._answer.set_exception(error)


class _Lane:
    """An event loop's thread for short calls, which it makes in turn. `slow` are the kinds of owner
    that had a long one.

    The two take turns: the thread begins once the event loop has nothing else to do, and reports
    all that it made together."""

    def __init__(self) -> None:
        self.slow: set[type] = set()
        self.made: deque[_Call[Any]] = deque()
        self.bell: SimpleQueue[bool] = (
            SimpleQueue()
        )  # True: there are calls; False: there will be none any more
        self._waiting: deque[_Call[Any]] = deque()
        self._start()

    def put(self, call: _Call[Any]) -> None:
        self._waiting.append(call)
        if len(self._waiting) == 1:  # else it has rung, or the thread is at work
            call.loop.call_soon(self.bell.put, True)

    def leave_to(self, call: _Call[Any]) -> None:
        """Leave the thread to this call if it is being made in it, and let a new one make the
        others."""
        if call.thread == self._worker.ident:
            self.slow.add(call.kind)
            log.info(
                "%s takes long: its calls get threads of their own, as of one that blocks",
                call.kind.__name__,
            )
            self._start()
            self._deliver()

    def tell(self, loop: asyncio.AbstractEventLoop) -> None:
        """From any thread: what was made is to be delivered."""
        try:
            loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:  # it has closed: no one waits any more
            self.made.clear()

    def _deliver(self) -> None:
        while self.made:
            self.made.popleft().deliver()

    def _start(self) -> None:
        self._worker = threading.Thread(target=self._work, daemon=True, name="environments")
        self._worker.start()

    def _work(self) -> None:
        rings = True
        while rings and self._make_waiting():
            rings = self.bell.get()
        self.bell.put(rings)  # it may have been meant for the thread that goes on

    def _make_waiting(self) -> bool:
        """Whether to go on in this thread: not where it was left to a call."""
        told = time.monotonic()
        while self._waiting:
            call = self._waiting.popleft()
            call.make()
            left = self._worker is not threading.current_thread()
            if left or not self._waiting or time.monotonic() > told + _TELL:
                self.tell(call.loop)
                told = time.monotonic()
            if left:
                return False
        return True


_hanging = set[_Call[Any]]()
_lanes: WeakKeyDictionary[asyncio.AbstractEventLoop, _Lane] = WeakKeyDictionary()


def _new_lane(loop: asyncio.AbstractEventLoop) -> _Lane:
    """A lane of the loop's own: a process that was forked off has the loops of its parent, and none
    of its threads."""
    lane = _lanes[loop] = _Lane()
    finalize(loop, lane.bell.put, False).atexit = False
    return lane
