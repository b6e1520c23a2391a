"""Environments in actors of a Ray cluster: a benchmark whose episodes are played elsewhere, under
the same contract. For environments that are heavy, such as those with a virtual machine each.

What an episode did is kept by the caller: if its actor ends, another one does it again, compared
with what was seen, and goes on. Knows nothing of policies or journals."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple

from rro.cluster.connection import actor_options, connect
from rro.cluster.pool import ActorPool, Starting
from rro.config import EnvironmentConfig
from rro.environments.base import Agent, Benchmark, Environment, Forkable
from rro.environments.coroutines import settled
from rro.environments.tools import declare
from rro.errors import RestoreError, portable
from rro.types import Message, StepResult, Task

# Calls that an actor carries out at once, and how many of them may hang before it is replaced.
_AT_ONCE, _MOST_HANGING = 128, 64
# Actors that may end under one episode: it may be what ends them.
_MOST_ENDED = 8


class EnvironmentActor:
    """Holds a benchmark and episodes by number, in a process somewhere in the cluster."""

    def __init__(self) -> None:
        self._open: dict[str, Environment] = {}

    def open(self, section: EnvironmentConfig) -> dict[str, Any]:
        """Open the benchmark. Returns whether its environments are forkable, and the node."""
        import ray

        from rro.environments.registry import open_here

        self._benchmark = open_here(section)
        probe = self._benchmark.make()
        forkable = isinstance(probe, Forkable)
        settled(probe.close())
        return {"node": ray.get_runtime_context().get_node_id(), "forkable": forkable}

    def call(self, episode: str, method: str, *arguments: Any) -> tuple[Any, Any]:
        """Call a method of an episode's environment, which is made now if it is new. Returns what
        the method does (after a reset also the tools), and the state after it."""
        with _portable_errors():
            if episode not in self._open:
                self._open[episode] = self._benchmark.make()
            environment = self._open[episode]
            answer = settled(getattr(environment, method)(*arguments))
            if method == "reset":
                answer = tuple(answer), declare(environment.tools())
            ended = isinstance(answer, StepResult) and answer.done
            state = isinstance(environment, Forkable) and not ended
            return answer, settled(environment.snapshot()) if state else None  # type: ignore

    def end(self, episode: str) -> None:
        """Close an episode's environment."""
        environment = self._open.pop(episode, None)
        if environment is not None:
            settled(environment.close())


@contextmanager
def _portable_errors() -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        raise portable(error, RuntimeError) from None


class EnvironmentHost:
    """The driver's side of one actor. `load`: episodes that it plays."""

    def __init__(self, name: str, handle: Any, forkable: bool) -> None:
        self.name, self.handle, self.forkable = name, handle, forkable
        self.ended: str | None = None
        self.load = self._hanging = 0

    async def call(self, episode: str, method: str, *arguments: Any) -> tuple[Any, Any]:
        """As `EnvironmentActor.call`. Raises HostEnded where the actor has ended."""
        from ray.exceptions import RayActorError, RayTaskError

        try:
            answer: tuple[Any, Any] = await self.handle.call.remote(episode, method, *arguments)
        except RayActorError as error:
            self.ended = self.ended or f"{self.name} has ended ({type(error).__name__})"
            raise HostEnded(self.ended) from None
        except RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        except asyncio.CancelledError:
            # The call ran out of time. It goes on there, in a thread that may never come back.
            self._hanging += 1
            if self._hanging >= _MOST_HANGING:
                self.ended = f"{self.name} has {self._hanging} calls that hang"
            raise
        return answer


class HostEnded(Exception):
    """The actor ended before it answered."""


class _Call(NamedTuple):
    """What an episode did, and what it saw."""

    method: str
    arguments: tuple[Any, ...]
    answer: Any


