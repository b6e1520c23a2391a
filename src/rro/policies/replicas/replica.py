"""The caller's side of one replica: who waits for which answer. Its `Link` carries commands and
responses, to a process of this machine or to an actor of a cluster."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from rro.codec import pack_message
from rro.errors import PolicyError, RroError
from rro.policies.replicas.worker import Command, NewWeights, Request, Response
from rro.types import Completion, Message, SamplingParams

# a caller's future, its event loop, and how many answers it waits for
_Waiting = tuple[asyncio.Future[list[Completion]], asyncio.AbstractEventLoop, int]


class ReplicaEnded(PolicyError):
    """The replica ended before it answered; another one can answer in its place."""


class Link(Protocol):
    """What carries commands to a replica's `Worker`, and its responses back."""

    def send(self, commands: list[Command]) -> None:
        """Pass on commands, in order. Raises OSError where the replica has ended."""
        ...

    def receive(self) -> Sequence[Response]:
        """Wait for responses. Raises EOFError or OSError where the replica has ended."""
        ...

    def ending(self) -> str:
        """How it ended, once `receive` said that it has: "has ended with exit code -9"."""
        ...

    def disconnect(self) -> None:
        """Let the replica end; a `receive` under way raises."""
        ...

    def wait(self) -> None:
        """After `disconnect`: return when the replica has ended."""
        ...


class Replica:
    """One replica, as callers see it. `ended`: why it has ended (None: it runs). `load`: how many
    answers it has to give. `name` stands in errors."""

    def __init__(self, name: str, link: Link) -> None:
        self.name, self.load = name, 0
        self.ended: str | None = None
        self._link, self._numbers = link, itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._commands: list[Command] = []
        self._lock = threading.Lock()
        self._listener = threading.Thread(target=self._listen, name=name, daemon=True)

    def listen(self) -> None:
        """Receive responses from now on: it can answer."""
        self._listener.start()

    async def sample(
        self, messages: Sequence[Message], n: int, params: SamplingParams, seed: int
    ) -> list[Completion]:
        """As `Policy.sample`. Raises ReplicaEnded if it has ended."""
        number = next(self._numbers)
        request = Request(number, tuple(map(pack_message, messages)), n, params, seed)
        return await self._answered(request, n)

    async def update(self, weights: Path, name: str) -> None:
        """As `Updatable.update`. Raises ReplicaEnded if it has ended."""
        await self._answered(NewWeights(next(self._numbers), weights, name), 0)

    async def _answered(self, request: Request | NewWeights, n: int) -> list[Completion]:
        loop, number = asyncio.get_running_loop(), request.number
        future: asyncio.Future[list[Completion]] = loop.create_future()
        with self._lock:
            if self.ended is not None:
                raise ReplicaEnded(self.ended)
            self._waiting[number] = future, loop, n
            self.load += n
        self._send_soon(request, loop)
        try:
            return await future
        except asyncio.CancelledError:
            if self._take(number) is not None:
                self._send_soon(number, loop)
            raise

    def _send_soon(self, command: Command, loop: asyncio.AbstractEventLoop) -> None:
        """Send a request, or the number of one to cancel, together with all others of this
        iteration of the event loop."""
        with self._lock:
            self._commands.append(command)
            first = len(self._commands) == 1
        if first:
            loop.call_soon(self._send)

    def _send(self) -> None:
        with self._lock:
            commands, self._commands = self._commands, []
            try:
                self._link.send(commands)
            except OSError:
                # it has ended: the listener tells all who wait
                return

    def _take(self, number: int) -> _Waiting | None:
        with self._lock:
            waiting = self._waiting.pop(number, None)
            self.load -= waiting[2] if waiting else 0
        return waiting

    def _listen(self) -> None:
        try:
            while True:
                self._deliver(self._link.receive())
        except (EOFError, OSError):
            self._fail(f"{self.name} {self._link.ending()}", ReplicaEnded)

    def _deliver(self, responses: Sequence[Response]) -> None:
        """Settle the futures of the callers, all of one event loop at once."""
        by_loop = defaultdict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]](
            list
        )
        for number, result in responses:
            if waiting := self._take(number):
                by_loop[waiting[1]].append((waiting[0], result))
        for loop, settled in by_loop.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_settle, settled)

    def _fail(self, reason: str, kind: type[Exception]) -> None:
        with self._lock:
            if self.ended is not None:
                return
            self.ended = reason
        self._deliver([Response(number, kind(reason)) for number in list(self._waiting)])

    def disconnect(self, error: RroError) -> None:
        """Fail what is in flight with `error`, and let the replica end."""
        self._fail(str(error), type(error))
        self._link.disconnect()

    def wait(self) -> None:
        """After `disconnect`: wait until the replica has ended."""
        self._link.wait()
        if self._listener.is_alive():
            self._listener.join()


def _settle(settled: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in settled:
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
