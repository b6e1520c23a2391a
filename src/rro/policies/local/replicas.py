"""A local model in several processes, as one policy: every core has work, or every GPU.

One process with a small model keeps one core busy at most: its forward passes are too short for
more threads, and Python runs one thread at a time. So each replica is a process with the weights, a
batch and a prefix cache of its own, and what is asked about one task goes to one of them, which
knows the histories that it begins with."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import subprocess
import sys
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from itertools import takewhile
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rro.config import ModelConfig
from rro.errors import PolicyError, RroError
from rro.policies.local.replica_process import Answer, Ask, Spec, pack
from rro.processes import cores
from rro.types import Completion, Message, SamplingParams, Source

_HOMES = 100_000  # tasks whose replica is remembered
_PATIENCE = 10.0  # seconds that a process has to end by itself
_Waiting = tuple[asyncio.Future[list[Completion]], asyncio.AbstractEventLoop, int]


class ReplicatedPolicy:
    """As `TransformersPolicy`, whose `settings` (max_batch, prefix_cache_tokens, max_context) each
    replica has. Answers do not depend on which replica gives them, up to rounding."""

    def __init__(
        self,
        config: ModelConfig,
        weights: Path | None,
        name: str,
        replicas: int,
        threads: int | None,
        settings: Mapping[str, Any],
    ) -> None:
        """Starts the processes and waits. `weights` as in `load_model`; `threads`: of torch, in
        each process; None: the cores shared out. Raises what `load_model` and `TransformersPolicy`
        raise."""
        self.name, self._closed = name, False
        self._replicas: list[_Replica] = []
        self._homes = OrderedDict[int, _Replica]()
        settings = {**settings, "memory_share": 0.25 / _neighbours(config, replicas)}
        try:
            for number in range(replicas):
                spec = Spec(
                    _placed(config, number), weights, name, settings, threads or _threads(replicas)
                )
                self._replicas.append(
                    _Replica(f"replica {number + 1} of {replicas} of policy {name}", spec)
                )
            own = [replica.started() for replica in self._replicas]
        except BaseException:
            self._end()
            raise
        self.provenance: Mapping[str, Any] = MappingProxyType({**own[0], "replicas": replicas})

    async def sample(
        self, messages: Sequence[Message], n: int, params: SamplingParams, seed: int
    ) -> list[Completion]:
        """Draw `n` answers, as `TransformersPolicy.sample`. Raises PolicyError too where the
        replica's process has ended, and RroError where all have."""
        if self._closed:
            raise RroError(f"policy {self.name} is closed")
        return await self._home(messages).sample(messages, n, params, seed)

    def _home(self, messages: Sequence[Message]) -> _Replica:
        """The replica that had what an episode begins with; for a new one the replica that has
        least to do."""
        opening = takewhile(lambda message: message.source is Source.ENVIRONMENT, messages)
        key = hash(tuple(message.content for message in opening))
        home = self._homes.get(key)
        if home is None or home.ended is not None:
            alive = [replica for replica in self._replicas if replica.ended is None]
            if not alive:
                raise RroError(f"{self._replicas[0].ended}, as have all others")
            home = self._homes[key] = min(alive, key=lambda replica: replica.load)
        self._homes.move_to_end(key)
        if len(self._homes) > _HOMES:
            self._homes.popitem(last=False)
        return home

    async def close(self) -> None:
        """Fail what is in flight and end the processes."""
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        self._closed = True
        for replica in self._replicas:
            replica.hang_up(RroError(f"policy {self.name} was closed before it answered"))
        for replica in self._replicas:
            replica.wait()


