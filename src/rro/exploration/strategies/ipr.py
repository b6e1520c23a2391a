"""IPR: the policy's own action against the expert's, at each step of the expert's trajectory (arXiv
2406.11176, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

from rro.concurrency import gather_all
from rro.exploration.sampler import Sampler
from rro.exploration.strategies.base import Count, Strategy, StrategyContext
from rro.exploration.tree import do_the_same


@dataclass(frozen=True)
class IterativeStepRefinement(Strategy):
    """Walks along the expert's episode; at each step the policy's own action and the expert's are
    estimated, unless they do the same. Explores greedily and rolls out at the policy's temperature
    (section 4)."""

    rollouts: Count = 5
    """N: rollouts per process reward. IPR: 5."""
    context: StrategyContext = StrategyContext()

    name = "ipr"
    needs = frozenset({"experts"})
    credit = "expert_pairs"
    proposal_temperature = 0.0

    async def explore(self, sampler: Sampler) -> None:
        node = sampler.tree.root
        await sampler.play(0)  # the whole trajectory of the outcome pair
        for step in self.context.expert(sampler.task.id).steps:
            own = await sampler.propose(node)
            expert = await sampler.follow(node, step.action)
            if not do_the_same(own, expert):
                await gather_all(
                    sampler.estimate(action, self.rollouts) for action in (own, expert)
                )
            sampler.commit(expert, rose=False)
            node = expert
            if not sampler.is_open(node):
                return
