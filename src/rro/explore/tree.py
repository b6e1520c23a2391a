"""A task's tree: each message that was drawn hangs on it once, with what it cost and the outcomes seen below it.

The tree is plain data. It neither samples nor decides: the sampler grows it, strategies read it, and `pairs` folds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rro.types import Message, ProcessReward, Step, StopReason, Task, Trajectory, Usage


@dataclass(eq=False, slots=True)
class Node:
    """The state after one action: h_t extended by a_t and o_t; the root is the start of the task (no step).

    `id` is the path of candidate numbers from the root ("0.2.1"). `stop` is set where the episode ended here, `reward` is then
    its outcome. `price` is r(h_t, a_t); None until priced, or where every rollout failed (missing, never 0). `rose` says that
    the strategy committed this node because its price rose; `committed` that it lies on the chosen trajectory."""

    id: str
    parent: Node | None
    opening: tuple[Message, ...] = ()
    step: Step | None = None
    policy: str = ""
    reward: float | None = None
    stop: StopReason | None = None
    price: ProcessReward | None = None
    rollouts: dict[int, Trajectory] = field(default_factory=dict)
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

    def path(self) -> list[Node]:
        """The nodes from below the root to this one."""
        return [] if self.parent is None else [*self.parent.path(), self]

    def history(self) -> tuple[Message, ...]:
        """The messages up to and including this node's observation: the prompt of the next action."""
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
    """A task's exploration; `root.price` is r_0 where it was estimated. `episodes` are the policy's own, from the start."""

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
        """Element t is what was spent on the t-th step: its candidates and their rollouts; element 0 prices the start."""
        by_step: list[Usage] = []
        for node in self.root.walk():
            by_step += [Usage()] * (node.depth + 1 - len(by_step))
            by_step[node.depth] += node.usage
        return by_step
