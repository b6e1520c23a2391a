"""A pool of Ray actors that is kept at its size: one that ends, with its node or alone, is
replaced; one on a node that is being drained gets nothing new and is replaced; one for which there
is no room is used when a node joins. Knows nothing of what the actors do."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from rro.cluster.connection import check_room, leaving_nodes, shortage
from rro.config import RayConfig
from rro.errors import RroError, describe

log = logging.getLogger(__name__)

# Seconds between two looks at actors and nodes, and between two lines about waiting.
_LOOK_EVERY, _SAY_EVERY = 0.5, 60.0
# Seconds between two looks for a usable actor of those who wait for one.
_ASK_EVERY = 0.05
# Actors whose own code may fail one after another before any was ready, and seconds between two
# attempts at most.
_MOST_FALSE_STARTS, _LONGEST_PAUSE = 5, 30.0


class Member(Protocol):
    """What a pool knows of one of its actors: why it has ended (None: it has not), and how much it
    has to do."""

    ended: str | None
    load: int


M = TypeVar("M", bound=Member)


class Starting(NamedTuple):
    """An actor that begins: its handle, and the reference to what its first call returns, a dict
    with the id of its `node`."""

    handle: Any
    first: Any


@dataclass
class _Started(Generic[M]):
    handle: Any
    node: str
    member: M
    leaving: bool = False


class ActorPool(Generic[M]):
    """Keeps `size` actors. `what` is what they are called in the log. `start` begins one (from any
    thread); `adopt` makes a member of one that is ready, of its handle and of what its first call
    returned. Where there was none for `settings.patience` seconds, those who wait get an
    RroError."""

    def __init__(
        self,
        what: str,
        size: int,
        start: Callable[[], Starting],
        adopt: Callable[[Any, dict[str, Any]], M],
        settings: RayConfig,
    ) -> None:
        """Raises UsageError where the cluster can never have room for an actor."""
        check_room(settings, what, size)
        self._what, self._size, self._start, self._adopt = what, size, start, adopt
        self._settings = settings
        self._failure: Exception | None = None
        self._starting: list[Starting] = []
        self._started: list[_Started[M]] = []
        self._false_starts, self._pause_until, self._trouble = 0, 0.0, ""
        self._alone_since, self._said = time.monotonic(), time.monotonic()
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._fill()
        self._watcher = threading.Thread(target=self._watch, name=what, daemon=True)
        self._watcher.start()

    def usable(self) -> list[M]:
        """Those that can be given work now. Raises what keeps actors from starting."""
        if self._failure is not None:
            raise self._failure
        return [
            started.member
            for started in list(self._started)
            if started.member.ended is None and not started.leaving
        ]

    def started(self) -> list[tuple[Any, M]]:
        """The actors that are ready, with their handles; those that leave, too."""
        return [(started.handle, started.member) for started in list(self._started)]

    def wait_for_one(self) -> list[M]:
        """As `usable`, but waits until there is one. Raises RroError where that takes too long."""
        while not (members := self.usable()):
            self._check_patience()
            time.sleep(_ASK_EVERY)
        return members

    async def one(self) -> list[M]:
        """As `wait_for_one`, in an event loop."""
        while not (members := self.usable()):
            self._check_patience()
            await asyncio.sleep(_ASK_EVERY)
        return members

    def restart_starting(self) -> None:
        """Begin anew with those that are not ready: what they begin with is out of date."""
        with self._lock:
            old, self._starting = self._starting, []
        for starting in old:
            _kill(starting.handle)
        self._fill()

    def stop(self) -> None:
        """Replace no actor that ends from now on."""
        self._closed.set()

    def close(self) -> None:
        """End all actors."""
        import ray

        self._closed.set()
        self._watcher.join()
        if not ray.is_initialized():
            return
        with self._lock:
            handles = [starting.handle for starting in self._starting]
            handles += [started.handle for started in self._started]
            self._starting, self._started = [], []
        for handle in handles:
            _kill(handle)

    def _fill(self) -> None:
        with self._lock:
            staying = sum(not started.leaving for started in self._started)
            missing = self._size - staying - len(self._starting)
            pausing = time.monotonic() < self._pause_until
            if self._failure is None and not pausing and not self._closed.is_set():
                self._starting += [self._start() for _ in range(missing)]

    def _watch(self) -> None:
        import ray

        # where the connection was ended, asking would make another
        while not self._closed.wait(_LOOK_EVERY) and ray.is_initialized():
            try:
                self._look()
            except Exception as error:
                log.warning("%s: %s", self._what, describe(error))

    def _look(self) -> None:
        """Notice what has changed."""
        with self._lock:
            self._adopt_ready()
            self._drop_ended()
            self._leave_draining()
        self._fill()
        now = time.monotonic()
        if self._failure is not None or self.usable():
            self._alone_since = self._said = now
        elif now > self._said + _SAY_EVERY:
            self._said = now
            log.warning("waiting for the cluster: none of %d %s", self._size, self._what)

    def _adopt_ready(self) -> None:
        import ray

        by_first = {starting.first: starting for starting in self._starting}
        if not by_first:
            return
        ready, _ = ray.wait(list(by_first), num_returns=len(by_first), timeout=0)
        for starting in (by_first[first] for first in ready):
            self._starting.remove(starting)
            try:
                said: dict[str, Any] = ray.get(starting.first)
            except Exception as error:
                self._false_start(error)
            else:
                member = self._adopt(starting.handle, said)
                self._started.append(_Started(starting.handle, said["node"], member))
                self._false_starts = 0

    def _false_start(self, error: Exception) -> None:
        """What an actor's own code raised comes to the user. One that ended, with its node or for
        want of memory, is replaced after a pause, as long as there is patience."""
        cause = getattr(error, "cause", None)
        self._false_starts += 1
        self._trouble = describe(cause or error).splitlines()[0]
        if isinstance(cause, RroError):
            self._failure = cause
        elif cause is not None and self._false_starts >= _MOST_FALSE_STARTS and not self._started:
            self._failure = RroError(f"{self._what} do not start: {self._trouble}")
        else:
            pause = min(_LONGEST_PAUSE, 2.0**self._false_starts / 2)
            self._pause_until = time.monotonic() + pause
            log.warning("one of %s did not start: %s", self._what, self._trouble)

    def _drop_ended(self) -> None:
        for started in list(self._started):
            if started.member.ended is not None:
                log.warning("%s; another takes its place", started.member.ended)
                self._started.remove(started)
                _kill(started.handle)

    def _leave_draining(self) -> None:
        nodes = leaving_nodes()
        for started in list(self._started):
            if started.node in nodes and not started.leaving:
                started.leaving = True
                log.warning("node %s is being drained: its %s left", started.node, self._what)
            if started.leaving and not started.member.load:
                started.member.ended = "its node is being drained"
                self._started.remove(started)
                _kill(started.handle)

    def _check_patience(self) -> None:
        if self._closed.is_set():
            raise RroError(f"the {self._what} were closed")
        patience = self._settings.patience
        if time.monotonic() > self._alone_since + patience:
            reason = self._trouble or shortage(self._settings) or "the cluster has no room"
            raise RroError(
                f"none of {self._size} {self._what} could start for {patience:g} s: {reason}; see "
                "that the cluster has the resources that the recipe asks for, then resume the run"
            )


def _kill(handle: Any) -> None:
    import ray

    try:
        ray.kill(handle)
    except Exception as error:
        log.debug("an actor had ended before", exc_info=error)
