"""A process that holds one replica of a local model and answers for `replicas.py`.

It speaks through one end of a socket pair. What comes first on it is a `Spec`, what goes back the
policy's provenance or an exception; then lists of `Ask` and of numbers to forget come, and lists of
`Answer` go. When the other end closes, however it came to that, the process ends. Both ends are
rro's own, so pickles may pass."""

from __future__ import annotations

import asyncio
import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from rro.config import ModelConfig
from rro.errors import RroError
from rro.types import Completion, Message, SamplingParams, Source

Packed = tuple[str, str, str, tuple[int, ...] | None]


@dataclass(frozen=True, slots=True)
class Spec:
    """What a replica is: weights (None: as config.name means), the policy's settings, and its
    threads of torch."""

    config: ModelConfig
    weights: Path | None
    name: str
    settings: Mapping[str, Any]
    threads: int


class Ask(NamedTuple):
    """A call of `sample` by number, its messages packed: plain tuples pickle several times
    faster."""

    number: int
    messages: tuple[Packed, ...]
    n: int
    params: SamplingParams
    seed: int


class Answer(NamedTuple):
    number: int
    result: list[Completion] | Exception


def pack(message: Message) -> Packed:
    return message.role, message.content, message.source.value, message.token_ids


def _unpack(packed: Packed) -> Message:
    role, content, source, token_ids = packed
    return Message(role, content, Source(source), token_ids)  # type: ignore[arg-type]


class _Server:
    """Answers in this process's event loop."""

    def __init__(self, policy: Any, connection: Connection) -> None:
        self._policy, self._connection = policy, connection
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._answers: list[Answer] = []
        self._ended = asyncio.Event()

    async def serve(self) -> None:
        """Until the other end closes."""
        asyncio.get_running_loop().add_reader(self._connection.fileno(), self._read)
        await self._ended.wait()

    def _read(self) -> None:
        try:
            commands: Sequence[Ask | int] = self._connection.recv()
        except (EOFError, OSError):
            self._ended.set()
            asyncio.get_running_loop().remove_reader(self._connection.fileno())
            return
        for command in commands:
            if isinstance(command, Ask):
                self._tasks[command.number] = asyncio.ensure_future(self._sample(command))
            elif command in self._tasks:
                self._tasks[command].cancel()

    async def _sample(self, ask: Ask) -> None:
        messages = [_unpack(message) for message in ask.messages]
        result: list[Completion] | Exception
        try:
            result = await self._policy.sample(messages, ask.n, ask.params, ask.seed)
        except Exception as error:
            result = error
        finally:
            del self._tasks[ask.number]
        if not self._answers:  # what else is done by then goes along
            asyncio.get_running_loop().call_soon(self._send)
        self._answers.append(Answer(ask.number, result))

    def _send(self) -> None:
        answers, self._answers = self._answers, []
        _send(self._connection, answers)


def _send(connection: Connection, answers: list[Answer]) -> None:
    try:
        connection.send(answers)
    except OSError:  # the other end has closed; the reader sees it too
        return
    except (
        pickle.PicklingError,
        TypeError,
        AttributeError,
    ):  # of an exception from deep inside a library
        connection.send([Answer(number, _plain(result)) for number, result in answers])


def _plain(result: list[Completion] | Exception) -> list[Completion] | Exception:
    return (
        RroError(f"{type(result).__name__}: {result}") if isinstance(result, Exception) else result
    )


def _open(spec: Spec) -> Any:
    import torch

    from rro.models.loading import load_model
    from rro.policies.local.policy import TransformersPolicy

    torch.set_num_threads(spec.threads)
    model, tokenizer = load_model(spec.config, spec.weights, train=False)
    return TransformersPolicy(model, tokenizer, spec.name, **spec.settings)


def main(descriptor: int) -> None:
    """What the process does; `descriptor` is its end of the socket pair."""
    connection = Connection(descriptor)
    try:
        policy = _open(connection.recv())
    except EOFError:
        return
    except Exception as error:
        _send(connection, [Answer(0, error)])
        return
    connection.send(dict(policy.provenance))
    asyncio.run(_Server(policy, connection).serve())
    os._exit(0)  # nobody waits for what is still being drawn
