"""Fixed-size exploration: K candidates at every step, the best extends the trajectory (the RRO
paper's ablation)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rro.exploration.pairs import step_pairs
from rro.exploration.sampler import Missing, Sampler
from rro.exploration.strategies.base import NoDemonstrations
from rro.exploration.tree import Node, Tree
from rro.types import PreferencePair


@dataclass(frozen=True)
class FixedSizeExploration(NoDemonstrations):
    """`candidates` K, all drawn and priced together with `rollouts` N each; best against worst
    gives the pair.

    With one candidate this prices the policy's own trajectory step by step, which is how trends are
    measured. The start is priced too where `price_start` is set: no decision needs it, a trend
    does."""

    rollouts: int = 5
    candidates: int = 5
    siblings: Literal["lowest", "all"] = "lowest"
    margin: float = 0.0
    price_start: bool = False
    name: str = "fixed"

    async def explore(self, sampler: Sampler) -> None:
        node = sampler.tree.root
        if self.price_start:
            await sampler.price(node, self.rollouts)
        while sampler.is_open(node):
            candidates = await sampler.propose_and_price(node, self.candidates, self.rollouts)
            node = self._best(sampler, node, candidates)
            sampler.commit(node, rose=False)

    def _best(self, sampler: Sampler, node: Node, candidates: list[Node]) -> Node:
        priced = [
            (candidate.price.mean, candidate)
            for candidate in candidates
            if candidate.price is not None
        ]
        if not priced:
            raise Missing(f"task {sampler.task.id}: no candidate at node {node.id} could be priced")
        return max(priced, key=lambda pair: pair[0])[1]

    def pairs(self, tree: Tree, iteration: int) -> list[PreferencePair]:
        return step_pairs(tree, self.name, iteration, self.siblings, self.margin)
