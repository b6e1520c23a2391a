"""What a replica does in its own process: it answers numbered commands in an event loop, and
reports the answers of one iteration together. Knows no transport: `rro.policies.local` has a socket
pair, `rro.policies.ray` an actor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rro.codec import PackedMessage, unpack_message
from rro.errors import portable
from rro.types import Completion, SamplingParams


class Request(NamedTuple):
    """A numbered call of `sample`. Its messages are packed, as plain tuples pickle several times
    faster."""

    number: int
    messages: tuple[PackedMessage, ...]
    n: int
    params: SamplingParams
    seed: int


class NewWeights(NamedTuple):
    """A numbered call of `update`. It is answered with an empty list."""

    number: int
    weights: Path
    name: str


class Response(NamedTuple):
    """The result of the request with this number."""

    number: int
    result: list[Completion] | Exception


Command = Request | NewWeights | int
"""What a replica receives; a number cancels the request with it."""


class Worker:
    """Answers commands with `policy`; `report` is given the answers of each iteration of the event
    loop."""

    def __init__(self, policy: Any, report: Callable[[list[Response]], None]) -> None:
        self._policy, self._report = policy, report
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._responses: list[Response] = []

    def take(self, commands: Sequence[Command]) -> None:
        """Begin what is asked for; called in the event loop."""
        for command in commands:
            if not isinstance(command, int):
                self._tasks[command.number] = asyncio.ensure_future(self._answer(command))
            elif command in self._tasks:
                self._tasks[command].cancel()

    async def _answer(self, request: Request | NewWeights) -> None:
        result: list[Completion] | Exception
        try:
            result = await self._do(request)
        except Exception as error:
            result = portable(error)
        finally:
            del self._tasks[request.number]
        if not self._responses:
            asyncio.get_running_loop().call_soon(self._flush)
        self._responses.append(Response(request.number, result))

    async def _do(self, request: Request | NewWeights) -> list[Completion]:
        if isinstance(request, NewWeights):
            await self._policy.update(request.weights, request.name)
            return []
        messages = [unpack_message(message) for message in request.messages]
        completions: list[Completion] = await self._policy.sample(
            messages, request.n, request.params, request.seed
        )
        return completions

    def _flush(self) -> None:
        responses, self._responses = self._responses, []
        self._report(responses)
