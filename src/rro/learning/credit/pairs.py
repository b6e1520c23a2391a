"""Preference pairs of a tree's steps: the chosen action against siblings that are worth less (RRO,
section 3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from rro.exploration.tree import Node, Tree, do_the_same, gap
from rro.learning.credit.base import Credit, CreditContext
from rro.learning.credit.comparisons import OffPath, comparisons
from rro.types import Message, PairKind, PreferencePair

Siblings = Literal["lowest", "all"]
Margin = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class SiblingPairs(Credit):
    """Each committed action against its siblings whose process reward is lower. Siblings without an
    estimate, and those that do the same, give no pair; one text that was drawn twice gives one."""

    siblings: Siblings = "lowest"
    """Which siblings the chosen action is paired with: the one with the lowest process reward, or
    all lower ones."""
    margin: Margin = 0.0
    """A sibling must be lower by more than this."""
    off_path: OffPath = "no"
    """Pairs of what was paid for beside the committed path: no; of siblings that were not
    committed, the best of them against lower ones; or also of the next actions of their rollouts,
    in the whole tree (docs/exploration.md)."""
    context: CreditContext = CreditContext()

    def rows(self, tree: Tree) -> list[PreferencePair]:
        found: list[PreferencePair] = []
        for chosen, others in comparisons(tree, self.off_path):
            worse = list(lower_siblings(chosen, others, self.margin))
            if self.siblings == "lowest" and worse:
                worse = [min(worse, key=_mean)]
            each_text = {sibling.action.text: sibling for sibling in reversed(worse)}
            found += [
                step_pair(tree, chosen, sibling, self.context)
                for sibling in worse
                if each_text[sibling.action.text] is sibling
            ]
        return found


def lower_siblings(chosen: Node, siblings: Iterable[Node], margin: float) -> Iterator[Node]:
    """Siblings that do something else and whose process reward is lower than that of `chosen` by
    more than `margin`."""
    if chosen.estimate is None:
        return
    for sibling in siblings:
        if (
            sibling.estimate is not None
            and gap(chosen.estimate, sibling.estimate) > margin
            and not do_the_same(sibling, chosen)
        ):
            yield sibling


def step_pair(
    tree: Tree,
    chosen: Node,
    rejected: Node,
    context: CreditContext,
    sides: tuple[tuple[Message, ...], tuple[Message, ...]] | None = None,
) -> PreferencePair:
    """Two candidates of one node, both with an estimate; `sides` replaces the one message each by
    the rest of an episode."""
    assert chosen.parent is not None
    assert chosen.estimate is not None
    assert rejected.estimate is not None
    kind: PairKind = "step" if sides is None else "continuation"
    better, worse = sides or ((chosen.action,), (rejected.action,))
    return PreferencePair(
        prompt=chosen.parent.history(),
        chosen=better,
        rejected=worse,
        task=tree.task.id,
        step=chosen.depth,
        chosen_reward=chosen.estimate,
        rejected_reward=rejected.estimate,
        strategy=context.strategy,
        kind=kind,
        iteration=context.iteration,
        committed=chosen.committed,
    )


def _mean(node: Node) -> float:
    assert node.estimate is not None
    return node.estimate.mean
