"""Preference pairs along the expert's trajectory: its action and the policy's own (IPR, arXiv
2406.11176, section 3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from rro.exploration.tree import Node, Tree, do_the_same, gap
from rro.learning.credit.base import Credit, CreditContext
from rro.learning.credit.outcome_pairs import Directions, OutcomePairs
from rro.learning.credit.pairs import Margin, step_pair
from rro.types import Message, PreferencePair, ProcessReward, Source, StopReason, Trajectory


@dataclass(frozen=True)
class ExpertPairs(Credit):
    """The outcome pair of the whole trajectories, then a pair for each step of the expert's where
    the two process rewards differ. Two actions that do the same give no pair."""

    margin: Margin = 0.01
    """The two process rewards must differ by more than this. IPR: 0.01."""
    sides: Literal["continuation", "message"] = "continuation"
    """What a step's pair compares: the rest of both episodes (IPR), or one message each."""
    first_step: bool = True
    """Whether the first step gives a pair. IPR: false. Default: as the strategy explored."""
    agree: bool = False
    """Whether the outcomes after the two actions, the expert's and that of the policy's own
    continuation, must differ the same way, by more than `outcome_margin`. IPR: true."""
    directions: Directions = "expert"
    """Which of the two whole trajectories may be chosen: the expert's alone, or both. IPR: both."""
    outcome_margin: Margin = 0.0
    """Two outcomes must differ by more than this. IPR: 0.01."""
    context: CreditContext = CreditContext()

    needs = frozenset({"experts", "episodes"})

    def rows(self, tree: Tree) -> list[PreferencePair]:
        outcomes = OutcomePairs(self.directions, self.outcome_margin, context=self.context)
        return [*outcomes.rows(tree), *self._steps(tree)]

    def _steps(self, tree: Tree) -> Iterator[PreferencePair]:
        for expert in tree.committed()[0 if self.first_step else 1 :]:
            assert expert.parent is not None
            for own in expert.parent.children:
                if own.action.source is Source.POLICY:
                    yield from self._compare(tree, own, expert)

    def _compare(self, tree: Tree, own: Node, expert: Node) -> Iterator[PreferencePair]:
        if own.estimate is None or expert.estimate is None or do_the_same(own, expert):
            return
        episode = self.context.expert(tree.task.id)
        difference = gap(expert.estimate, own.estimate)
        if abs(difference) <= self.margin or not self._agrees(difference, own, episode):
            return
        sides = _rest(episode, expert.depth), _own_rest(own)
        if self.sides == "continuation" and not all(sides):
            return
        better, worse = (expert, own) if difference > 0 else (own, expert)
        rest = sides if difference > 0 else sides[::-1]
        pair_sides = rest if self.sides == "continuation" else None
        yield step_pair(tree, better, worse, self.context, pair_sides)

    def _agrees(self, difference: float, own: Node, episode: Trajectory) -> bool:
        """Whether the outcomes differ as the process rewards do, where they must."""
        if not self.agree:
            return True
        outcome = _own_outcome(own)
        if outcome is None or episode.reward is None:
            return False
        outcomes = gap(ProcessReward((episode.reward,), ""), ProcessReward((outcome,), ""))
        return abs(outcomes) > self.outcome_margin and (outcomes > 0) == (difference > 0)


def _rest(expert: Trajectory, step: int) -> tuple[Message, ...]:
    """The expert's messages from action number `step` (1 is the first) on."""
    turns = expert.messages()
    before = (1 + len(earlier.replies()) for earlier in expert.steps[: step - 1])
    return turns[len(expert.opening) + sum(before) :]


def _continuation(own: Node) -> Trajectory | None:
    """How the policy went on after its own action: its own episode where it played one, else the
    first of the rollouts that did not fail. None where there is none."""
    runs = own.episodes or own.rollouts
    played = (run for _, run in sorted(runs.items()) if run.stop is not StopReason.FAILED)
    return next((run for run in played if run.steps), None)


def _own_rest(own: Node) -> tuple[Message, ...]:
    """The policy's action and its continuation; nothing if there is none."""
    if own.stop is not None:
        return (own.action,)
    continuation = _continuation(own)
    if continuation is None or own.parent is None:
        return ()
    return continuation.messages()[len(own.parent.history()) :]


def _own_outcome(own: Node) -> float | None:
    if own.stop is not None:
        return own.reward
    continuation = _continuation(own)
    return None if continuation is None else continuation.reward
