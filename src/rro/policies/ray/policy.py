"""Replicas of any local backend as actors of a Ray cluster, as one policy. Requests go to the
replica whose cache has the history; what one did not answer before it ended, another answers.

What an answer is depends on the request alone, so neither the number of nodes and replicas nor
their order or their ends show in the results, up to the rounding of the backend's arithmetic."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rro import plugins
from rro.cluster.connection import actor_options, connect
from rro.cluster.pool import ActorPool, Starting
from rro.errors import RroError
from rro.policies.base import PolicyContext
from rro.policies.ray.actor import ReplicaActor
from rro.policies.ray.weights import Shipped, ship, ship_next
from rro.policies.replicas.choosing import ReplicaOfTask
from rro.policies.replicas.replica import Replica, ReplicaEnded
from rro.policies.replicas.worker import Command, Response
from rro.types import Completion, Message, SamplingParams

log = logging.getLogger(__name__)

# Replicas that may end while they hold one request: it may be what ends them.
_MOST_ENDED = 8


class RayPolicy:
    """The context's policy on a cluster. `name` and `provenance` as `Policy` says."""

    def __init__(self, context: PolicyContext) -> None:
        """Start `policy.replicas` actors and wait for the first. Raises what the backend raises,
        UsageError where there is no cluster, RroError where it has no room for an actor."""
        settings = context.settings
        self._ray = connect(settings.ray)
        self.name, self._numbers, self._closed = context.name, itertools.count(1), False
        self._shared = settings.ray.weights == "shared_folder"
        needed = plugins.POLICIES.find(settings.backend).needs("weights")
        self._checkpoint = context.find_weights() if needed else None
        self._weights: Shipped | Path | None = None
        if self._checkpoint is not None:
            self._weights = self._for_actors(self._checkpoint)
        one = settings.model_copy(update={"replicas": 1})
        # Replicas read whole models, into which adapters were merged on their nodes.
        self._context = replace(context, settings=one, find_weights=_no_weights, start=None)
        options = {"max_concurrency": 1000, **actor_options(settings.ray)}
        self._actor = self._ray.remote(ReplicaActor).options(**options)
        self._provenance: dict[str, Any] = {}
        self._replica_of_task = ReplicaOfTask[Replica]()
        self._pool = ActorPool[Replica](
            f"replicas of policy {context.name}",
            settings.replicas,
            self._start,
            self._adopt,
            settings.ray,
        )
        try:
            self._pool.wait_for_one()
        except BaseException:
            self._pool.close()
            raise
        self.provenance: Mapping[str, Any] = MappingProxyType(
            {**self._provenance, "replicas": settings.replicas, "placement": "ray"}
        )

    async def sample(
        self, messages: Sequence[Message], n: int, params: SamplingParams, seed: int
    ) -> list[Completion]:
        """As `Policy.sample`. Waits while the cluster has no replica; raises RroError where that
        takes longer than `policy.ray.patience`, or where the policy is closed."""
        for ended in itertools.count(1):
            if self._closed:
                raise RroError(f"policy {self.name} is closed")
            replica = self._replica_of_task.choose(messages, await self._pool.one())
            try:
                return await replica.sample(messages, n, params, seed)
            except ReplicaEnded:
                if ended == _MOST_ENDED:
                    raise
        raise AssertionError("unreachable")

    async def update(self, weights: Path, name: str) -> None:
        """As `Updatable.update`: all replicas take over the weights, those that are still starting
        begin with them."""
        begun = time.perf_counter()
        self._weights = await asyncio.to_thread(self._for_actors, weights)
        self._checkpoint = weights
        self._context = replace(self._context, name=name)
        await asyncio.to_thread(self._pool.restart_starting)
        updates = (
            asyncio.to_thread(self._update, handle, replica)
            for handle, replica in self._pool.started()
        )
        await asyncio.gather(*updates)
        self.name = name
        seconds, count = time.perf_counter() - begun, len(self._pool.started())
        adapters = len(self._weights.adapters) if isinstance(self._weights, Shipped) else 0
        kind = f"adapters: {adapters}" if adapters else "whole"
        log.info("%d replicas have the weights of %s (%s) after %.1f s", count, name, kind, seconds)

    async def close(self) -> None:
        """Fail what is in flight and end the actors."""
        self._closed = True
        self._pool.stop()
        for _, replica in self._pool.started():
            replica.disconnect(RroError(f"policy {self.name} was closed before it answered"))
        await asyncio.to_thread(self._pool.close)

    @property
    def replicas(self) -> list[Replica]:
        """Those that can be given work now."""
        return self._pool.usable()

    def _for_actors(self, weights: Path) -> Shipped | Path:
        """What takes the weights to the actors, most of which have those of `_checkpoint`."""
        if self._shared:
            return weights.absolute()
        if self._checkpoint is None or not isinstance(self._weights, Shipped):
            return ship(weights)
        return ship_next(weights, self._checkpoint, self._weights)

    def _start(self) -> Starting:
        handle = self._actor.remote()
        return Starting(handle, handle.open.remote(self._context, self._weights))

    def _adopt(self, handle: Any, said: dict[str, Any]) -> Replica:
        self._provenance = said["provenance"]
        name = f"replica {next(self._numbers)} of policy {self.name}"
        replica = Replica(f"{name} on node {said['node'][:8]}", ActorLink(handle))
        replica.listen()
        return replica

    def _update(self, handle: Any, replica: Replica) -> None:
        from ray.exceptions import RayActorError, RayTaskError

        try:
            self._ray.get(handle.update.remote(self._weights, self._context.name))
        except RayActorError:
            log.info("%s ended while it took over weights", replica.name)
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, RroError) else error from None


class ActorLink:
    """The link to a replica in an actor, as `Link` says. One call that waits for answers is always
    under way, so that the actor's end is noticed at once."""

    def __init__(self, handle: Any) -> None:
        self._handle, self._reason = handle, ""

    def send(self, commands: list[Command]) -> None:
        self._handle.take.remote(commands)

    def receive(self) -> Sequence[Response]:
        import ray

        try:
            responses: Sequence[Response] = ray.get(self._handle.give.remote())
        except Exception as error:
            self._reason = type(error).__name__
            raise EOFError from error
        return responses

    def ending(self) -> str:
        return f"has ended ({self._reason})"

    def disconnect(self) -> None:
        import ray

        ray.kill(self._handle)

    def wait(self) -> None:
        """Ray ends it."""


def _no_weights() -> Path | None:
    """What takes the place of the driver's function, which cannot travel."""
    return None
