"""Preference pairs whose order is credible: P(chosen is worth more than rejected) is high
(docs/exploration.md)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from rro.exploration.beliefs import Evidence, Prior, Scale
from rro.exploration.tree import Node, Tree, do_the_same
from rro.learning.credit.base import Credit, CreditContext
from rro.learning.credit.comparisons import OffPath, comparisons
from rro.learning.credit.pairs import Margin, Siblings, lower_siblings, step_pair
from rro.types import PreferencePair


@dataclass(frozen=True)
class CrediblePairs(Credit):
    """An action against siblings that are credibly worth less, by everything seen, also after it
    was committed."""

    siblings: Siblings = "all"
    """Which siblings an action is paired with: the one that is most credibly worth less, or all
    that credibly are."""
    margin: Margin = 0.0
    """A sibling must be lower by more than this, as seen and as expected."""
    off_path: OffPath = "tree"
    """Pairs of what was paid for beside the committed path, as in `pairs`."""
    max_error: Annotated[float, Field(gt=0, le=0.5)] = 0.2
    """A pair is kept if the probability that chosen is worth more than rejected is at least 1 -
    max_error."""
    prior_from: Literal["auto", "trees", "fixed"] = "auto"
    """What is believed of the values of a state's actions beforehand. trees: how much they differ,
    and how often not at all, is estimated from the trees of the round. fixed: they differ as after
    two outcomes, and are never equal. auto: trees where each outcome is the lowest or the highest
    possible, fixed where some are between (docs/exploration.md)."""
    context: CreditContext = CreditContext()

    def fitted(self, trees: Iterable[Tree]) -> Credit:
        """The same, with the prior that these trees suggest."""
        return _Fitted(self, self._prior(trees))

    def rows(self, tree: Tree) -> list[PreferencePair]:
        return self.rows_under(self._prior([tree]), tree)

    def rows_under(self, prior: Prior, tree: Tree) -> list[PreferencePair]:
        """The pairs of a tree, with a prior that is known."""
        weight, pairs = self._scale.weight(tree.outcomes()), list[PreferencePair]()
        for chosen, others in comparisons(tree, self.off_path):
            worse = list(self._credibly_worse(chosen, others, prior, weight))
            if self.siblings == "lowest" and worse:
                worse = [max(worse, key=lambda order: order[0])]
            for credibility, difference, rejected in worse:
                pair = step_pair(tree, chosen, rejected, self.context)
                pairs.append(replace(pair, credibility=credibility, gap=difference))
        return pairs

    @property
    def _scale(self) -> Scale:
        return Scale(*self.context.reward_range)

    def _prior(self, trees: Iterable[Tree]) -> Prior:
        states, graded = list[list[Evidence]](), False
        for tree in trees:
            graded = graded or not set(tree.outcomes()) <= set(self.context.reward_range)
            states += self._states(tree)
        if self.prior_from == "fixed" or (self.prior_from == "auto" and graded):
            return Prior.fixed()
        return Prior.fitted(states)

    def _states(self, tree: Tree) -> Iterator[list[Evidence]]:
        """What was seen of the actions at each state that rollouts came through."""
        weight, seen = self._scale.weight(tree.outcomes()), set[str]()
        for chosen, others in comparisons(tree, "tree"):
            assert chosen.parent is not None
            if chosen.parent.id not in seen:
                seen.add(chosen.parent.id)
                yield self._evidence(_different([chosen, *others]), weight)

    def _evidence(self, nodes: Iterable[Node], weight: float) -> list[Evidence]:
        estimates = (node.estimate for node in nodes)
        return [self._scale.evidence(known, weight) for known in estimates if known is not None]

    def _credibly_worse(
        self, chosen: Node, others: Sequence[Node], prior: Prior, weight: float
    ) -> Iterator[tuple[float, float, Node]]:
        """(credibility, expected difference, sibling) of those that are worth less."""
        assert chosen.parent is not None
        nodes = _different([chosen, *others, *chosen.parent.children])
        lower = [node for node in lower_siblings(chosen, others, self.margin) if node in nodes]
        if not lower:
            return
        posterior = prior.posterior(self._evidence(nodes, weight))
        low, high = self.context.reward_range
        for sibling in lower:
            place = nodes.index(sibling)
            credibility = round(posterior.above(0, place), 4)
            difference = round((high - low) * posterior.gap(0, place), 4)
            if credibility >= 1 - self.max_error and difference > self.margin:
                yield credibility, difference, sibling


@dataclass(frozen=True)
class _Fitted(Credit):
    credit: CrediblePairs
    prior: Prior

    def rows(self, tree: Tree) -> list[PreferencePair]:
        return self.credit.rows_under(self.prior, tree)


def _different(siblings: Iterable[Node]) -> list[Node]:
    """The estimated ones, but of those that do the same only the first."""
    different: list[Node] = []
    for node in siblings:
        if node.estimate is not None and not any(do_the_same(node, known) for known in different):
            different.append(node)
    return different
