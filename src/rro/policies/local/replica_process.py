"""The process that holds one replica of a local model, started by `replicas.py`.

It communicates over one end of a socket pair: it receives a `Spec` and sends its policy's
provenance or an exception; then it receives lists of `Command`, and sends lists of `Response`. When
the other end closes, for whatever reason, the process ends. Both ends are rro's own, so pickles are
safe."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rro.config import ModelConfig
from rro.errors import portable
from rro.policies.replicas.worker import Response, Worker


@dataclass(frozen=True, slots=True)
class Spec:
    """What a replica consists of: the model (`weights`: a checkpoint folder, None: what config.name
    means), the policy's name and arguments, and the number of torch's threads."""

    config: ModelConfig
    weights: Path | None
    name: str
    settings: Mapping[str, Any]
    threads: int


class _Server:
    """Carries commands and responses between the connection and the worker."""

    def __init__(self, policy: Any, connection: Connection) -> None:
        self._connection = connection
        self._worker = Worker(policy, partial(_send, connection))
        self._ended = asyncio.Event()

    async def serve(self) -> None:
        """Answer until the other end closes."""
        asyncio.get_running_loop().add_reader(self._connection.fileno(), self._read)
        await self._ended.wait()

    def _read(self) -> None:
        try:
            self._worker.take(self._connection.recv())
        except (EOFError, OSError):
            self._ended.set()
            asyncio.get_running_loop().remove_reader(self._connection.fileno())


def _send(connection: Connection, responses: list[Response]) -> None:
    # where the other end has closed, the reader notices it, too
    with suppress(OSError):
        connection.send(responses)


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
        _send(connection, [Response(0, portable(error))])
        return
    with suppress(OSError):  # the other end has closed, which the worker notices
        connection.send(dict(policy.provenance))
    asyncio.run(_Server(policy, connection).serve())
    # nobody waits for what is still being drawn
    os._exit(0)
