"""Strategies over whole trajectories: ETO (arXiv 2403.02502) and RFT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rro.concurrency import gather_all
from rro.errors import RroError
from rro.exploration.pairs import outcome_pair
from rro.exploration.sampler import Sampler
from rro.exploration.strategies.base import NoDemonstrations
from rro.exploration.tree import Tree
from rro.types import Message, PreferencePair, Trajectory


def expert_of(experts: Mapping[str, Trajectory], task: str) -> Trajectory:
    """The expert's trajectory of a task. Raises RroError where there is none."""
    if task not in experts:
        raise RroError(
            f"task {task} has no expert trajectory, which eto and ipr need: explore the experts' tasks only"
        )
    return experts[task]


@dataclass(frozen=True)
class TrajectoryExploration(NoDemonstrations):
    """ETO: one trajectory per task; where its outcome is below the expert's, the two make a
    pair."""

    experts: Mapping[str, Trajectory]
    name: str = "eto"

    async def explore(self, sampler: Sampler) -> None:
        await sampler.play(0)

    def pairs(self, tree: Tree, iteration: int) -> list[PreferencePair]:
        expert = expert_of(self.experts, tree.task.id)
        pair = outcome_pair(tree, expert, tree.episodes[0], self.name, iteration)
        return [pair] if pair else []


@dataclass(frozen=True)
class RejectionSampling:
    """RFT: `rollouts` trajectories per task; the successful ones, each text once, are what is
    fine-tuned on."""

    success_reward: float = 1.0
    rollouts: int = 5
    name: str = "rft"

    async def explore(self, sampler: Sampler) -> None:
        await gather_all(sampler.play(number) for number in range(self.rollouts))

    def pairs(self, tree: Tree, iteration: int) -> list[PreferencePair]:
        return []

    def demonstrations(self, tree: Tree) -> list[tuple[Message, ...]]:
        distinct: dict[tuple[str, ...], tuple[Message, ...]] = {}
        for _, episode in sorted(tree.episodes.items()):
            if episode.reward is not None and episode.reward >= self.success_reward:
                messages = episode.messages()
                distinct.setdefault(tuple(message.content for message in messages), messages)
        return list(distinct.values())
