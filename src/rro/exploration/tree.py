"""A task's tree: each message that was drawn hangs on it once, with what it cost and the outcomes
seen below it.

The tree is plain data. It neither samples nor decides: the sampler grows it, strategies read it,
and `pairs` folds it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rro.types import Message, ProcessReward, Step, StopReason, Task, Trajectory, Usage


@dataclass(frozen=True, eq=False, slots=True)
class RolloutSuffix:
    """A finished rollout as seen from a node that it passes through: its first
    `start` steps lie before that node.

    Wherever it started, from there on it is the policy's own play, so its outcome tells of every
    node on its way, each alike. `states` are the environment's snapshots after its steps, where
    they were kept."""

    rollout: Trajectory
    reward: float
    start: int = 0
    states: tuple[Any, ...] = ()

    @property
    def next(self) -> Step | None:
        """What was done at the node; None where the context was full."""
        return self.rollout.steps[self.start] if self.start < len(self.rollout.steps) else None

    @property
    def is_last(self) -> bool:
        """Whether the rollout ends with its next step (rather than with a full context after
        it)."""
        return (
            self.start + 1 == len(self.rollout.steps)
            and self.rollout.stop is not StopReason.CONTEXT
        )


@dataclass(eq=False, slots=True)
class Node:
    """The state after one action: h_t extended by a_t and o_t; the root is the start of the task
    (no step).

    `id` is the path of candidate numbers from the root ("0.2.1"). `stop` is set where the episode
    ended here, `reward` is then its outcome. `estimate` is r(h_t, a_t); None until estimated, or where
    every rollout failed (missing, never 0). `rose` says that the strategy committed this node
    because its estimate rose; `committed` that it lies on the chosen trajectory.

    `rollouts` started here; `inherited` ones further up, and came through. A `recycled` node is the
    first step of a rollout: it cost nothing, and its part of the id is "~" with a digest of its
    text, as its number would depend on other rollouts."""

    id: str
    parent: Node | None
    opening: tuple[Message, ...] = ()
    step: Step | None = None
    policy: str = ""
    reward: float | None = None
    stop: StopReason | None = None
    estimate: ProcessReward | None = None
    rollouts: dict[int, Trajectory] = field(default_factory=dict)
    states: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    inherited: list[RolloutSuffix] = field(default_factory=list)
    recycled: bool = False
    children: list[Node] = field(default_factory=list)
    committed: bool = False
    rose: bool = False
    usage: Usage = field(default_factory=Usage)
    snapshot: Any = None

    @property
    def depth(self) -> int:
        """Actions taken from the start of the episode."""
        return 0 if self.parent is None else self.parent.depth + 1

    @property
    def action(self) -> Message:
        assert self.step is not None, "the root has no action"
        return self.step.action

    def suffixes(self) -> list[RolloutSuffix]:
        """Every rollout through this node that has an outcome, in an order that does not depend on
        when each ended.

        Those that started below are not among them: a strategy chose where, so their outcomes say
        nothing of this node."""
        own = [
            RolloutSuffix(rollout, rollout.reward, 0, self.states.get(number, ()))
            for number, rollout in sorted(self.rollouts.items())
            if rollout.reward is not None
        ]
        return [*self.inherited, *own]

    def path(self) -> list[Node]:
        """The nodes from below the root to this one."""
        return [] if self.parent is None else [*self.parent.path(), self]

    def history(self) -> tuple[Message, ...]:
        """The messages up to and including this node's observation: the prompt of the next
        action."""
        if self.parent is None:
            return self.opening
        assert self.step is not None
        return (*self.parent.history(), self.step.action, Message("user", self.step.observation))

    def walk(self) -> Iterator[Node]:
        """This node and all below it, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(eq=False, slots=True)
class Tree:
    """A task's exploration; `root.estimate` is r_0 where it was estimated. `episodes` are the policy's
    own, from the start."""

    task: Task
    root: Node
    episodes: dict[int, Trajectory] = field(default_factory=dict)

    def committed(self) -> list[Node]:
        """The chosen trajectory, from the first action on."""
        node, chosen = self.root, []
        while following := next((child for child in node.children if child.committed), None):
            chosen.append(following)
            node = following
        return chosen

    def usage(self) -> Usage:
        """The cost of everything on the tree."""
        return sum((node.usage for node in self.root.walk()), Usage())

    def usage_by_step(self) -> list[Usage]:
        """Element t is what was spent on the t-th step: its candidates and their rollouts; element
        0 estimates the start."""
        by_step: list[Usage] = []
        for node in self.root.walk():
            by_step += [Usage()] * (node.depth + 1 - len(by_step))
            by_step[node.depth] += node.usage
        return by_step
