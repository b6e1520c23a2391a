"""IPR: the policy's own action against the expert's, at each step of the expert's trajectory (arXiv
2406.11176, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rro.concurrency import gather_all
from rro.exploration.sampler import Sampler
from rro.exploration.strategies.base import Count, Strategy, StrategyContext
from rro.exploration.tree import Node, do_the_same


@dataclass(frozen=True)
class IterativeStepRefinement(Strategy):
    """Walks along the expert's episode; at each step the policy's own action and the expert's are
    estimated, unless they do the same. Explores greedily and rolls out at the policy's temperature
    (section 4). The defaults are a simplified version; the method `ipr` sets what the authors'
    program does."""

    rollouts: Count = 5
    """N: rollouts per process reward. IPR: 5."""
    first_step: bool = True
    """Whether the first step is compared too. IPR: false, as the whole trajectories begin there."""
    play_on: bool = False
    """Whether the policy plays on from its own action to the end, at the temperature of its
    actions. IPR: true, greedily. Otherwise the first rollout stands for its continuation."""
    context: StrategyContext = StrategyContext()

    name = "ipr"
    needs = frozenset({"experts"})
    credit = "expert_pairs"
    proposal_temperature = 0.0

    def credit_options(self) -> Mapping[str, Any]:
        return {"first_step": self.first_step}

    async def explore(self, sampler: Sampler) -> None:
        node = sampler.tree.root
        await sampler.play(0)  # the whole trajectory of the outcome pair
        for number, step in enumerate(self.context.expert(sampler.task.id).steps):
            own = await sampler.propose(node) if number or self.first_step else None
            expert = await sampler.follow(node, step.action)
            if own is not None and not do_the_same(own, expert):
                await self._compare(sampler, own, expert)
            sampler.commit(expert, rose=False)
            node = expert
            if not sampler.is_open(node):
                return

    async def _compare(self, sampler: Sampler, own: Node, expert: Node) -> None:
        work = [sampler.estimate(action, self.rollouts) for action in (own, expert)]
        await gather_all([*work, *([sampler.play(0, own)] if self._plays_on(own) else [])])

    def _plays_on(self, own: Node) -> bool:
        return self.play_on and own.stop is None
