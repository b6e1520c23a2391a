"""Adaptive exploration: rollouts supply the next candidates, and go where an order is open."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rro.config import AdaptiveConfig
from rro.explore.beliefs import Belief, Prior, above
from rro.explore.pairs import gap, step_pair
from rro.explore.sampler import Missing, Sampler, together
from rro.explore.strategies.base import NoDemonstrations
from rro.explore.tree import Node, Passage, Tree
from rro.types import PreferencePair


@dataclass(frozen=True)
class Candidate:
    """Nodes of one parent whose actions do the same. The first stands for all: it is rolled out, committed, paired."""

    nodes: tuple[Node, ...]
    passages: tuple[Passage, ...]
    belief: Belief

    @property
    def first(self) -> Node:
        return self.nodes[0]


@dataclass(frozen=True)
class AdaptiveExploration(NoDemonstrations):
    rollouts: int = 5
    siblings: Literal["lowest", "all"] = "lowest"
    margin: float = 0.0
    options: AdaptiveConfig = AdaptiveConfig()
    prior: Prior = Prior()
    name: str = "adaptive"

    async def explore(self, sampler: Sampler) -> None:
        root = sampler.tree.root
        at = (root,)
        while sampler.is_open(at[0]) and not self._is_spent(sampler):
            chosen = await self._step(sampler, at)
            if chosen is None:
                return
            sampler.commit(chosen.first, rose=False)
            at = chosen.nodes

    async def _step(self, sampler, at):
        node = at[0]
        await self._fresh(sampler, node, self.rollouts - len(node.passages()))
        left = self.options.step_rollouts
        while True:
            field = await self._field(sampler, at)
            if not field:
                return None
            wanted = self._wanted(field, left) if not self._is_spent(sampler) else []
            if not wanted:
                return max(field, key=lambda c: c.belief.mean)
            wanted = wanted[:left]
            left -= len(wanted)
            await together(self._roll(sampler, c.first) for c in wanted)

    async def _roll(self, sampler, node):
        await sampler.roll_out(node, len(node.rollouts), keep_states=True)

    async def _fresh(self, sampler, node, count):
        begun = len(node.rollouts)
        await together(sampler.roll_out(node, begun + n, keep_states=True) for n in range(count))
        if not node.passages():
            raise Missing(f"task {sampler.task.id}: every rollout from {node.id} failed")

    async def _field(self, sampler, at):
        node = at[0]
        sampler.reprice(node, [p for n in at for p in n.passages()])
        sampler.recycle(node)
        center = self.prior.center(node.price)
        groups: dict[Hashable, list[Node]] = {}
        for child in node.children:
            groups.setdefault(await sampler.outcome_of(child), []).append(child)
        field = []
        for nodes in groups.values():
            passages = [p for n in nodes for p in n.passages()]
            for n in nodes:
                sampler.reprice(n, passages)
            field.append(Candidate(tuple(nodes), tuple(passages), self.prior.belief(nodes[0].price, center)))
        return field

    def _wanted(self, field, left):
        if len(field) < 2 or left < 1:
            return []
        best = max(field, key=lambda c: c.belief.mean)
        rest = [c for c in field if c is not best]
        worst = max(rest, key=lambda c: above(best.belief, c.belief))
        if above(best.belief, worst.belief) >= 1 - self.options.error:
            return []
        a, b = best.belief, worst.belief
        open_sides = sum(x.exact is None for x in (a, b))
        if not open_sides:
            return []
        share = left / open_sides
        am, bm = mean_of(best), mean_of(worst)
        if above(a.after(share, am), b.after(share, bm)) < 1 - self.options.error:
            return []
        def gain(c):
            v = c.belief.variance
            return v / (c.belief.successes + c.belief.failures + 1) if c.belief.exact is None else -1
        return [max((best, worst), key=gain)]

    def _is_spent(self, sampler):
        return False

    def pairs(self, tree: Tree, iteration: int) -> list[PreferencePair]:
        found = []
        for chosen in tree.committed():
            center = self.prior.center(chosen.parent.price)
            belief = self.prior.belief(chosen.price, center)
            credible = []
            for sib in chosen.parent.children:
                if sib is chosen or sib.price is None or gap(chosen.price, sib.price) <= self.margin:
                    continue
                p = above(belief, self.prior.belief(sib.price, center))
                if p >= 1 - self.options.error:
                    credible.append((p, sib))
            if credible and self.siblings == "lowest":
                credible = [max(credible, key=lambda x: x[0])]
            found += [replace(step_pair(tree, chosen, s, self.name, iteration), credibility=p) for p, s in credible]
        return found


def mean_of(c):
    return c.belief.mean
