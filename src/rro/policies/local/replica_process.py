"""The process that holds one replica of a local model, started by `replicas.py`.

It communicates over one end of a socket pair: it receives a `Spec` and sends its policy's
provenance or an exception; then it receives lists of `Command`, and sends lists of `Response`. When
the other end closes, for whatever reason, the process ends. Both ends are rro's own, so pickles are
safe."""

from __future__ import annotations

import asyncio
import os
import pickle
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from rro.codec import PackedMessage, unpack_message
from rro.config import ModelConfig
from rro.errors import RroError
from rro.types import Completion, SamplingParams


@dataclass(frozen=True, slots=True)
class Spec:
    """What a replica consists of: the model (`weights`: a checkpoint folder, None: what config.name
    means), the policy's name and arguments, and the number of torch's threads."""

    config: ModelConfig
    weights: Path | None
    name: str
    settings: Mapping[str, Any]
    threads: int


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


class _Worker:
    """Answers requests in this process's event loop."""

    def __init__(self, policy: Any, connection: Connection) -> None:
        self._policy, self._connection = policy, connection
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._responses: list[Response] = []
        self._ended = asyncio.Event()

    async def serve(self) -> None:
        """Answer until the other end closes."""
        asyncio.get_running_loop().add_reader(self._connection.fileno(), self._read)
        await self._ended.wait()

    def _read(self) -> None:
        try:
            commands: Sequence[Command] = self._connection.recv()
        except (EOFError, OSError):
            self._ended.set()
            asyncio.get_running_loop().remove_reader(self._connection.fileno())
            return
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
            result = error
        finally:
            del self._tasks[request.number]
        # together with all others of this iteration of the event loop
        if not self._responses:
            asyncio.get_running_loop().call_soon(self._send)
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

    def _send(self) -> None:
        responses, self._responses = self._responses, []
        _send(self._connection, responses)


def _send(connection: Connection, responses: list[Response]) -> None:
    try:
        connection.send(responses)
    except OSError:
        # the other end has closed, which the reader notices too
        return
    except (pickle.PicklingError, TypeError, AttributeError):
        # an exception of some library cannot be pickled
        connection.send([Response(number, _plain(result)) for number, result in responses])


def _plain(result: list[Completion] | Exception) -> list[Completion] | Exception:
    if isinstance(result, Exception):
        return RroError(f"{type(result).__name__}: {result}")
    return result


def _open(spec: Spec) -> Any:
    import torch

    from rro.models.loading import load_model
    from rro.policies.local.policy import TransformersPolicy

    torch.set_num_threads(spec.threads)
    model, tokenizer = load_model(spec.config, spec.weights, train=False)
    return TransformersPolicy(model, tokenizer, spec.name, **spec.settings)


def main(descriptor: int) -> None:
    """Run the replica; `descriptor` is its end of the socket pair."""
    connection = Connection(descriptor)
    try:
        policy = _open(connection.recv())
    except EOFError:
        return
    except Exception as error:
        _send(connection, [Response(0, error)])
        return
    with suppress(OSError):  # the other end has closed, which the worker notices
        connection.send(dict(policy.provenance))
    asyncio.run(_Worker(policy, connection).serve())
    # nobody waits for what is still being drawn
    os._exit(0)
