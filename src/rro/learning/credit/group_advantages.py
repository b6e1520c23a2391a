"""The advantage of an episode within its group, the same for each of its actions: GRPO (arXiv
2402.03300, section 4.1) and Dr. GRPO (arXiv 2503.20783), which leaves out the deviation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rro.exploration.tree import Tree
from rro.exploration.visits import played_rollouts
from rro.learning.credit.advantages import by_state, episode_row, normalised
from rro.learning.credit.base import Credit, CreditContext
from rro.types import WeightedEpisode


@dataclass(frozen=True)
class GroupAdvantages(Credit):
    """A_i = (R_i - mean R) / std R over the rollouts that began in the same state: the task's
    episodes, or the forks of one state. A group whose outcomes are equal teaches nothing: its
    advantages are 0."""

    scale: Literal["std", "none"] = "std"
    """Whether the group's standard deviation divides. std: GRPO. none: Dr. GRPO."""
    context: CreditContext = CreditContext()

    gives = "advantages"

    def rows(self, tree: Tree) -> list[WeightedEpisode]:
        played = played_rollouts(tree)
        advantages = [0.0] * len(played)
        for visits in by_state(played).values():
            group = [number for number, step in visits if step == 0]
            if group:
                outcomes = [played[number].outcome for number in group]
                values = normalised(outcomes, by_deviation=self.scale == "std")
                for number, value in zip(group, values, strict=True):
                    advantages[number] = value
        return [
            episode_row(tree, each, [value] * len(each.steps), self.context)
            for each, value in zip(played, advantages, strict=True)
        ]
