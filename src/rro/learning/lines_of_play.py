"""Everything that an exploration drew, as lines of play: each drawn candidate, and each rollout and
episode from where it began.

The line's `own` messages are those that were drawn for it; what comes before is the history, which
other lines drew. So every drawn message is some line's own exactly once, on the committed path or
beside it. Knows no files and no tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from rro.exploration.tree import Node, Tree
from rro.types import Message, ProcessReward, StopReason, Trajectory, Usage

Logprobs = tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class Line:
    """A candidate (its action alone), a rollout, or an episode of the exploring policy, of the tree
    of `task`.

    `node` is the candidate's own node, or that where the rollout began, and `number` the rollout's.
    `messages` ends with the last action (with the history alone, where the rollout failed); those
    from `start` on are the line's own. `logprobs` has one entry for each message: its tokens'
    natural-log probabilities, None where they were not kept. `reward` is the outcome, None where
    the line has none; `estimate` the process reward of a candidate. `committed`: whether its node
    lies on the chosen trajectory. `ends`: whether no other line goes on from here."""

    task: str
    kind: Literal["candidate", "rollout", "episode"]
    node: str
    number: int | None
    messages: tuple[Message, ...]
    start: int
    logprobs: tuple[Logprobs, ...]
    reward: float | None
    stop: StopReason | None
    policy: str
    committed: bool
    rose: bool
    usage: Usage
    estimate: ProcessReward | None = None
    seed: int | None = None
    error: str | None = None
    ends: bool = True

    @property
    def id(self) -> str:
        """A name that no other line of the task has, as in the journal's keys."""
        return self.node if self.number is None else f"{self.node}/{self.kind}/{self.number}"


def lines_of(tree: Tree) -> Iterator[Line]:
    """The lines of a tree, parents first, in a fixed order. A recycled node is a rollout's step, so
    it has no line of its own."""
    for node in tree.root.walk():
        if node.parent is not None and not node.recycled:
            yield _candidate(tree, node)
        runs: Mapping[Literal["rollout", "episode"], Mapping[int, Trajectory]] = {
            "rollout": node.rollouts,
            "episode": node.episodes,
        }
        for kind, numbered in runs.items():
            for number, run in sorted(numbered.items()):
                yield _run(tree, node, kind, number, run)


def _candidate(tree: Tree, node: Node) -> Line:
    assert node.parent is not None
    history = node.parent.history()
    return Line(
        task=tree.task.id,
        kind="candidate",
        node=node.id,
        number=None,
        messages=(*history, node.action),
        start=len(history),
        logprobs=(*_logprobs_before(tree, node.parent), node.logprobs),
        reward=node.reward,
        stop=node.stop,
        policy=node.policy,
        committed=node.committed,
        rose=node.rose,
        usage=node.cost,
        estimate=node.estimate,
        ends=not (node.children or node.rollouts or node.episodes),
    )


def _run(
    tree: Tree, node: Node, kind: Literal["rollout", "episode"], number: int, run: Trajectory
) -> Line:
    history, own = node.history(), list[Message]()
    logprobs = list(_logprobs_before(tree, node))
    for step in run.steps:
        own += [step.action, *step.replies()]
        logprobs += [step.logprobs, *[None] * len(step.replies())]
    while own and own[-1].role != "assistant":
        own.pop()
    return Line(
        task=tree.task.id,
        kind=kind,
        node=node.id,
        number=number,
        messages=(*history, *own),
        start=len(history),
        logprobs=tuple(logprobs[: len(history) + len(own)]),
        reward=run.reward,
        stop=run.stop,
        policy=run.policy,
        committed=node.committed or node.parent is None,
        rose=node.rose,
        usage=run.usage,
        seed=run.seed,
        error=run.error,
    )


def _logprobs_before(tree: Tree, node: Node) -> tuple[Logprobs, ...]:
    """One entry for each message of a node's history."""
    found: list[Logprobs] = [None] * len(tree.root.opening)
    for earlier in node.path():
        assert earlier.step is not None
        own = earlier.step.logprobs if earlier.recycled else earlier.logprobs
        found += [own, *[None] * len(earlier.step.replies())]
    return tuple(found)
