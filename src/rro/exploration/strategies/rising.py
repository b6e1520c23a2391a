"""Reward Rising Optimization: candidates one at a time, until one's process reward rises (arXiv
2505.20737, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rro.exploration.pairs import step_pairs
from rro.exploration.sampler import Sampler, TaskFailed
from rro.exploration.strategies.base import NoDemonstrations
from rro.exploration.tree import Node, Tree
from rro.types import PreferencePair


@dataclass(frozen=True)
class RisingExploration(NoDemonstrations):
    """`rollouts` N per process reward, at most `candidates` K per step; other options as in
    rro.config.ExploreConfig."""

    rollouts: int = 5
    candidates: int = 5
    rising: Literal["strict", "weak"] = "strict"
    start: Literal["estimated", "zero"] = "estimated"
    siblings: Literal["lowest", "all"] = "lowest"
    margin: float = 0.0
    name: str = "rro"

    async def explore(self, sampler: Sampler) -> None:
        node = sampler.tree.root
        previous = await self._start_reward(sampler)
        while sampler.is_open(node):
            node = await self._first_rising(sampler, node, previous)
            assert node.estimate is not None
            previous = node.estimate.mean

    async def _start_reward(self, sampler: Sampler) -> float:
        if self.start == "zero":
            return 0.0
        estimate = await sampler.estimate(sampler.tree.root, self.rollouts)
        if estimate is None:
            raise TaskFailed(f"task {sampler.task.id}: every rollout from the start failed")
        return estimate.mean

    async def _first_rising(self, sampler: Sampler, node: Node, previous: float) -> Node:
        """Draw and estimate until one rises, or K are drawn; commits that one, or the best if none
        rose."""
        estimated: list[tuple[float, Node]] = []
        for _ in range(self.candidates):
            candidate = await sampler.propose(node)
            estimate = await sampler.estimate(candidate, self.rollouts)
            if estimate is None:
                continue  # every rollout failed: the candidate is missing, not bad
            if estimate.mean > previous or (self.rising == "weak" and estimate.mean == previous):
                sampler.commit(candidate, rose=True)
                return candidate
            estimated.append((estimate.mean, candidate))
        if not estimated:
            raise TaskFailed(
                f"task {sampler.task.id}: no candidate at node {node.id} has an estimate"
            )
        _, best = max(estimated, key=lambda pair: pair[0])
        sampler.commit(best, rose=False)
        return best

    def pairs(self, tree: Tree, iteration: int) -> list[PreferencePair]:
        return step_pairs(tree, self.name, iteration, self.siblings, self.margin)
