"""Fixed-size exploration: K candidates at every step, the best extends the trajectory (the RRO
paper's ablation)."""

from __future__ import annotations

from dataclasses import dataclass

from rro.exploration.sampler import Sampler, TaskFailed
from rro.exploration.strategies.base import Count, Strategy
from rro.exploration.tree import Node


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
    """Whether the start is estimated too: no decision needs it, a trend does."""

    name = "fixed"

    async def explore(self, sampler: Sampler) -> None:
        node = sampler.tree.root
        if self.estimate_start:
            await sampler.estimate(node, self.rollouts)
        while sampler.is_open(node):
            candidates = await sampler.propose_and_estimate(node, self.candidates, self.rollouts)
            node = self._best(sampler, node, candidates)
            sampler.commit(node, rose=False)

    def _best(self, sampler: Sampler, node: Node, candidates: list[Node]) -> Node:
        estimated = [(new.estimate.mean, new) for new in candidates if new.estimate is not None]
        if not estimated:
            raise TaskFailed(
                f"task {sampler.task.id}: no candidate at node {node.id} has an estimate"
            )
        return max(estimated, key=lambda pair: pair[0])[1]
