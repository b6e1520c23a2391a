"""A local model in several processes, as one policy, so that every core or every GPU has work.

A process with a small model keeps at most one core busy: its forward passes are too short for more
threads, and Python runs one thread at a time. So each replica is a process with weights, batch and
prefix cache of its own. Knows processes and pipes; what a replica does is in `replica_process.py`,
how callers wait for it in `rro.policies.replicas`."""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rro.concurrency import gather_all
from rro.config import ModelConfig
from rro.errors import RroError
from rro.policies.local.replica_process import Spec
from rro.policies.replicas.choosing import ReplicaOfTask
from rro.policies.replicas.replica import Replica
from rro.policies.replicas.worker import Command, Response
from rro.processes import cores
from rro.types import Completion, Message, SamplingParams

# seconds that a process has to end by itself
_GRACE = 10.0


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
        self.replicas: list[ProcessReplica] = []
        self._replica_of_task = ReplicaOfTask[ProcessReplica]()
        settings = {**settings, "memory_share": 0.25 / _per_device(config, replicas)}
        threads = threads or max(1, cores() // replicas)
        try:
            for number in range(replicas):
                spec = Spec(_placed(config, number), weights, name, settings, threads)
                self.replicas.append(
                    ProcessReplica(f"replica {number + 1} of {replicas} of policy {name}", spec)
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
        running = [replica for replica in self.replicas if replica.ended is None]
        if not running:
            raise RroError(f"{self.replicas[0].ended}, as have all others")
        replica = self._replica_of_task.choose(messages, running)
        return await replica.sample(messages, n, params, seed)

    async def update(self, weights: Path, name: str) -> None:
        """Give all replicas other weights, as `Updatable.update` says."""
        await gather_all(replica.update(weights.absolute(), name) for replica in self.replicas)
        self.name = name

    async def close(self) -> None:
        """Fail what is in flight and end the processes."""
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        self._closed = True
        for replica in self.replicas:
            replica.disconnect(RroError(f"policy {self.name} was closed before it answered"))
        for replica in self.replicas:
            replica.wait()


class ProcessReplica(Replica):
    """A replica in a process of this machine. `pid` is the process's id."""

    def __init__(self, name: str, spec: Spec) -> None:
        self._process_link = ProcessLink(spec)
        super().__init__(name, self._process_link)
        self.pid = self._process_link.process.pid

    def wait_until_started(self) -> dict[str, Any]:
        """Wait until it can answer. Returns its policy's provenance; raises what kept it from
        starting."""
        try:
            first = self._process_link.first()
        except (EOFError, OSError):
            code = self._process_link.process.wait()
            raise RroError(
                f"{self.name} ended with exit code {code} before it could answer"
            ) from None
        self.listen()
        return first


class ProcessLink:
    """A process that holds a replica, and the connection to it."""

    def __init__(self, spec: Spec) -> None:
        self._connection, other_end = Pipe()
        with other_end:
            self.process = _start(other_end, spec.threads)
        self._connection.send(spec)
        self._started = False

    def first(self) -> dict[str, Any]:
        """What it says first: its policy's provenance. Raises what kept it from starting."""
        said: dict[str, Any] | list[Response] = self._connection.recv()
        if isinstance(said, list):
            assert isinstance(said[0].result, Exception)
            raise said[0].result
        self._started = True
        return said

    def send(self, commands: list[Command]) -> None:
        """As `Link.send`."""
        self._connection.send(commands)

    def receive(self) -> Sequence[Response]:
        """As `Link.receive`."""
        responses: Sequence[Response] = self._connection.recv()
        return responses

    def ending(self) -> str:
        """As `Link.ending`."""
        return f"has ended with exit code {self.process.wait()}"

    def disconnect(self) -> None:
        """As `Link.disconnect`: the process ends when the connection does."""
        if self._started:
            _shut(self._connection)
        else:
            self._connection.close()

    def wait(self) -> None:
        """As `Link.wait`. One that does not end in time is killed."""
        try:
            self.process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


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
