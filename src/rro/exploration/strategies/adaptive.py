"""Adaptive exploration: the rollouts from a state supply its candidates and their outcomes
(docs/exploration.md)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from rro.concurrency import gather_all
from rro.errors import UsageError
from rro.exploration.sampler import Sampler, TaskFailed
from rro.exploration.strategies.base import Count, Strategy, StrategyContext
from rro.exploration.tree import Node, Tree, gap

_OWN = 2
"""Outcomes of the state that count for an action besides its own."""


@dataclass(frozen=True)
class AdaptiveExploration(Strategy):
    """At each step, rollouts from the state until enough pass through it, those of earlier steps
    included. Their first actions are the candidates, the best one is committed."""

    draws: Count = 4
    """Rollouts that pass through each state of the trajectory, so draws of its next action."""
    max_error: Annotated[float, Field(gt=0, le=0.5)] = 0.2
    """For the credit: a pair is kept if the probability that chosen is worth more than rejected is
    at least 1 - max_error."""
    budget: Annotated[int, Field(ge=1)] | None = None
    """Cost of a task at which nothing new begins. Default: no limit."""
    budget_unit: Literal["policy_calls", "generated_tokens", "rollouts"] = "policy_calls"
    """What `budget` counts."""
    merge_equal: bool = True
    """Whether candidates that do the same share their outcomes."""
    context: StrategyContext = StrategyContext()

    name = "adaptive"
    estimates = False
    plays_episodes = False
    credit = "credible_pairs"
    endings = 0.3
    old_names: ClassVar = {
        "error": "max_error",
        "first": "draws",
        "min_draws": "draws",
        "share": "merge_equal",
    }

    def __post_init__(self) -> None:
        if not self.context.one_policy:
            raise UsageError(
                "strategy adaptive takes its candidates from rollouts, so both need one model and "
                "one temperature: leave out explore.pricing and explore.proposal_temperature, or "
                "take explore.strategy=fixed with credit.name=credible_pairs"
            )

    def credit_options(self) -> Mapping[str, Any]:
        return {"max_error": self.max_error}

    async def explore(self, sampler: Sampler) -> None:
        """Step by step to an end; once the budget is spent, as far as what has been seen leads."""
        here: Sequence[Node] = (sampler.tree.root,)
        while sampler.is_open(here[0]):
            await self._draw(sampler, here[0])
            seen = [suffix for twin in here for suffix in twin.suffixes()]
            for twin in here:
                sampler.estimate_from(twin, seen)
            candidates = await self._candidates(sampler, here[0])
            if not candidates:
                return  # the context is full, or the budget spent and no rollout came here
            here = max(candidates, key=lambda nodes: _worth(nodes[0]))
            sampler.commit(here[0], rose=_rises(here[0]))

    async def _draw(self, sampler: Sampler, node: Node) -> None:
        """Rollouts from a state until enough were begun there or above it."""
        begun = len(node.rollouts)
        missing = self.draws - begun - len(node.inherited)
        if missing > 0 and not self._is_spent(sampler.tree):
            await gather_all(
                sampler.roll_out(node, begun + n, keep_states=True) for n in range(missing)
            )
            if not node.suffixes():
                raise TaskFailed(f"every rollout from node {node.id} failed")

    async def _candidates(self, sampler: Sampler, node: Node) -> list[list[Node]]:
        """The candidates at a state, estimated; those that do the same stand together, and share
        all their outcomes."""
        alike: dict[Hashable, list[Node]] = {}
        for child in sampler.recycle(node):
            effect = await sampler.outcome_of(child) if self.merge_equal else child.id
            alike.setdefault(effect, []).append(child)
        for nodes in alike.values():
            suffixes = [suffix for twin in nodes for suffix in twin.suffixes()]
            for twin in nodes:
                sampler.estimate_from(twin, suffixes)
        return list(alike.values())

    def _is_spent(self, tree: Tree) -> bool:
        if self.budget is None:
            return False
        if self.budget_unit == "rollouts":
            return sum(len(node.rollouts) for node in tree.root.walk()) >= self.budget
        return bool(getattr(tree.usage(), self.budget_unit) >= self.budget)


def _worth(node: Node) -> float:
    """The process reward, drawn towards the value of the state before it where few outcomes were
    seen."""
    assert node.estimate is not None
    assert node.parent is not None
    if node.estimate.exact or node.parent.estimate is None:
        return node.estimate.mean
    total = sum(node.estimate.outcomes) + _OWN * node.parent.estimate.mean
    return total / (node.estimate.n + _OWN)


def _rises(node: Node) -> bool:
    assert node.parent is not None
    return (
        node.estimate is not None
        and node.parent.estimate is not None
        and gap(node.estimate, node.parent.estimate) > 0
    )
