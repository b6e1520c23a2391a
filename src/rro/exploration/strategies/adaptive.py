"""Adaptive exploration: rollouts supply the next candidates, and go where an order is open
(docs/exploration.md)."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Literal

from rro.concurrency import gather_all
from rro.config import AdaptiveConfig
from rro.exploration.beliefs import Prior, above
from rro.exploration.comparison import Candidate, compare
from rro.exploration.pairs import gap, step_pair
from rro.exploration.sampler import Sampler, TaskFailed
from rro.exploration.strategies.base import NoDemonstrations
from rro.exploration.tree import Node, Tree
from rro.types import PreferencePair, StopReason


@dataclass(frozen=True)
class AdaptiveExploration(NoDemonstrations):
    """`siblings` and `margin` as in rro.config.ExploreConfig, `options` as in
    rro.config.AdaptiveConfig; `prior` knows the range of the outcomes."""

    options: AdaptiveConfig = field(default_factory=AdaptiveConfig)
    siblings: Literal["lowest", "all"] = "lowest"
    margin: float = 0.0
    prior: Prior = field(default_factory=Prior)
    name: str = "adaptive"

    async def explore(self, sampler: Sampler) -> None:
        """Step by step to an end; once the budget is spent, as far as what has been seen leads."""
        here: tuple[Node, ...] = (sampler.tree.root,)
        if not self.options.recycle:
            await self._roll_out(sampler, here[0], self.options.first)
        while sampler.is_open(here[0]):
            chosen = await self._settle(sampler, here)
            if chosen is None:
                return
            sampler.commit(chosen.first, rose=_rises(chosen.first))
            here = chosen.nodes

    async def _settle(self, sampler: Sampler, here: tuple[Node, ...]) -> Candidate | None:
        """Draw and race until the best candidate is credibly better than another, or the step has
        had its share."""
        node, level = here[0], 1 - self.options.error
        calls, tries = _answers(sampler.tree), 0
        if not self._is_spent(sampler.tree):
            await self._draw(sampler, node, self.options.first - self._drawn(node))
        while candidates := await self._candidates(sampler, here):
            comparison = compare(candidates)
            left = self.options.step_calls - max(tries, _answers(sampler.tree) - calls)
            if comparison.credibility >= level or left <= 0 or self._is_spent(sampler.tree):
                return comparison.best
            tries += 1  # those that fail cost no calls, but must not go on for ever
            side = comparison.next(left / _length(candidates), level) if self.options.race else None
            if side is not None:
                await self._roll_out(sampler, side.first, 1)
            elif self._drawn(node) < self.options.most:
                await self._draw(sampler, node, 1)
            else:
                return comparison.best
        if node.children:
            raise TaskFailed(
                f"task {sampler.task.id}: no candidate at node {node.id} has an estimate"
            )
        return None  # the context is full, or the budget spent and no rollout came here

    async def _draw(self, sampler: Sampler, node: Node, count: int) -> None:
        """New candidates: the first actions of rollouts from here. Without recycling, proposals
        with a rollout each."""
        if self.options.recycle:
            await self._roll_out(sampler, node, count)
        else:
            proposed = await gather_all(sampler.propose(node) for _ in range(count))
            await gather_all(
                self._roll_out(sampler, new, 1) for new in proposed if sampler.is_open(new)
            )
        if not node.suffixes() and not node.children:
            raise TaskFailed(f"task {sampler.task.id}: every rollout from node {node.id} failed")

    async def _roll_out(self, sampler: Sampler, node: Node, count: int) -> None:
        begun = len(node.rollouts)
        await gather_all(
            sampler.roll_out(node, begun + n, keep_states=self.options.recycle)
            for n in range(count)
        )

    async def _candidates(self, sampler: Sampler, here: tuple[Node, ...]) -> list[Candidate]:
        """The candidates at a state, estimated; those that do the same are one."""
        node, weight = here[0], self._weight(sampler.tree)
        seen = [suffix for twin in here for suffix in twin.suffixes()]
        for twin in here:
            sampler.estimate_from(twin, seen)
        if self.options.recycle:
            sampler.recycle(node)
        alike: dict[Hashable, list[Node]] = {}
        for child in node.children:
            what = await sampler.outcome_of(child) if self.options.share else child.id
            alike.setdefault(what, []).append(child)
        center, found = self.prior.center(node.estimate, weight), list[Candidate]()
        for nodes in alike.values():
            suffixes = tuple(suffix for twin in nodes for suffix in twin.suffixes())
            for twin in nodes:
                sampler.estimate_from(twin, suffixes)
            if nodes[0].estimate is not None:  # or every rollout failed: missing, not bad
                belief = self.prior.belief(nodes[0].estimate, center, weight)
                found.append(Candidate(tuple(nodes), suffixes, belief, weight))
        return found

    def _drawn(self, node: Node) -> int:
        """Draws of an action at a node so far, failed ones included."""
        return (
            len(node.inherited) + len(node.rollouts) if self.options.recycle else len(node.children)
        )

    def _weight(self, tree: Tree) -> float:
        if not self.options.weigh:
            return 1.0
        rollouts = [
            rollout for node in tree.root.walk() for _, rollout in sorted(node.rollouts.items())
        ]
        return self.prior.weight(
            [rollout.reward for rollout in rollouts if rollout.reward is not None]
        )

    def _is_spent(self, tree: Tree) -> bool:
        if self.options.budget is None:
            return False
        if self.options.budget_unit == "rollouts":
            return sum(len(node.rollouts) for node in tree.root.walk()) >= self.options.budget
        return bool(getattr(tree.usage(), self.options.budget_unit) >= self.options.budget)

    def pairs(self, tree: Tree, iteration: int) -> list[PreferencePair]:
        """Each committed action against the sibling that is most credibly worth less (or all that
        credibly are). What was seen after it was committed counts too, and may overturn what had
        seemed settled."""
        found: list[PreferencePair] = []
        weight = self._weight(tree)
        for chosen in tree.committed():
            worse = self._credibly_worse(chosen, weight)
            if self.siblings == "lowest" and worse:
                worse = [max(worse, key=lambda pair: pair[0])]
            for credibility, sibling in worse:
                pair = step_pair(tree, chosen, sibling, self.name, iteration)
                found.append(replace(pair, credibility=round(credibility, 4)))
        return found

    def _credibly_worse(self, chosen: Node, weight: float) -> list[tuple[float, Node]]:
        assert chosen.parent is not None
        if chosen.estimate is None:
            return []
        center = self.prior.center(chosen.parent.estimate, weight)
        belief = self.prior.belief(chosen.estimate, center, weight)
        siblings = [
            (above(belief, self.prior.belief(sibling.estimate, center, weight)), sibling)
            for sibling in chosen.parent.children
            if sibling.estimate is not None
            and gap(chosen.estimate, sibling.estimate) > self.margin
            and sibling.action.content != chosen.action.content
        ]
        return [pair for pair in siblings if pair[0] >= 1 - self.options.error]


def _answers(tree: Tree) -> int:
    """Policy calls but for those of tries that failed: which those are is chance, and no decision
    may depend on it."""
    rollouts = [
        rollout
        for node in tree.root.walk()
        for rollout in node.rollouts.values()
        if rollout.reward is not None
    ]
    drawn = sum(node.parent is not None and not node.recycled for node in tree.root.walk())
    return drawn + sum(
        len(rollout.steps) + (rollout.stop is StopReason.CONTEXT) for rollout in rollouts
    )


def _rises(node: Node) -> bool:
    assert node.parent is not None
    return (
        node.estimate is not None
        and node.parent.estimate is not None
        and gap(node.estimate, node.parent.estimate) > 0
    )


def _length(candidates: list[Candidate]) -> float:
    """Policy calls that a rollout from a candidate takes, on average so far."""
    suffixes = [suffix for candidate in candidates for suffix in candidate.suffixes]
    return max(1.0, sum(len(p.rollout.steps) - p.start for p in suffixes) / max(1, len(suffixes)))
