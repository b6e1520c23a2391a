"""A local model in several processes, as one policy, so that every core or every GPU has work.

A process with a small model keeps at most one core busy: its forward passes are too short for more
threads, and Python runs one thread at a time. So each replica is a process with weights, batch and
prefix cache of its own. All requests of a task go to the same replica, whose cache has the task's
histories. Knows processes and pipes; what a replica does is in `replica_process.py`."""

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

from rro.codec import pack_message
from rro.concurrency import gather_all
from rro.config import ModelConfig
from rro.errors import PolicyError, RroError
from rro.policies.local.replica_process import Command, NewWeights, Request, Response, Spec
from rro.processes import cores
from rro.types import Completion, Message, SamplingParams, Source

# tasks whose replica is remembered
_REMEMBERED_TASKS = 100_000
# seconds that a process has to end by itself
_GRACE = 10.0
# a caller's future, its event loop, and how many answers it waits for
_Waiting = tuple[asyncio.Future[list[Completion]], asyncio.AbstractEventLoop, int]


class ReplicatedPolicy:
    """As `TransformersPolicy`, in several processes. Answers do not depend on which replica gives
    them, up to rounding. `replicas` are the processes."""

    def __init__(
        self,
        config: ModelConfig,
        weights: Path | None,
        name: str,
        replicas: int,
        threads: int | None,
        settings: Mapping[str, Any],
    ) -> None:
        """Start the processes and wait for them. `weights`: a checkpoint folder, as in
        `load_model`. `threads`: of torch in each process (None: the cores are divided among them).
        `settings`: arguments of each replica's `TransformersPolicy`. Raises what `load_model` and
        `TransformersPolicy` raise."""
        self.name, self._closed = name, False
        self.replicas: list[Replica] = []
        self._replica_of_task = OrderedDict[int, Replica]()
        settings = {**settings, "memory_share": 0.25 / _per_device(config, replicas)}
        threads = threads or max(1, cores() // replicas)
        try:
            for number in range(replicas):
                spec = Spec(_placed(config, number), weights, name, settings, threads)
                self.replicas.append(
                    Replica(f"replica {number + 1} of {replicas} of policy {name}", spec)
                )
            provenances = [replica.wait_until_started() for replica in self.replicas]
        except BaseException:
            self._end()
            raise
        self.provenance: Mapping[str, Any] = MappingProxyType(
            {**provenances[0], "replicas": replicas}
        )

    async def sample(
        self, messages: Sequence[Message], n: int, params: SamplingParams, seed: int
    ) -> list[Completion]:
        """Draw `n` answers, as `TransformersPolicy.sample`. Also raises PolicyError if the
        replica's process has ended, and RroError if all have."""
        if self._closed:
            raise RroError(f"policy {self.name} is closed")
        return await self._replica_for(messages).sample(messages, n, params, seed)

    async def update(self, weights: Path, name: str) -> None:
        """Give all replicas other weights, as `Updatable.update` says."""
        await gather_all(replica.update(weights.absolute(), name) for replica in self.replicas)
        self.name = name

    def _replica_for(self, messages: Sequence[Message]) -> Replica:
        """The replica that has drawn for the same opening of an episode; for a new one, the replica
        that has the least to do."""
        opening = takewhile(lambda message: message.source is Source.ENVIRONMENT, messages)
        key = hash(tuple(message.content for message in opening))
        replica = self._replica_of_task.get(key)
        if replica is None or replica.ended is not None:
            running = [replica for replica in self.replicas if replica.ended is None]
            if not running:
                raise RroError(f"{self.replicas[0].ended}, as have all others")
            replica = min(running, key=lambda replica: replica.load)
            self._replica_of_task[key] = replica
        self._replica_of_task.move_to_end(key)
        if len(self._replica_of_task) > _REMEMBERED_TASKS:
            self._replica_of_task.popitem(last=False)
        return replica

    async def close(self) -> None:
        """Fail what is in flight and end the processes."""
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        self._closed = True
        for replica in self.replicas:
            replica.disconnect(RroError(f"policy {self.name} was closed before it answered"))
        for replica in self.replicas:
            replica.wait()


class Replica:
    """This process's side of one replica. `ended`: why it has ended (None: it runs). `load`: how
    many answers it has to give. `name` stands in errors."""

    def __init__(self, name: str, spec: Spec) -> None:
        self.ended: str | None = None
        self.load = 0
        self._name, self._numbers = name, itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._commands: list[Command] = []
        self._lock = threading.Lock()
        self._connection, other_end = Pipe()
        with other_end:
            self._process = _start(other_end, spec.threads)
        self._connection.send(spec)
        self._listener = threading.Thread(target=self._listen, name=name, daemon=True)

    @property
    def pid(self) -> int:
        """The id of its process."""
        return self._process.pid

    def wait_until_started(self) -> dict[str, Any]:
        """Wait until it can answer. Returns its policy's provenance; raises what kept it from
        starting."""
        try:
            first: dict[str, Any] | list[Response] = self._connection.recv()
        except (EOFError, OSError):
            raise RroError(
                f"{self._name} ended with exit code {self._process.wait()} before it could answer"
            ) from None
        if isinstance(first, list):
            assert isinstance(first[0].result, Exception)
            raise first[0].result
        self._listener.start()
        return first

    async def sample(
        self, messages: Sequence[Message], n: int, params: SamplingParams, seed: int
    ) -> list[Completion]:
        """As `Policy.sample`. Raises PolicyError if the process has ended."""
        number = next(self._numbers)
        request = Request(number, tuple(map(pack_message, messages)), n, params, seed)
        return await self._answered(request, n)

    async def update(self, weights: Path, name: str) -> None:
        """As `Updatable.update`. Raises PolicyError if the process has ended."""
        await self._answered(NewWeights(next(self._numbers), weights, name), 0)

    async def _answered(self, request: Request | NewWeights, n: int) -> list[Completion]:
        loop, number = asyncio.get_running_loop(), request.number
        future: asyncio.Future[list[Completion]] = loop.create_future()
        with self._lock:
            if self.ended is not None:
                raise PolicyError(self.ended)
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
                self._connection.send(commands)
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
                self._deliver(self._connection.recv())
        except (EOFError, OSError):
            code = self._process.wait()
            self._fail(f"{self._name} has ended with exit code {code}", PolicyError)

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
        """Fail what is in flight with `error`, and let the process end."""
        self._fail(str(error), type(error))
        if self._listener.is_alive():
            _shut(self._connection)
        else:
            self._connection.close()

    def wait(self) -> None:
        """After `disconnect`: wait until the process has ended."""
        try:
            self._process.wait(_GRACE)
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


def _start(other_end: Connection, threads: int) -> subprocess.Popen[bytes]:
    """The process, in a session of its own: Ctrl-C is for this process, which then disconnects."""
    # not -m: its classes would then belong to a module called __main__
    code = f"from rro.policies.local.replica_process import main; main({other_end.fileno()})"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        pass_fds=[other_end.fileno()],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )


def _shut(connection: Connection) -> None:
    """End a connection that another thread reads from, so that this thread and the other end notice
    it."""
    import socket

    with socket.socket(fileno=os.dup(connection.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)


def _gpus(config: ModelConfig) -> int:
    """How many GPUs the replicas can use; 0 if there is none, or the recipe names one device."""
    import torch

    usable = config.device in ("auto", "cuda") and torch.cuda.is_available()
    return torch.cuda.device_count() if usable else 0


def _placed(config: ModelConfig, number: int) -> ModelConfig:
    """The configuration of replica `number`: on the next GPU, if there are any."""
    gpus = _gpus(config)
    return config.model_copy(update={"device": f"cuda:{number % gpus}"}) if gpus else config


def _per_device(config: ModelConfig, replicas: int) -> int:
    """How many replicas share one device's memory."""
    return math.ceil(replicas / max(1, _gpus(config)))