class RemoteEnvironment(Environment):
    """One episode in an actor of `pool`, which is open as long as there is the `benchmark`."""

    def __init__(
        self, benchmark: Benchmark, pool: ActorPool[EnvironmentHost], episode: str
    ) -> None:
        self._benchmark, self._pool, self._episode = benchmark, pool, episode
        self._host: EnvironmentHost | None = None
        self._done: list[_Call] = []
        self._tools = ""
        self._state: Any = None

    async def reset(self, task: Task, seed: int = 0) -> Sequence[Message]:
        opening, self._tools = await self._call("reset", task, seed)
        messages: Sequence[Message] = opening
        return messages

    async def step(self, action: Message) -> StepResult:
        result: StepResult = await self._call("step", action)
        return result

    def tools(self) -> Sequence[Any]:
        return json.loads(self._tools) if self._tools else ()

    async def truncated_reward(self) -> float:
        reward: float = await self._call("truncated_reward")
        return reward

    async def close(self) -> None:
        if self._host is not None:
            self._host.load -= 1
            self._host.handle.end.remote(self._episode)
            self._host = None

    async def _call(self, method: str, *arguments: Any) -> Any:
        if method in ("reset", "restore"):
            self._done = []
        for ended in itertools.count(1):
            try:
                if self._host is None:
                    await self._move()
                assert self._host is not None
                answer, self._state = await self._host.call(self._episode, method, *arguments)
            except HostEnded:
                self._host = None
                if ended == _MOST_ENDED:
                    raise
            else:
                self._done.append(_Call(method, arguments, answer))
                return answer

    async def _move(self) -> None:
        """To the host with the fewest episodes; there it is brought to where it was. Raises
        RestoreError where that is not what was seen."""
        host = min(await self._pool.one(), key=lambda host: host.load)
        host.load += 1
        self._host = host
        for call in self._done:
            answer, self._state = await host.call(self._episode, call.method, *call.arguments)
            if answer != call.answer:
                raise RestoreError(f"an episode that moved to {host.name} went otherwise there")


class ForkableRemoteEnvironment(RemoteEnvironment):
    """The same for environments with snapshots: the state came with the last answer."""

    def snapshot(self) -> Any:
        """As `Forkable.snapshot`."""
        return self._state

    async def restore(self, snapshot: Any) -> None:
        """As `Forkable.restore`."""
        await self._call("restore", snapshot)


class RemoteBenchmark(Benchmark):
    """A benchmark that is open here, for its tasks and experts, and in actors, for episodes."""

    def __init__(self, inner: Benchmark, section: EnvironmentConfig) -> None:
        self._inner, self._section, self._numbers = inner, section, itertools.count()
        self.name, self.max_steps = inner.name, inner.max_steps
        self.success_reward, self.reward_range = inner.success_reward, inner.reward_range
        self.action_prefix = inner.action_prefix
        # making one may wait for the cluster
        self.blocking, self._opening = True, threading.Lock()

    def tasks(self, split: str) -> Sequence[Task]:
        return self._inner.tasks(split)

    def make(self) -> Environment:
        with self._opening:
            pool = self._pool
        forkable = pool.wait_for_one()[0].forkable
        kind = ForkableRemoteEnvironment if forkable else RemoteEnvironment
        return kind(self, pool, f"{id(self)}/{next(self._numbers)}")

    def action_of(self, message: Message) -> str:
        return self._inner.action_of(message)

    def expert(self, task: Task, noise: float, seed: int) -> Agent:
        return self._inner.expert(task, noise, seed)

    def provenance(self) -> Mapping[str, Any]:
        return self._inner.provenance()

    def __getattr__(self, name: str) -> Any:
        """What a benchmark has beyond the contract is asked of the one that is open here."""
        return getattr(self._inner, name)

    @cached_property
    def _pool(self) -> ActorPool[EnvironmentHost]:
        settings, here = self._section.ray, self._section.model_copy(update={"placement": "here"})
        options = {"max_concurrency": _AT_ONCE, **actor_options(settings)}
        actor = connect(settings).remote(EnvironmentActor).options(**options)
        numbers = itertools.count(1)

        def start() -> Starting:
            handle = actor.remote()
            return Starting(handle, handle.open.remote(here))

        def adopt(handle: Any, said: dict[str, Any]) -> EnvironmentHost:
            name = f"environment actor {next(numbers)} on node {said['node'][:8]}"
            return EnvironmentHost(name, handle, said["forkable"])

        what = f"actors for {self.name}"
        pool = ActorPool(what, self._section.actors, start, adopt, settings)
        # nobody closes a benchmark
        weakref.finalize(self, pool.close).atexit = False
        return pool
