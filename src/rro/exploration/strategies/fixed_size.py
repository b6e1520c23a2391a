"""Fixed-size exploration: K candidates at every step, the best extends the trajectory (the RRO
paper's ablation)."""

from __future__ import annotations

from dataclasses import dataclass

from rro.exploration.sampler import Sampler
from rro.exploration.strategies.base import Count, Strategy, best_of


@dataclass(frozen=True)
class FixedSizeExploration(Strategy):
    """Draws K candidates at every step, each with N rollouts; the best extends the trajectory.

    With one candidate this estimates the policy's own trajectory step by step, which is how trends
    are measured."""

    rollouts: Count = 5
    """N: rollouts per process reward."""
    candidates: Count = 5
    """K: candidates per step."""
    estimate_start: bool = False
    """Whether the start is estimated too: no decision needs it, the trend analysis does."""

    name = "fixed"
    plays_episodes = False

    async def explore(self, sampler: Sampler) -> None:
        node = sampler.tree.root
        if self.estimate_start:
            await sampler.estimate(node, self.rollouts)
        while sampler.is_open(node):
            candidates = await sampler.propose_and_estimate(node, self.candidates, self.rollouts)
            node = best_of(sampler, node, candidates)
            sampler.commit(node, rose=False)
