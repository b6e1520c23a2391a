"""A task's tree: every message that was drawn, once, with what it cost and the outcomes seen below
it.

The tree is plain data. It neither samples nor decides: the sampler grows it, strategies commit
nodes, and credits turn it into training rows. It does not know journals (rro.exploration.records).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rro.errors import RestoreError
from rro.seeds import derive_seed
from rro.types import (
    Message,
    ProcessReward,
    Source,
    Step,
    StopReason,
    Task,
    Trajectory,
    Usage,
)


@dataclass(frozen=True, eq=False, slots=True)
class RolloutSuffix:
    """A finished rollout as seen from a node that it passes through: its first `start` steps lie
    before that node.

    From there on it is the policy's own play, wherever it began, so its outcome is an equally valid
    sample for every node it passed through. `states` are the environment's snapshots after its
    steps, where they were kept. The rollout is number `number` of those that began at the node
    `began_at`."""

    rollout: Trajectory
    reward: float
    start: int = 0
    states: tuple[Any, ...] = ()
    began_at: str = "0"
    number: int = 0

    @property
    def next(self) -> Step | None:
        """The step that was taken at the node; None where the context was full."""
        return self.rollout.steps[self.start] if self.start < len(self.rollout.steps) else None

    @property
    def is_last(self) -> bool:
        """Whether the rollout ends with its next step, not with a full context after it."""
        return (
            self.start + 1 == len(self.rollout.steps)
            and self.rollout.stop is not StopReason.CONTEXT
        )

    def advanced(self) -> RolloutSuffix:
        """The same rollout, one step later."""
        return replace(self, start=self.start + 1)


@dataclass(eq=False, slots=True)
class Node:
    """The state after one action: h_t extended by a_t and o_t; the root is the start of the task
    and has no step; `opening_state` names its state as `Step.state` does.

    `id` is the path of candidate numbers from the root ("0.2.1"). `stop` is set where the episode
    ended here, `reward` is then its outcome. `estimate` is r(h_t, a_t); None until estimated, or
    where every rollout failed (missing, never 0). `committed` says that the node lies on the chosen
    trajectory, `rose` that the strategy committed it because its process reward rose. `logprobs`
    are the action's, one a token, where the policy reported them.

    `rollouts` began here (by number, failed ones included), `inherited` ones began at a node above
    and pass through. `episodes` are the exploring policy's own from here on, by number.

    A recycled node (`origin` is set) is one step of a rollout: it cost nothing,
    and its part of the id is "~" and a digest of its action, as its number would depend on other
    rollouts. `predicted` is what a process reward model said of its action. `cost` is that of the
    node's own action, of its prediction, and of candidates below it that found the context
    full."""

    id: str
    parent: Node | None
    opening: tuple[Message, ...] = ()
    opening_state: str = ""
    step: Step | None = None
    policy: str = ""
    reward: float | None = None
    stop: StopReason | None = None
    estimate: ProcessReward | None = None
    logprobs: tuple[float, ...] | None = None
    rollouts: dict[int, Trajectory] = field(default_factory=dict)
    states: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    episodes: dict[int, Trajectory] = field(default_factory=dict)
    inherited: list[RolloutSuffix] = field(default_factory=list)
    origin: RolloutSuffix | None = None
    children: list[Node] = field(default_factory=list)
    committed: bool = False
    rose: bool = False
    predicted: float | None = None
    cost: Usage = field(default_factory=Usage)
    snapshot: Any = None

    @property
    def depth(self) -> int:
        """Actions taken from the start of the episode."""
        return 0 if self.parent is None else self.parent.depth + 1

    @property
    def action(self) -> Message:
        """The message that led here. The root has none."""
        assert self.step is not None, "the root has no action"
        return self.step.action

    @property
    def state(self) -> str:
        """The name of the environment's state here, as in `Step.state`."""
        return self.opening_state if self.step is None else self.step.state

    @property
    def recycled(self) -> bool:
        """Whether the node is a step of a rollout rather than a candidate of its own."""
        return self.origin is not None

    @property
    def usage(self) -> Usage:
        """The cost of the node and of the rollouts and episodes that began here."""
        return self.cost + _total(self.rollouts) + _total(self.episodes)

    def suffixes(self) -> list[RolloutSuffix]:
        """Every rollout through this node that has an outcome, in a fixed order. Not those that
        began below: a strategy chose where, so they are no fair sample for this node."""
        own = [
            RolloutSuffix(rollout, rollout.reward, 0, self.states.get(number, ()), self.id, number)
            for number, rollout in sorted(self.rollouts.items())
            if rollout.reward is not None
        ]
        return [*self.inherited, *own]

    def estimated(self, rewards: Sequence[float], policy: str) -> ProcessReward | None:
        """r(h_t, a_t): the outcome itself where the episode ended here, else the mean of rollouts
        of `policy` with these `rewards`; None without any."""
        if self.stop is None:
            return ProcessReward(tuple(rewards), policy) if rewards else None
        if self.reward is None:
            return None
        return ProcessReward((self.reward,), self.policy, exact=True)

    def path(self) -> list[Node]:
        """The nodes from below the root to this one."""
        return [] if self.parent is None else [*self.parent.path(), self]

    def history(self) -> tuple[Message, ...]:
        """The messages up to this node's observation: the prompt of the next action."""
        if self.parent is None:
            return self.opening
        assert self.step is not None
        return (*self.parent.history(), self.step.action, *self.step.replies())

    def walk(self) -> Iterator[Node]:
        """This node and all below it, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(eq=False, slots=True)
class Tree:
    """A task's exploration. `root.estimate` is r_0 where it was estimated. `overflowed` lists
    the candidates that found the context full: they are no nodes, and their parents bear their
    cost."""

    task: Task
    root: Node
    overflowed: list[str] = field(default_factory=list)

    @property
    def episodes(self) -> dict[int, Trajectory]:
        """The policy's own episodes from the start, by number."""
        return self.root.episodes

    def committed(self) -> list[Node]:
        """The chosen trajectory, from the first action on."""
        node, chosen = self.root, []
        while following := next((child for child in node.children if child.committed), None):
            chosen.append(following)
            node = following
        return chosen

    def candidates_per_step(self) -> list[int]:
        """How many candidates there were for each committed step; an expert's action is none."""
        return [
            sum(child.action.source is not Source.EXPERT for child in node.parent.children)
            for node in self.committed()
            if node.parent is not None
        ]

    def recycle(self, node: Node) -> list[Node]:
        """Make the first actions of all rollouts through `node` its children, each text once, with
        the rest of each rollout inherited by its child. Returns all recycled children; a second
        call adds what has come since.

        Raises RestoreError where the environment gave one action two answers."""
        recycled = {child.id: child for child in node.children if child.recycled}
        for child in recycled.values():
            child.inherited = []
        for suffix in node.suffixes():
            if suffix.next is None:
                continue
            child_id = f"{node.id}.~{_digest(suffix.next.action.text)}"
            if child_id not in recycled:
                recycled[child_id] = recycled_child(child_id, node, suffix)
                node.children.append(recycled[child_id])
            self._check_same_answer(recycled[child_id], suffix.next)
            recycled[child_id].inherited.append(suffix.advanced())
        return list(recycled.values())

    def _check_same_answer(self, child: Node, again: Step) -> None:
        first = child.step
        assert first is not None
        if answer(first) != answer(again):
            raise RestoreError(
                f"task {self.task.id}: the same action at node {child.id} had two answers; "
                "the environment is not deterministic"
            )

    def outcomes(self) -> list[float]:
        """The outcome rewards of all rollouts that have one."""
        rollouts = (node.rollouts[n] for node in self.root.walk() for n in sorted(node.rollouts))
        return [rollout.reward for rollout in rollouts if rollout.reward is not None]

    def usage(self) -> Usage:
        """The cost of everything on the tree."""
        return sum(self.usage_by_step(), Usage())

    def usage_by_step(self) -> list[Usage]:
        """Element t: the candidates of the t-th step and their rollouts; 0: the start's estimate
        and the episodes."""
        by_step = list[Usage]()
        for node in self.root.walk():
            by_step += [Usage()] * (node.depth + 1 - len(by_step))
            by_step[node.depth] += node.usage
        return by_step


