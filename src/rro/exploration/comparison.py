"""Which candidate the next rollout should start from: the comparison that is undecided and worth
deciding. Makes decisions, draws nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rro.exploration.beliefs import Belief, above
from rro.exploration.tree import Node, RolloutSuffix


@dataclass(frozen=True)
class Candidate:
    """Nodes below one node whose actions do the same, and all rollouts seen to follow them. The
    first node is rolled out, committed and paired. `weight` is what one outcome counts for."""

    nodes: tuple[Node, ...]
    suffixes: tuple[RolloutSuffix, ...]
    belief: Belief
    weight: float = 1.0

    @property
    def first(self) -> Node:
        """The node that stands for all of them."""
        return self.nodes[0]

    def later(self, rollouts: float) -> Belief:
        """The belief after so many more rollouts that come out as expected."""
        return self.belief.after(self.weight * rollouts, self.belief.mean)


@dataclass(frozen=True)
class Comparison:
    """The candidate with the highest expected value, and the one that is most credibly worth less,
    if any; `credibility` is the probability that it is."""

    best: Candidate
    worse: Candidate | None
    credibility: float

    def next(self, rollouts: float, level: float) -> Candidate | None:
        """The side whose uncertainty the next rollout lowers more; None if another `rollouts` that
        come out as expected would leave the credibility below `level`."""
        if self.worse is None:
            return None
        open_sides = [side for side in (self.best, self.worse) if side.belief.exact is None]
        if not open_sides or rollouts < 1:
            return None
        share = rollouts / len(open_sides)
        if above(self.best.later(share), self.worse.later(share)) < level:
            return None
        return max(open_sides, key=lambda side: side.belief.variance - side.later(1).variance)


def compare(candidates: Sequence[Candidate]) -> Comparison:
    """The best candidate against the one most credibly below it; ties go to the earlier one."""
    best = max(candidates, key=lambda candidate: candidate.belief.mean)
    others = [
        (above(best.belief, other.belief), other) for other in candidates if other is not best
    ]
    if not others:
        return Comparison(best, None, 0.0)
    credibility, worse = max(others, key=lambda pair: pair[0])
    return Comparison(best, worse, credibility)
