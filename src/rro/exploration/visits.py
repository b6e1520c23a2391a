"""The states that a tree's rollouts went through: which of them are the same, and how their
outcomes differ there.

A state is known by the environment's snapshot; where there is none, by what the agent saw last, as
GiGPO's anchors are (arXiv 2505.10978, section 3.2). Reads trees, grows none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rro.exploration.tree import Node, Tree
from rro.seeds import derive_seed
from rro.types import Message, Step, Trajectory

START = "start"
"""The state before the first step, where the environment has no snapshots."""


@dataclass(frozen=True, slots=True)
class PlayedRollout:
    """A rollout with an outcome. It began at `node`; `states[j]` is the state before its step
    j, so there are as many as steps."""

    node: Node
    rollout: Trajectory
    outcome: float
    states: tuple[str, ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        """The rollout's own steps, without those that led to its node."""
        return self.rollout.steps

    def messages(self) -> tuple[Message, ...]:
        """The history of its node and its own messages, up to its last action."""
        messages = list(self.node.history())
        for step in self.steps[:-1]:
            messages += [step.action, *step.replies()]
        return (*messages, self.steps[-1].action)

    def own_messages(self, values: Sequence[float]) -> tuple[float | None, ...]:
        """One entry for each of `messages()`: the value of each of its own actions in turn, None
        for every other message."""
        own: list[float | None] = [None] * len(self.node.history())
        for value, step in zip(values, self.steps, strict=True):
            own += [value, *[None] * len(step.replies())]
        return tuple(own[: len(own) - len(self.steps[-1].replies())])


def played_rollouts(tree: Tree) -> list[PlayedRollout]:
    """Every rollout and episode of the tree that has an outcome, in a fixed order."""
    return [
        PlayedRollout(node, rollout, rollout.reward, _states(node, rollout))
        for node, rollout in _rollouts(tree)
        if rollout.reward is not None and rollout.steps
    ]


def state_of(node: Node) -> str:
    """The state at a node, in the same names as `PlayedRollout.states`."""
    return (node.state or START) if node.step is None else state_after(node.step)


def state_after(step: Step) -> str:
    """The state after a step that did not end its episode."""
    return step.state or f"seen {derive_seed(step.observation):016x}"


def _rollouts(tree: Tree) -> Iterator[tuple[Node, Trajectory]]:
    for node in tree.root.walk():
        yield from ((node, node.rollouts[number]) for number in sorted(node.rollouts))
    for node in tree.root.walk():
        yield from ((node, node.episodes[number]) for number in sorted(node.episodes))


def _states(node: Node, rollout: Trajectory) -> tuple[str, ...]:
    return (state_of(node), *(state_after(step) for step in rollout.steps[:-1]))