class _Replica:
    """One process, seen from here. `ended` says why it answers no more; `load` counts the answers
    it owes."""

    def __init__(self, what: str, spec: Spec) -> None:
        self.ended: str | None = None
        self.load = 0
        self._what, self._numbers = what, itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._commands: list[Ask | int] = []
        self._lock = threading.Lock()
        self._connection, theirs = Pipe()
        with theirs:
            self._process = _start(theirs, spec.threads)
        self._connection.send(spec)
        self._listener = threading.Thread(target=self._listen, name=what, daemon=True)

    def started(self) -> dict[str, Any]:
        """Wait until it can answer; its policy's provenance."""
        try:
            first: dict[str, Any] | list[Answer] = self._connection.recv()
        except (EOFError, OSError):
            raise RroError(
                f"{self._what} ended with exit code {self._process.wait()} before it could answer"
            ) from None
        if isinstance(first, list):
            assert isinstance(first[0].result, Exception)
            raise first[0].result
        self._listener.start()
        return first

    async def sample(
        self, messages: Sequence[Message], n: int, params: SamplingParams, seed: int
    ) -> list[Completion]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Completion]] = loop.create_future()
        number = next(self._numbers)
        with self._lock:
            if self.ended is not None:
                raise PolicyError(self.ended)
            self._waiting[number] = future, loop, n
            self.load += n
        self._put(Ask(number, tuple(map(pack, messages)), n, params, seed), loop)
        try:
            return await future
        except asyncio.CancelledError:
            if self._take(number) is not None:
                self._put(number, loop)
            raise

    def _put(self, command: Ask | int, loop: asyncio.AbstractEventLoop) -> None:
        """Have a command sent, together with all others of this turn of the loop."""
        with self._lock:
            self._commands.append(command)
            first = len(self._commands) == 1
        if first:
            loop.call_soon(self._send)

    def _send(self) -> None:
        with self._lock:
            commands, self._commands = self._commands, []
            try:
                self._connection.send(commands)
            except OSError:  # it has ended: the listener says so to all who wait
                return

    def _take(self, number: int) -> _Waiting | None:
        with self._lock:
            found = self._waiting.pop(number, None)
            self.load -= found[2] if found else 0
        return found

    def _listen(self) -> None:
        try:
            while True:
                self._deliver(self._connection.recv())
        except (EOFError, OSError):
            code = self._process.wait()
            self._fail(f"{self._what} has ended with exit code {code}", PolicyError)

    def _deliver(self, answers: Sequence[Answer]) -> None:
        """Hand over what came, all of one loop at once."""
        by_loop = defaultdict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]](
            list
        )
        for number, result in answers:
            if found := self._take(number):
                by_loop[found[1]].append((found[0], result))
        for loop, settled in by_loop.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_settle, settled)

    def _fail(self, reason: str, kind: type[Exception]) -> None:
        with self._lock:
            if self.ended is not None:
                return
            self.ended = reason
        self._deliver([Answer(number, kind(reason)) for number in list(self._waiting)])

    def hang_up(self, error: RroError) -> None:
        self._fail(str(error), type(error))
        if self._listener.is_alive():
            _shut(self._connection)
        else:
            self._connection.close()

    def wait(self) -> None:
        """After `hang_up`: until the process is gone."""
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._listener.is_alive():
            self._listener.join()
            self._connection.close()


def _settle(settled: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in settled:
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)


def _start(theirs: Connection, threads: int) -> subprocess.Popen[bytes]:
    """The process, in a session of its own: an interrupt from the keyboard is for this one, which
    then hangs up."""
    # not -m: classes would go by __main__
    work = f"from rro.policies.local.replica_process import main; main({theirs.fileno()})"
    return subprocess.Popen(
        [sys.executable, "-c", work],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )


def _shut(connection: Connection) -> None:
    """End a connection that another thread reads from: that thread and the other end see it."""
    import socket

    with socket.socket(fileno=os.dup(connection.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)


def _gpus(config: ModelConfig) -> int:
    """How many GPUs the replicas can go to; 0 where the recipe names their one device, or there is
    no GPU."""
    import torch

    return (
        torch.cuda.device_count()
        if config.device in ("auto", "cuda") and torch.cuda.is_available()
        else 0
    )


def _placed(config: ModelConfig, number: int) -> ModelConfig:
    """Each replica has a GPU of its own, as long as there are any."""
    gpus = _gpus(config)
    return config.model_copy(update={"device": f"cuda:{number % gpus}"}) if gpus else config


def _neighbours(config: ModelConfig, replicas: int) -> int:
    """How many replicas share one memory."""
    return math.ceil(replicas / max(1, _gpus(config)))


def _threads(replicas: int) -> int:
    return max(1, cores() // replicas)