def answer(step: Step) -> tuple[str, float, bool]:
    """What the environment answered: equal for equal actions, unless it is not deterministic."""
    return step.observation, step.reward, step.done


def do_the_same(first: Node, second: Node) -> bool:
    """Whether the actions of two siblings have the same text, or the same answer and lead to the
    same state, where the environment tells its states apart (snapshots)."""
    one, other = first.step, second.step
    if one is None or other is None:
        return False
    if one.action.text == other.action.text:
        return True
    if (answer(one), first.stop, first.reward) != (answer(other), second.stop, second.reward):
        return False
    return first.stop is not None or bool(one.state and one.state == other.state)


def recycled_child(child_id: str, parent: Node, origin: RolloutSuffix) -> Node:
    """The node that the next step of `origin` leads to; not yet among the parent's children."""
    child = Node(child_id, parent, step=origin.next, policy=origin.rollout.policy, origin=origin)
    if origin.is_last:
        child.stop, child.reward = origin.rollout.stop, origin.reward
    elif origin.start < len(origin.states):
        child.snapshot = origin.states[origin.start]
    return child


def gap(higher: ProcessReward, lower: ProcessReward) -> float:
    """By how much one mean is above another, without the rounding error of 0.6 - 0.4."""
    return round(higher.mean - lower.mean, 12)


def _total(runs: Mapping[int, Trajectory]) -> Usage:
    return sum((run.usage for _, run in sorted(runs.items())), Usage())


def _digest(text: str) -> str:
    return f"{derive_seed(text):016x}"[:10]
