"""The actor that holds one replica of a policy. What it answers is `rro.policies.replicas.worker`'s
business; this is the transport, and the opening of the policy on the actor's node."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from rro import plugins
from rro.config import parse_options
from rro.errors import UsageError
from rro.policies.base import Policy, PolicyContext, Updatable
from rro.policies.ray.weights import Shipped, received
from rro.policies.replicas.worker import Command, Response, Worker


class ReplicaActor:
    """A policy in a process of its own, somewhere in the cluster. `open` comes first."""

    def __init__(self) -> None:
        self._responses: list[Response] = []
        self._answered = asyncio.Event()

    async def open(self, context: PolicyContext, weights: Shipped | Path | None) -> dict[str, Any]:
        """Open the policy of the context's recipe with these weights. Returns its provenance, and
        the node that it is on. Raises what the backend raises."""
        import ray

        self._policy = await asyncio.to_thread(_open, context, weights)
        self._worker = Worker(self._policy, self._report)
        node = ray.get_runtime_context().get_node_id()
        return {"node": node, "provenance": dict(self._policy.provenance)}

    async def take(self, commands: list[Command]) -> None:
        """Begin what is asked for."""
        self._worker.take(commands)

    async def give(self) -> list[Response]:
        """What has been answered since the last call, as soon as there is something."""
        await self._answered.wait()
        self._answered.clear()
        responses, self._responses = self._responses, []
        return responses

    async def update(self, weights: Shipped | Path, name: str) -> None:
        """As `Updatable.update`. Raises UsageError where the policy takes over no weights."""
        if not isinstance(self._policy, Updatable):
            raise UsageError(f"policy {name} takes over no weights")
        with received(weights) as folder:
            assert folder is not None
            await self._policy.update(folder, name)

    def _report(self, responses: list[Response]) -> None:
        self._responses += responses
        self._answered.set()


def _open(context: PolicyContext, weights: Shipped | Path | None) -> Policy:
    settings = context.settings
    plugin = plugins.POLICIES.find(settings.backend)
    options = parse_options(settings, plugin, "policy")
    with received(weights) as folder:
        policy: Policy = plugin.make(options, replace(context, find_weights=lambda: folder))
    if context.threads is not None and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(context.threads)
    return policy
