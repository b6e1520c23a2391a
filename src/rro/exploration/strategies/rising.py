"""Reward Rising Optimization: candidates one at a time, until one's process reward rises (arXiv
2505.20737, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rro.concurrency import gather_all
from rro.exploration.sampler import Sampler, TaskFailed
from rro.exploration.strategies.base import Count, Strategy, best_of
from rro.exploration.tree import Node


@dataclass(frozen=True)
class RisingExploration(Strategy):
    """Draws candidates until one rises above the step before, or K are drawn; then the best extends
    the trajectory."""

    rollouts: Count = 5
    """N: rollouts per process reward. Paper: 5."""
    candidates: Count = 5
    """K: candidates per step at most. Paper: 5."""
    rising: Literal["strict", "weak"] = "strict"
    """Whether a candidate must exceed the previous process reward, or only reach it."""
    start: Literal["estimated", "zero"] = "estimated"
    """r_0, the process reward before the first action: estimated by N rollouts, or 0."""
    threshold: Literal["chosen", "fresh"] = "chosen"
    """What the next step must rise above: the process reward for which the action was chosen
    (paper), which is too high on average, or an estimate by N rollouts of its own, which is not
    (docs/grounding.md)."""

    name = "rro"
    plays_episodes = False

    async def explore(self, sampler: Sampler) -> None:
        node = sampler.tree.root
        previous = await self._start_reward(sampler)
        while sampler.is_open(node):
            node = await self._first_rising(sampler, node, previous)
            previous = await self._threshold(sampler, node)

    async def _start_reward(self, sampler: Sampler) -> float:
        if self.start == "zero":
            return 0.0
        estimate = await sampler.estimate(sampler.tree.root, self.rollouts)
        if estimate is None:
            raise TaskFailed("every rollout from the start failed")
        return estimate.mean

    async def _threshold(self, sampler: Sampler, node: Node) -> float:
        """What the step after a committed node must rise above."""
        assert node.estimate is not None
        if self.threshold == "chosen" or not sampler.is_open(node):
            return node.estimate.mean
        begun = range(self.rollouts, 2 * self.rollouts)
        fresh = await gather_all(sampler.roll_out(node, number) for number in begun)
        rewards = [rollout.reward for rollout in fresh if rollout.reward is not None]
        return sum(rewards) / len(rewards) if rewards else node.estimate.mean

    def _rises(self, mean: float, previous: float) -> bool:
        return mean > previous or (self.rising == "weak" and mean == previous)

    async def _first_rising(self, sampler: Sampler, node: Node, previous: float) -> Node:
        """Draw and estimate until one rises, or K are drawn; commits that one, or the best if none
        rose."""
        candidates: list[Node] = []
        for _ in range(self.candidates):
            candidate = await sampler.propose(node)
            estimate = await sampler.estimate(candidate, self.rollouts)
            if estimate is not None and self._rises(estimate.mean, previous):
                sampler.commit(candidate, rose=True)
                return candidate
            candidates.append(candidate)
        best = best_of(sampler, node, candidates)
        sampler.commit(best, rose=False)
        return best
