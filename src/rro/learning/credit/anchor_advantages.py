"""Two levels of advantage: of an episode within its group, and of a step among those that were
taken in the same state. GiGPO (arXiv 2505.10978, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from rro.exploration.tree import Tree
from rro.exploration.visits import PlayedRollout, played_rollouts
from rro.learning.credit.advantages import by_state, episode_row, normalised, returns
from rro.learning.credit.base import Credit, CreditContext
from rro.types import WeightedEpisode


@dataclass(frozen=True)
class AnchorAdvantages(Credit):
    """A = A_episode + w A_step. The anchors are the environment's own states, so steps are grouped
    exactly; without snapshots, by what the agent saw. A rollout that began at a fork is compared
    with all that came through the state where it began."""

    step_weight: float = 1.0
    """w. 0: GRPO."""
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Discount of the outcome for each step that is left."""
    scale: Literal["std", "none"] = "std"
    """Whether the standard deviation of a group divides."""
    invalid_penalty: Annotated[float, Field(ge=0)] = 0.0
    """What an invalid action costs in its step's return. verl-agent: 0.1."""
    context: CreditContext = CreditContext()

    gives = "advantages"

    def rows(self, tree: Tree) -> list[WeightedEpisode]:
        played = played_rollouts(tree)
        returned = [returns(each, self.gamma, self.invalid_penalty) for each in played]
        visits = by_state(played)
        values = [[0.0] * len(each.steps) for each in played]
        for state, group in visits.items():
            steps = self._normalised([returned[number][step] for number, step in group])
            for (number, step), value in zip(group, steps, strict=True):
                values[number][step] += self.step_weight * value
            for number, value in self._episodes(state, group, played).items():
                values[number] = [value + step for step in values[number]]
        return [
            episode_row(tree, each, advantages, self.context)
            for each, advantages in zip(played, values, strict=True)
        ]

    def _episodes(
        self, state: str, group: list[tuple[int, int]], played: list[PlayedRollout]
    ) -> dict[int, float]:
        """The episode's part for the rollouts that began in a state, each once."""
        through = list(dict.fromkeys(number for number, _ in group))
        values = self._normalised([played[number].outcome for number in through])
        parts = dict(zip(through, values, strict=True))
        return {n: part for n, part in parts.items() if played[n].states[0] == state}

    def _normalised(self, values: list[float]) -> list[float]:
        return normalised(values, by_deviation=self.scale == "std")
