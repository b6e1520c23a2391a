"""The paper's own differential as an advantage (RRO, arXiv 2505.20737, section 3): how far an
action's process reward rises above that of the step before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rro.exploration.tree import Node, Tree, gap
from rro.learning.credit.advantages import action_row
from rro.learning.credit.base import Credit, CreditContext
from rro.types import Source, WeightedEpisode


@dataclass(frozen=True)
class RisingAdvantages(Credit):
    """A(h_t, a_t) = r(h_t, a_t) - r(h_{t-1}, a_{t-1}) of every candidate whose process reward and
    whose parent's are estimated; at the first step the parent is the start, if it was estimated."""

    form: Literal["value", "sign"] = "value"
    """value: the difference. sign: +1 where it rises, -1 where it falls."""
    context: CreditContext = CreditContext()

    gives = "advantages"

    def rows(self, tree: Tree) -> list[WeightedEpisode]:
        rows = []
        for node in tree.root.walk():
            difference = _difference(node)
            if difference is not None and node.estimate is not None:
                if self.form == "sign":
                    difference = float((difference > 0) - (difference < 0))
                rows.append(action_row(tree, node, difference, node.estimate.mean))
        return rows


def _difference(node: Node) -> float | None:
    parent = node.parent
    if parent is None or parent.estimate is None or node.estimate is None:
        return None
    sampled = node.action.source is Source.POLICY
    return gap(node.estimate, parent.estimate) if sampled else None
