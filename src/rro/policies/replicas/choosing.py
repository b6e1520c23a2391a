"""Which replica answers: the one whose cache has the task's histories. Knows no transport."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import takewhile
from typing import Generic, Protocol, TypeVar

from rro.types import Message, Source

# tasks whose replica is remembered
_REMEMBERED_TASKS = 100_000


class Loaded(Protocol):
    """A replica with `load`, the number of answers that it has to give."""

    load: int


R = TypeVar("R", bound=Loaded)


class ReplicaOfTask(Generic[R]):
    """All requests of a task go to the same replica. A new task goes to the one that has the least
    to do, so that a slow replica gets fewer of them."""

    def __init__(self) -> None:
        self._known = OrderedDict[int, R]()

    def choose(self, messages: Sequence[Message], usable: Sequence[R]) -> R:
        """The replica that has drawn for the same opening of an episode, if it is among the
        `usable` ones, else the least loaded of them. There must be one."""
        opening = takewhile(lambda message: message.source is Source.ENVIRONMENT, messages)
        key = hash(tuple(message.content for message in opening))
        replica = self._known.get(key)
        if replica is None or not any(replica is other for other in usable):
            replica = min(usable, key=lambda replica: replica.load)
            self._known[key] = replica
        self._known.move_to_end(key)
        if len(self._known) > _REMEMBERED_TASKS:
            self._known.popitem(last=False)
        return replica
