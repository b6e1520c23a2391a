"""The engines that the episodes of one benchmark share: started when they are needed, used again by
later episodes, replaced when they fail.

Each episode keeps an engine as long as there are enough. With more episodes than engines, the one
that waited longest gives its own away; it has to be played again elsewhere when it goes on. So no
number of episodes at once can block. Knows nothing of what is played.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rro.scienceworld.engine import Engine

log = logging.getLogger(__name__)


class Engines:
    """At most `most` engines, each made by `start`."""

    def __init__(self, most: int, start: Callable[[], Engine]) -> None:
        self._most, self._start, self._starting = most, start, 0
        # Least recently used first.
        self._idle: list[Engine] = []
        self._busy: list[Engine] = []
        self._changed = threading.Condition()
        self._taken_away = 0
        weakref.finalize(self, _kill_all, self._idle, self._busy)

    @contextmanager
    def lend(self, episode: object | None) -> Iterator[Engine]:
        """An engine for one call of an episode (None: a call that belongs to no episode); waits
        until one is there.

        Its `episode` says whose state it has: if another, the episode has to be played again on it.
        An engine in whose call something was raised is killed, and a new one started for the next
        call."""
        engine = self._take(episode)
        try:
            yield engine
        except BaseException:
            engine.kill()
            self._leave(engine)
            raise
        self._leave(engine, self._idle)

    def release(self, episode: object) -> None:
        """The episode is over: others may have its engine. One that still works for it is
        killed."""
        with self._changed:
            for engine in self._idle:
                if engine.episode is episode:
                    engine.episode = None
            hanging = [engine for engine in self._busy if engine.episode is episode]
        for engine in hanging:
            engine.kill()

    @property
    def running(self) -> int:
        """How many engines there are."""
        with self._changed:
            return len(self._idle) + len(self._busy) + self._starting

    def _take(self, episode: object | None) -> Engine:
        with self._changed:
            while (engine := self._choose(episode)) is None:
                if len(self._idle) + len(self._busy) + self._starting < self._most:
                    self._starting += 1
                    break
                self._changed.wait()
            if engine is not None:
                self._idle.remove(engine)
                self._busy.append(engine)
                return engine
        try:
            engine = self._start()
        finally:
            with self._changed:
                self._starting -= 1
                self._changed.notify_all()
        with self._changed:
            self._busy.append(engine)
        return engine

    def _choose(self, episode: object | None) -> Engine | None:
        """The episode's own engine, one that is nobody's, or where no further one may be started
        that of another episode."""
        for owner in (episode, None):
            for engine in self._idle:
                if engine.episode is owner:
                    return engine
        if not self._idle or len(self._idle) + len(self._busy) + self._starting < self._most:
            return None
        self._taken_away += 1
        if self._taken_away == 1:
            log.warning(
                "more episodes at once than environment.options.engines, %d: they take turns, and "
                "play again what they lose",
                self._most,
            )
        return self._idle[0]

    def _leave(self, engine: Engine, place: list[Engine] | None = None) -> None:
        with self._changed:
            self._busy.remove(engine)
            if place is not None:
                place.append(engine)
            self._changed.notify_all()


def _kill_all(*lists: list[Engine]) -> None:
    for engine in [engine for engines in lists for engine in engines]:
        engine.kill()
