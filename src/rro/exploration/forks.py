"""Environments in the state of a node of the tree: by restoring a snapshot, or by replaying the
actions where there are none, compared with the record either way.

The only part of exploration that opens environments. Knows nothing of policies or journals."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from rro.environments import contract
from rro.environments.base import Benchmark, Environment, Forkable
from rro.environments.calls import call_with_timeout
from rro.environments.contract import LONGEST_OBSERVATION
from rro.environments.coroutines import settled
from rro.episodes.loop import Limits, open_environment, reset_checked
from rro.errors import RestoreError, UsageError
from rro.exploration.tree import Node, Tree, answer
from rro.seeds import derive_seed
from rro.types import Message, Step, StepResult, Task


class Forks:
    """Opens environments at the nodes of one tree. `seed` is the environment's."""

    def __init__(self, benchmark: Benchmark, tree: Tree, seed: int, limits: Limits) -> None:
        self._benchmark, self._tree, self._seed = benchmark, tree, seed
        self._timeout, self._longest = limits.step_timeout, limits.max_observation

    async def start(self) -> None:
        """Reset to the task: the root gets its opening, and its snapshot."""
        root = self._tree.root
        async with open_environment(self._benchmark, self._timeout) as environment:
            task = self._tree.task
            opening = await reset_checked(
                environment, task, self._seed, self._timeout, self._longest
            )
            root.opening, root.snapshot = opening, await self.snapshot(environment)
            root.opening_state = state_name(root.snapshot)

    @asynccontextmanager
    async def at(self, node: Node) -> AsyncIterator[tuple[Environment, int]]:
        """A new environment in the state of `node`, and the number of steps that were replayed for
        it. Raises RestoreError where that is not the state on record."""
        async with open_environment(self._benchmark, self._timeout) as environment:
            if isinstance(environment, Forkable):
                await self.ensure_snapshot(node)
                restore = partial(restore_checked, environment, node.snapshot)
                await call_with_timeout(environment, self._timeout, restore)
                yield environment, 0
            else:
                await self._replay(environment, node)
                yield environment, node.depth

    async def snapshot(self, environment: Environment) -> Any:
        """The state of an environment; None where it has no snapshots."""
        if not isinstance(environment, Forkable):
            return None
        take = partial(immutable_snapshot, environment)
        return await call_with_timeout(environment, self._timeout, take)

    async def ensure_snapshot(self, node: Node) -> None:
        """Give the node its snapshot if it has none, as on resume. The steps are not counted: an
        undisturbed run does not take them."""
        if node.snapshot is None:
            async with open_environment(self._benchmark, self._timeout) as environment:
                await self._replay(environment, node)
                node.snapshot = await self.snapshot(environment)

    async def _replay(self, environment: Environment, node: Node) -> None:
        steps = [step for step in (ancestor.step for ancestor in node.path()) if step is not None]
        task, opening = self._tree.task, self._tree.root.opening
        replay = partial(
            replay_checked, environment, task, self._seed, opening, steps, self._longest
        )
        await call_with_timeout(environment, self._timeout * (1 + len(steps)), replay)


class Watched(Environment):
    """An environment whose state after each step is appended to `states` (None at the end), so
    that each can be forked from later."""

    def __init__(self, inner: Environment, states: list[Any]) -> None:
        self._inner, self._states, self.blocking = inner, states, inner.blocking

    @property
    def unwrapped(self) -> Environment:
        return self._inner

    def reset(self, task: Task, seed: int = 0) -> Sequence[Message]:
        return settled(self._inner.reset(task, seed))

    def step(self, action: Message) -> StepResult:
        result = settled(self._inner.step(action))
        self._states.append(None if result.done else immutable_snapshot(self._inner))
        return result

    def tools(self) -> Sequence[Any]:
        return self._inner.tools()

    def truncated_reward(self) -> float:
        return settled(self._inner.truncated_reward())


def immutable_snapshot(environment: Environment) -> Any:
    """The state of an environment that is Forkable. Raises UsageError where a later step could
    change it, and with it every fork from here, unseen."""
    assert isinstance(environment, Forkable)
    snapshot = settled(environment.snapshot())
    try:
        hash(snapshot)
    except TypeError:
        name = type(environment).__name__
        raise UsageError(
            f"{name}.snapshot must return an immutable value, such as a tuple of its state"
        ) from None
    return snapshot


def state_name(snapshot: Any) -> str:
    """A name for a state, equal for equal snapshots of one task also in another process: a digest
    of the snapshot's text. Empty where there is no snapshot."""
    return "" if snapshot is None else f"{derive_seed(_text(snapshot)):016x}"


def _text(value: Any) -> str:
    """`repr`, with the members of a set in order: theirs differs from process to process."""
    if isinstance(value, frozenset):
        return f"{{{', '.join(sorted(map(_text, value)))}}}"
    if isinstance(value, tuple) and type(value) is tuple:
        return f"({', '.join(map(_text, value))})"
    return repr(value)


def restore_checked(environment: Environment, snapshot: Any) -> None:
    """Restore a state. Raises RestoreError if it is not the one that was saved."""
    name = type(environment).__name__
    if not isinstance(environment, Forkable):
        raise RestoreError(f"{name} has no snapshot and restore: fork it by replay")
    settled(environment.restore(snapshot))
    if settled(environment.snapshot()) != snapshot:
        raise RestoreError(f"{name}.restore did not bring back the state it was given")


def replay_checked(
    environment: Environment,
    task: Task,
    seed: int,
    opening: Sequence[Message],
    steps: Sequence[Step],
    longest: int = LONGEST_OBSERVATION,
) -> None:
    """Reset and repeat `steps`; raises RestoreError at the first answer that is not the recorded
    one. IPR's code does not check: what it estimates may then be another state."""
    again = [message.content for message in contract.reset(environment, task, seed, longest)]
    if again != [message.content for message in opening]:
        raise RestoreError(f"task {task.id}: the opening differs on replay")
    for number, step in enumerate(steps, 1):
        if answer(contract.step(environment, step.action, longest)) != answer(step):
            raise RestoreError(f"task {task.id}: the answer to step {number} differs on replay")
