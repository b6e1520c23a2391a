"""Preference pairs of whole trajectories: the expert's and the policy's (ETO, arXiv 2403.02502)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from rro.errors import RroError
from rro.exploration.tree import Tree, gap
from rro.learning.credit.base import Credit, CreditContext
from rro.learning.credit.pairs import Margin
from rro.types import Message, PreferencePair, ProcessReward, Trajectory

Directions = Literal["expert", "both"]


@dataclass(frozen=True)
class OutcomePairs(Credit):
    """The expert's trajectory and the policy's, where one has the higher outcome. A trajectory
    without an outcome gives no pair."""

    directions: Directions = "expert"
    """Which of the two may be chosen: the expert's alone, or both. ETO and IPR: both."""
    outcome_margin: Margin = 0.0
    """The two outcomes must differ by more than this. IPR: 0.01; ETO: 0."""
    extra_messages: Annotated[int, Field(ge=0)] | None = None
    """The policy's trajectory, where it is rejected, is cut to the expert's length plus so many
    messages. Default: it is not cut. ETO: 10."""
    context: CreditContext = CreditContext()

    needs = frozenset({"experts", "episodes"})

    def rows(self, tree: Tree) -> list[PreferencePair]:
        runs = self.context.expert(tree.task.id), _own(tree)
        rewards = [
            ProcessReward((run.reward,), run.policy, exact=True)
            for run in runs
            if run.reward is not None
        ]
        if len(rewards) < 2:
            return []
        sides = [run.messages()[len(tree.root.opening) :] for run in runs]
        difference = gap(rewards[0], rewards[1])
        if abs(difference) <= self.outcome_margin or not all(sides) or _same(sides[0], sides[1]):
            return []
        if difference > 0:
            sides[1] = self._cut(sides[1], len(sides[0]))
        elif self.directions == "expert":
            return []
        else:
            sides.reverse()
            rewards.reverse()
        return [
            PreferencePair(
                prompt=tree.root.opening,
                chosen=sides[0],
                rejected=sides[1],
                task=tree.task.id,
                step=1,
                chosen_reward=rewards[0],
                rejected_reward=rewards[1],
                strategy=self.context.strategy,
                kind="trajectory",
                iteration=self.context.iteration,
            )
        ]

    def _cut(self, own: tuple[Message, ...], expert: int) -> tuple[Message, ...]:
        """The policy's messages, cut so that the last one is an action."""
        if self.extra_messages is None:
            return own
        kept = own[: expert + self.extra_messages]
        while kept[-1].role != "assistant":
            kept = kept[:-1]
        return kept


def _own(tree: Tree) -> Trajectory:
    if 0 not in tree.episodes:
        raise RroError(
            f"task {tree.task.id}: the tree has no whole episode of the policy to compare with the "
            "expert's: explore with a strategy that plays one, as eto and ipr do"
        )
    return tree.episodes[0]


def _same(first: Sequence[Message], second: Sequence[Message]) -> bool:
    return [message.text for message in first] == [message.text for message in second]
