"""Fixed-size exploration: K candidates at every step, the best extends the trajectory (the RRO
paper's ablation)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rro.exploration.pairs import step_pairs
from rro.exploration.sampler import Sampler, TaskFailed
from rro.exploration.strategies.base import NoDemonstrations
from rro.exploration.tree import Node, Tree
from rro.types import PreferencePair


@dataclass(frozen=True)
class FixedSizeExploration(NoDemonstrations):
    """`candidates` K, all drawn and estimated together with `rollouts` N each; best against worst
    gives the pair.

    With one candidate this estimates the policy's own trajectory step by step, which is how trends are
    measured. The start is estimated too where `estimate_start` is set: no decision needs it, a trend
    does."""

    rollouts: int = 5
    candidates: int = 5
    siblings: Literal["lowest", "all"] = "lowest"
    margin: float = 0.0
    estimate_start: bool = False
    name: str = "fixed"

    async def explore(self, sampler: Sampler) -> None:
        node = sampler.tree.root
        if self.estimate_start:
            await sampler.estimate(node, self.rollouts)
        while sampler.is_open(node):
            candidates = await sampler.propose_and_estimate(node, self.candidates, self.rollouts)
            node = self._best(sampler, node, candidates)
            sampler.commit(node, rose=False)

    def _best(self, sampler: Sampler, node: Node, candidates: list[Node]) -> Node:
        estimated = [
            (candidate.estimate.mean, candidate)
            for candidate in candidates
            if candidate.estimate is not None
        ]
        if not estimated:
            raise TaskFailed(
                f"task {sampler.task.id}: no candidate at node {node.id} has an estimate"
            )
        return max(estimated, key=lambda pair: pair[0])[1]

    def pairs(self, tree: Tree, iteration: int) -> list[PreferencePair]:
        return step_pairs(tree, self.name, iteration, self.siblings, self.margin)
