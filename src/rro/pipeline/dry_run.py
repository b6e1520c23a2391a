"""The largest tree that a strategy can grow of a task, grown without model and environment: its own
code, on episodes that go on to the step limit, with a policy that never says the same twice.

So a strategy of one's own is counted as well as rro's. Knows nothing of recipes or money."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rro.environments.base import Environment, TaskList
from rro.episodes.loop import Limits
from rro.errors import RroError
from rro.exploration.sampler import ContextFull, ExplorationContext, Sampler, TaskFailed
from rro.exploration.strategies.base import Strategy
from rro.exploration.tree import Node, Tree
from rro.policies.scripted import ScriptedPolicy
from rro.runs.journal import Journal
from rro.types import Message, SamplingParams, Source, Step, StopReason, Task, Trajectory, Usage

TASK = Task("dry-run")
"""The task whose tree is grown."""

Outcome = Callable[[int], float]
"""The outcome of an episode, between 0 and 1, by how many ended before it."""

# None ever rises or succeeds; each is worse than those before it; all succeed.
_OUTCOMES: tuple[Outcome, ...] = (lambda n: 0.0, lambda n: 1 / (1 + n), lambda n: 1.0)
# Calls of a task that are counted at most.
_MOST = 50_000


@dataclass(frozen=True)
class Grown:
    """A strategy, the expert's episodes that it was told of, and the tree that it grew."""

    strategy: Strategy
    experts: Mapping[str, Trajectory]
    tree: Tree


def grow_largest(
    make: Callable[[Mapping[str, Trajectory]], Strategy],
    max_steps: int,
    max_new_tokens: int,
    reward_range: tuple[float, float] = (0.0, 1.0),
) -> list[Grown]:
    """What a strategy grows where episodes take `max_steps` actions and messages `max_new_tokens`
    tokens: one tree where no outcome is better than another, one where each is worse than those
    before it, one where all succeed. `make` is told of an expert's episode of the task. Raises
    RroError where a task takes too many calls to count, and what the strategy raises."""
    policy = ScriptedPolicy(lambda messages, rng: "", "dry-run")
    limits, params = Limits(max_steps), SamplingParams()
    benchmark, grown = TaskList("dry-run", Environment, {}, max_steps), list[Grown]()
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "journal") as journal:
        context = ExplorationContext(
            benchmark, policy, policy, journal, params, params, limits, seed=0
        )
        for outcome in _OUTCOMES:
            sampler = DrySampler(context, max_new_tokens, outcome, reward_range)
            experts = {TASK.id: sampler.expert()}
            strategy = make(experts)
            with suppress(ContextFull, TaskFailed):
                asyncio.run(strategy.explore(sampler))
            grown.append(Grown(strategy, experts, sampler.tree))
    return grown


class DrySampler(Sampler):
    """A sampler that makes up what it is asked for: messages that are all new, states that are all
    different, and outcomes by `outcome`, scaled to `reward_range`."""

    def __init__(
        self,
        context: ExplorationContext,
        max_new_tokens: int,
        outcome: Outcome,
        reward_range: tuple[float, float],
    ) -> None:
        super().__init__(context, TASK)
        self._outcome, (self._low, self._high) = outcome, reward_range
        self._tokens, self._said, self._ended, self._calls = max_new_tokens, 0, 0, 0
        self.tree.root.opening = (Message("user", "Go on."),)
        self.tree.root.opening_state = "start"

    def expert(self) -> Trajectory:
        """An expert's episode of the task."""
        return self._played(self.tree.root, Source.EXPERT)

    async def propose(self, node: Node) -> Node:
        """As in Sampler."""
        return self._child(node, self._step(Source.POLICY), self._cost(1))

    async def follow(self, node: Node, action: Message) -> Node:
        """As in Sampler."""
        return self._child(node, self._answered(action), Usage())

    async def outcome_of(self, node: Node) -> Hashable:
        """As in Sampler: no two candidates do the same."""
        return node.id

    async def roll_out(self, node: Node, number: int, *, keep_states: bool = False) -> Trajectory:
        """As in Sampler."""
        if number not in node.rollouts:
            node.rollouts[number] = self._played(node, Source.POLICY)
        return node.rollouts[number]

    async def play(self, number: int, node: Node | None = None) -> Trajectory:
        """As in Sampler."""
        node = node or self.tree.root
        if number not in node.episodes:
            node.episodes[number] = self._played(node, Source.POLICY)
        return node.episodes[number]

    def _child(self, node: Node, step: Step, cost: Usage) -> Node:
        drawn = sum(not child.recycled for child in node.children)
        child = Node(f"{node.id}.{drawn}", node, step=step, policy="dry-run", cost=cost)
        node.children.append(child)
        if not self.is_open(child):
            child.stop, child.reward = StopReason.STEP_LIMIT, self._end()
        return child

    def _played(self, node: Node, source: Source) -> Trajectory:
        left = self.context.limits.max_steps - node.depth
        steps = tuple(self._step(source) for _ in range(left))
        cost = self._cost(left) if source is Source.POLICY else Usage()
        stop, opening = StopReason.STEP_LIMIT, node.history()
        return Trajectory(TASK.id, opening, steps, self._end(), stop, "dry-run", 0, cost)

    def _step(self, source: Source) -> Step:
        self._said += 1
        return self._answered(Message("assistant", str(self._said), source))

    def _answered(self, action: Message) -> Step:
        return Step(action, "Go on.", 0.0, done=False, state=action.content)

    def _cost(self, calls: int) -> Usage:
        self._calls += calls
        if self._calls > _MOST:
            raise RroError(f"a task may take more than {_MOST:,} policy calls")
        return Usage(policy_calls=calls, generated_tokens=calls * self._tokens)

    def _end(self) -> float:
        share = self._outcome(self._ended)
        self._ended += 1
        return self._low + (self._high - self._low) * share
