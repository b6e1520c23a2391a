"""Adaptive exploration: rollouts supply the next candidates, and go where an order is open
(docs/exploration.md)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from rro.concurrency import gather_all
from rro.errors import UsageError
from rro.exploration.beliefs import Prior
from rro.exploration.comparison import Candidate, compare
from rro.exploration.sampler import Sampler, TaskFailed
from rro.exploration.strategies.base import Count, Strategy, StrategyContext
from rro.exploration.tree import Node, Tree, gap
from rro.types import StopReason


@dataclass(frozen=True)
class AdaptiveExploration(Strategy):
    """Rollouts from a state supply its candidates, and further rollouts go where an order is open,
    until the best candidate is credibly better than another. The last four options are for
    ablations."""

    max_error: Annotated[float, Field(gt=0, le=0.5)] = 0.2
    """A pair is kept if the probability that chosen is worth more than rejected is at least 1 -
    max_error."""
    prior: Annotated[float, Field(gt=0)] = 2.0
    """Outcomes that the prior counts as: an action is worth what its state is worth."""
    min_draws: Count = 3
    """Draws of an action at each step before any decision; those seen in rollouts count."""
    max_draws: Count = 8
    """Draws at a step while no comparison deserves a rollout."""
    step_calls: Annotated[int, Field(ge=0)] = 8
    """Policy calls that a step may take beyond its first draws."""
    budget: Annotated[int, Field(ge=1)] | None = None
    """Cost of a task at which nothing new begins. Default: no limit."""
    budget_unit: Literal["policy_calls", "generated_tokens", "rollouts"] = "policy_calls"
    """What `budget` counts."""
    recycle: bool = True
    """Whether rollouts from a state supply its candidates and their first outcomes."""
    race: bool = True
    """Whether rollouts go where an order is open."""
    merge_equal: bool = True
    """Whether candidates that do the same share their outcomes."""
    dispersion: bool = True
    """Whether outcomes with less than Bernoulli variance count for more."""
    context: StrategyContext = StrategyContext()

    name = "adaptive"
    plays_episodes = False
    credit = "credible_pairs"
    endings = 0.3
    old_names: ClassVar = {
        "error": "max_error",
        "first": "min_draws",
        "most": "max_draws",
        "share": "merge_equal",
        "weigh": "dispersion",
    }

    def __post_init__(self) -> None:
        if self.recycle and not self.context.one_policy:
            raise UsageError(
                "strategy adaptive takes its candidates from rollouts, so both need one model and "
                "one temperature: leave out explore.pricing and explore.proposal_temperature, or "
                "set explore.adaptive.recycle=false"
            )

    def credit_options(self) -> Mapping[str, Any]:
        return {"max_error": self.max_error, "prior": self.prior, "dispersion": self.dispersion}

    @property
    def beliefs(self) -> Prior:
        """What is believed of an action before its first outcome."""
        return Prior(self.prior, *self.context.reward_range)

    async def explore(self, sampler: Sampler) -> None:
        """Step by step to an end; once the budget is spent, as far as what has been seen leads."""
        here: tuple[Node, ...] = (sampler.tree.root,)
        if not self.recycle:
            await self._roll_out(sampler, here[0], self.min_draws)
        while sampler.is_open(here[0]):
            chosen = await self._settle(sampler, here)
            if chosen is None:
                return
            sampler.commit(chosen.first, rose=_rises(chosen.first))
            here = chosen.nodes

    async def _settle(self, sampler: Sampler, here: tuple[Node, ...]) -> Candidate | None:
        """Draw and race until the best candidate is credibly better than another, or the step has
        had its share."""
        node, level = here[0], 1 - self.max_error
        calls, tries = _answers(sampler.tree), 0
        if not self._is_spent(sampler.tree):
            await self._draw(sampler, node, self.min_draws - self._drawn(node))
        while candidates := await self._candidates(sampler, here):
            comparison = compare(candidates)
            left = self.step_calls - max(tries, _answers(sampler.tree) - calls)
            if comparison.credibility >= level or left <= 0 or self._is_spent(sampler.tree):
                return comparison.best
            tries += 1  # those that fail cost no calls, but must not go on for ever
            side = comparison.next(left / _length(candidates), level) if self.race else None
            if side is not None:
                await self._roll_out(sampler, side.first, 1)
            elif self._drawn(node) < self.max_draws:
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
        if self.recycle:
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
            sampler.roll_out(node, begun + n, keep_states=self.recycle) for n in range(count)
        )

    async def _candidates(self, sampler: Sampler, here: tuple[Node, ...]) -> list[Candidate]:
        """The candidates at a state, estimated; those that do the same are one."""
        node, prior, weight = here[0], self.beliefs, self._weight(sampler.tree)
        seen = [suffix for twin in here for suffix in twin.suffixes()]
        for twin in here:
            sampler.estimate_from(twin, seen)
        if self.recycle:
            sampler.recycle(node)
        alike: dict[Hashable, list[Node]] = {}
        for child in node.children:
            what = await sampler.outcome_of(child) if self.merge_equal else child.id
            alike.setdefault(what, []).append(child)
        center, found = prior.center(node.estimate, weight), list[Candidate]()
        for nodes in alike.values():
            suffixes = tuple(suffix for twin in nodes for suffix in twin.suffixes())
            for twin in nodes:
                sampler.estimate_from(twin, suffixes)
            if nodes[0].estimate is not None:  # or every rollout failed: missing, not bad
                belief = prior.belief(nodes[0].estimate, center, weight)
                found.append(Candidate(tuple(nodes), suffixes, belief, weight))
        return found

    def _drawn(self, node: Node) -> int:
        """Draws of an action at a node so far, failed ones included."""
        return len(node.inherited) + len(node.rollouts) if self.recycle else len(node.children)

    def _weight(self, tree: Tree) -> float:
        return self.beliefs.weight(tree.outcomes()) if self.dispersion else 1.0

    def _is_spent(self, tree: Tree) -> bool:
        if self.budget is None:
            return False
        if self.budget_unit == "rollouts":
            return sum(len(node.rollouts) for node in tree.root.walk()) >= self.budget
        return bool(getattr(tree.usage(), self.budget_unit) >= self.budget)


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
