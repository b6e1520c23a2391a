"""Preference pairs whose order is credible: P(chosen is worth more than rejected) is high
(docs/exploration.md)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from rro.exploration.beliefs import Prior, above
from rro.exploration.tree import Node, Tree
from rro.learning.credit.base import Credit, CreditContext
from rro.learning.credit.comparisons import OffPath, comparisons
from rro.learning.credit.pairs import Margin, Siblings, lower_siblings, step_pair
from rro.types import PreferencePair


@dataclass(frozen=True)
class CrediblePairs(Credit):
    """Each committed action against the sibling that is most credibly worth less, or against all
    that credibly are, by everything seen, also after it was committed."""

    siblings: Siblings = "lowest"
    """Which siblings the chosen action is paired with: the most credibly worse one, or all."""
    margin: Margin = 0.0
    """A sibling must be lower by more than this."""
    off_path: OffPath = "no"
    """Pairs of what was paid for beside the committed path, as in `pairs`."""
    max_error: Annotated[float, Field(gt=0, le=0.5)] = 0.2
    """A pair is kept if the probability that chosen is worth more than rejected is at least 1 -
    max_error."""
    prior: Annotated[float, Field(gt=0)] = 2.0
    """Outcomes that the prior counts as: an action is worth what its state is worth."""
    dispersion: bool = True
    """Whether outcomes with less than Bernoulli variance count for more."""
    context: CreditContext = CreditContext()

    def rows(self, tree: Tree) -> list[PreferencePair]:
        prior = Prior(self.prior, *self.context.reward_range)
        weight = prior.weight(tree.outcomes()) if self.dispersion else 1.0
        found: list[PreferencePair] = []
        for chosen, others in comparisons(tree, self.off_path):
            worse = self._credibly_worse(chosen, others, prior, weight)
            if self.siblings == "lowest" and worse:
                worse = [max(worse, key=lambda pair: pair[0])]
            for credibility, sibling in worse:
                pair = step_pair(tree, chosen, sibling, self.context)
                found.append(replace(pair, credibility=round(credibility, 4)))
        return found

    def _credibly_worse(
        self, chosen: Node, others: list[Node], prior: Prior, weight: float
    ) -> list[tuple[float, Node]]:
        if chosen.estimate is None or chosen.parent is None:
            return []
        center = prior.center(chosen.parent.estimate, weight)
        belief = prior.belief(chosen.estimate, center, weight)
        siblings = [
            (above(belief, prior.belief(sibling.estimate, center, weight)), sibling)
            for sibling in lower_siblings(chosen, others, self.margin)
        ]
        return [pair for pair in siblings if pair[0] >= 1 - self.max_error]
