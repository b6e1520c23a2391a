"""Groups of whole episodes, as on-policy learning takes them (GRPO, arXiv 2402.03300), full or only
until two outcomes disagree, with forks where they disagree or where few episodes have
succeeded."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Annotated, Literal

from pydantic import Field

from rro.concurrency import gather_all
from rro.errors import UsageError
from rro.exploration.sampler import Sampler
from rro.exploration.strategies.base import Count, Strategy, StrategyContext
from rro.exploration.tree import Node
from rro.exploration.visits import PlayedRollout, played_rollouts

Number = Annotated[int, Field(ge=0)]
FEW = 2
"""Below so many successes a task counts as unsolved."""
PRIOR_VARIANCE = 0.02
"""One pseudo-outcome of this squared deviation keeps small samples from looking certain."""


@dataclass(frozen=True)
class Place:
    """A state in the course of a rollout, from which another rollout can start. `worth` says how
    much one more outcome there would tell for each step that it costs."""

    passing: PlayedRollout
    steps: int
    worth: float


@dataclass(frozen=True)
class Group(Strategy):
    """Plays a group of episodes of each task; then, in waves, forks at the states of the group
    where another outcome would tell most."""

    episodes: Count = 8
    """G: whole episodes of each task."""
    until: Literal["full", "disagree", "success"] = "full"
    """full: all of them, at once. Otherwise one after another, and the group ends early: with
    `disagree` once one outcome is higher than another, with `success` once one has succeeded. What
    is saved goes to other tasks."""
    waves: Number = 0
    """How often forks are placed, each time by all outcomes until then. 0: no forks."""
    forks: Count = 2
    """Forks per wave, each from another state."""
    fork_when: Literal["disagree", "unsolved"] = "disagree"
    """disagree: wherever outcomes through a state differ. unsolved: only for tasks with fewer than
    two successes."""
    min_depth: Number = 0
    """Actions before a state at least, for a fork."""
    max_depth: Number | None = None
    """Actions before a state at most, for a fork. Default: no limit."""
    context: StrategyContext = StrategyContext()

    name = "group"
    estimates = False
    plays_episodes = False
    credit = "anchor_advantages"
    learner = "policy_gradient"

    def __post_init__(self) -> None:
        if not self.context.one_policy:
            raise UsageError(
                "strategy group plays episodes of the policy that learns from them: leave out "
                "explore.pricing and explore.proposal_temperature"
            )
        if self.max_depth is not None and self.max_depth < self.min_depth:
            raise UsageError(
                f"strategy group: max_depth = {self.max_depth} is below min_depth = "
                f"{self.min_depth}, so nothing could be forked"
            )

    async def explore(self, sampler: Sampler) -> None:
        root = sampler.tree.root
        first = self.episodes if self.until == "full" else 1
        await gather_all(
            sampler.roll_out(root, number, keep_states=True) for number in range(first)
        )
        for number in range(first, self.episodes):
            if self._is_enough(played_rollouts(sampler.tree)):
                break
            await sampler.roll_out(root, number, keep_states=True)
        for _ in range(self.waves):
            places = self._places(played_rollouts(sampler.tree))
            if not places:
                return
            nodes = [node_at(sampler, place) for place in places[: self.forks]]
            await gather_all(
                sampler.roll_out(node, len(node.rollouts), keep_states=True) for node in nodes
            )

    def _is_enough(self, played: list[PlayedRollout]) -> bool:
        if self.until == "success":
            return any(each.outcome >= self.context.success_reward for each in played)
        return len({each.outcome for each in played}) > 1

    def _places(self, played: list[PlayedRollout]) -> list[Place]:
        """Where to fork, the most telling place first; one for each state."""
        solved = sum(each.outcome >= self.context.success_reward for each in played)
        if self.fork_when == "unsolved" and solved >= FEW:
            return []
        visits = defaultdict[str, list[tuple[PlayedRollout, int]]](list)
        for each in played:
            for steps, state in enumerate(each.states):
                if all(one is not each for one, _ in visits[state]):
                    visits[state].append((each, steps))
        places = [place for passing in visits.values() if (place := self._place(passing))]
        return sorted(places, key=lambda place: -place.worth)

    def _place(self, passing: list[tuple[PlayedRollout, int]]) -> Place | None:
        first, steps = passing[0]
        depth = first.node.depth + steps
        outcomes = [each.outcome for each, _ in passing]
        alike = min(outcomes) == max(outcomes)
        if depth < self.min_depth or (self.max_depth is not None and depth > self.max_depth):
            return None
        if alike and self.fork_when == "disagree":
            return None
        n = len(outcomes)
        spread = (variance(outcomes) * (n - 1) if n > 1 else 0.0) + PRIOR_VARIANCE
        left = fmean(len(each.steps) - number for each, number in passing)
        return Place(first, steps, spread / (n + 1) ** 2 / left)


def node_at(sampler: Sampler, place: Place) -> Node:
    """The node after the first steps of a rollout; recycled, so it costs nothing."""
    node = place.passing.node
    for step in place.passing.steps[: place.steps]:
        sampler.recycle(node)
        node = next(
            child
            for child in node.children
            if child.recycled and child.action.text == step.action.text
        )
    return node
