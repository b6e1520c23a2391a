"""Preference pairs of whole trajectories: the expert's against the policy's (ETO, arXiv
2403.02502)."""

from __future__ import annotations

from dataclasses import dataclass

from rro.exploration.tree import Tree
from rro.learning.credit.base import Credit, CreditContext
from rro.types import PreferencePair, ProcessReward, StopReason


@dataclass(frozen=True)
class OutcomePairs(Credit):
    """The expert's trajectory against the policy's, where the policy's outcome is lower."""

    context: CreditContext = CreditContext()

    needs = frozenset({"experts"})

    def rows(self, tree: Tree) -> list[PreferencePair]:
        expert, own = self.context.expert(tree.task.id), tree.episodes[0]
        if own.stop is StopReason.FAILED or own.reward is None or expert.reward is None:
            return []
        start = len(tree.root.opening)
        chosen, rejected = expert.messages()[start:], own.messages()[start:]
        if own.reward >= expert.reward or not chosen or not rejected:
            return []
        return [
            PreferencePair(
                prompt=tree.root.opening,
                chosen=chosen,
                rejected=rejected,
                task=tree.task.id,
                step=1,
                chosen_reward=ProcessReward((expert.reward,), expert.policy, exact=True),
                rejected_reward=ProcessReward((own.reward,), own.policy, exact=True),
                strategy=self.context.strategy,
                kind="trajectory",
                iteration=self.context.iteration,
            )
        ]
