"""IPR: the policy's own action against the expert's, at each step of the expert's trajectory (arXiv
2406.11176, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rro.concurrency import gather_all
from rro.exploration.pairs import gap, outcome_pair, step_pair
from rro.exploration.sampler import Sampler
from rro.exploration.strategies.base import NoDemonstrations
from rro.exploration.strategies.whole import expert_of
from rro.exploration.tree import Node, Tree
from rro.types import Message, PreferencePair, Source, StopReason, Trajectory


@dataclass(frozen=True)
class IterativeStepRefinement(NoDemonstrations):
    """`rollouts` N estimate each action; a pair where the two differ by more than `margin`. `sides`
    says what is compared: the rest of both episodes ("continuation", as IPR does) or the one
    message. Where both do the same, nothing is estimated."""

    experts: Mapping[str, Trajectory]
    rollouts: int = 5
    margin: float = 0.01
    sides: Literal["continuation", "message"] = "continuation"
    name: str = "ipr"

    async def explore(self, sampler: Sampler) -> None:
        node = sampler.tree.root
        await sampler.play(0)  # the whole trajectory of the outcome pair
        for step in expert_of(self.experts, sampler.task.id).steps:
            own = await sampler.propose(node)
            expert = await sampler.follow(node, step.action)
            if own.action.content != expert.action.content:
                await gather_all(
                    sampler.estimate(action, self.rollouts) for action in (own, expert)
                )
            sampler.commit(expert, rose=False)
            node = expert
            if not sampler.is_open(node):
                return

    def pairs(self, tree: Tree, iteration: int) -> list[PreferencePair]:
        expert = expert_of(self.experts, tree.task.id)
        outcome = outcome_pair(tree, expert, tree.episodes[0], self.name, iteration)
        found = [outcome] if outcome else []
        for theirs in tree.committed():
            assert theirs.parent is not None
            for own in theirs.parent.children:
                if own.action.source is Source.POLICY and own.estimate and theirs.estimate:
                    found += self._compare(tree, own, theirs, expert, iteration)
        return found

    def _compare(
        self, tree: Tree, own: Node, theirs: Node, expert: Trajectory, iteration: int
    ) -> list[PreferencePair]:
        assert own.estimate is not None
        assert theirs.estimate is not None
        difference = gap(theirs.estimate, own.estimate)
        if abs(difference) <= self.margin:
            return []
        better, worse = (theirs, own) if difference > 0 else (own, theirs)
        if self.sides == "message":
            return [step_pair(tree, better, worse, self.name, iteration)]
        sides = {id(theirs): _rest(expert, theirs.depth), id(own): _own_rest(own)}
        if not all(sides.values()):
            return []
        return [
            step_pair(
                tree, better, worse, self.name, iteration, (sides[id(better)], sides[id(worse)])
            )
        ]


def _rest(expert: Trajectory, step: int) -> tuple[Message, ...]:
    """The expert's messages from action number `step` (1 is the first) on."""
    turns = expert.messages()
    return turns[len(expert.opening) + 2 * (step - 1) :]


def _own_rest(own: Node) -> tuple[Message, ...]:
    """The policy's action and the first of its rollouts that did not fail; nothing if all
    failed."""
    if own.stop is not None:
        return (own.action,)
    for _, rollout in sorted(own.rollouts.items()):
        if rollout.stop is not StopReason.FAILED and rollout.steps:
            assert own.parent is not None
            return rollout.messages()[len(own.parent.history()) :]
    return ()
