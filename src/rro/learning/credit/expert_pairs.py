"""Preference pairs along the expert's trajectory: its action against the policy's own (IPR, arXiv
2406.11176, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rro.exploration.tree import Node, Tree, do_the_same, gap
from rro.learning.credit.base import Credit, CreditContext
from rro.learning.credit.outcome_pairs import OutcomePairs
from rro.learning.credit.pairs import Margin, step_pair
from rro.types import Message, PreferencePair, Source, StopReason, Trajectory


@dataclass(frozen=True)
class ExpertPairs(Credit):
    """The outcome pair of the whole trajectories, then a pair for each step of the expert's where
    the two process rewards differ."""

    margin: Margin = 0.01
    """The two process rewards must differ by more than this. IPR: 0.01."""
    sides: Literal["continuation", "message"] = "continuation"
    """What a step's pair compares: the rest of both episodes (IPR), or one message each."""
    context: CreditContext = CreditContext()

    needs = frozenset({"experts"})

    def rows(self, tree: Tree) -> list[PreferencePair]:
        found = OutcomePairs(self.context).rows(tree)
        for expert in tree.committed():
            assert expert.parent is not None
            for own in expert.parent.children:
                if own.action.source is Source.POLICY and own.estimate and expert.estimate:
                    found += self._compare(tree, own, expert)
        return found

    def _compare(self, tree: Tree, own: Node, expert: Node) -> list[PreferencePair]:
        assert own.estimate is not None
        assert expert.estimate is not None
        difference = gap(expert.estimate, own.estimate)
        if abs(difference) <= self.margin or do_the_same(own, expert):
            return []
        better, worse = (expert, own) if difference > 0 else (own, expert)
        if self.sides == "message":
            return [step_pair(tree, better, worse, self.context)]
        rest = {
            id(expert): _rest(self.context.expert(tree.task.id), expert.depth),
            id(own): _own_rest(own),
        }
        if not all(rest.values()):
            return []
        return [step_pair(tree, better, worse, self.context, (rest[id(better)], rest[id(worse)]))]


def _rest(expert: Trajectory, step: int) -> tuple[Message, ...]:
    """The expert's messages from action number `step` (1 is the first) on."""
    turns = expert.messages()
    return turns[len(expert.opening) + 2 * (step - 1) :]


def _own_rest(own: Node) -> tuple[Message, ...]:
    """The policy's action and the first of its rollouts that did not fail; nothing if all
    failed."""
    if own.stop is not None:
        return (own.action,)
    for _, rollout in sorted(own.rollouts.items()):
        if rollout.stop is not StopReason.FAILED and rollout.steps:
            assert own.parent is not None
            return rollout.messages()[len(own.parent.history()) :]
    return ()
