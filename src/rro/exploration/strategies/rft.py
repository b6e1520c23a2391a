"""RFT: whole trajectories, of which the successful ones are fine-tuned on (arXiv 2308.01825)."""

from __future__ import annotations

from dataclasses import dataclass

from rro.concurrency import gather_all
from rro.exploration.sampler import Sampler
from rro.exploration.strategies.base import Count, Strategy


@dataclass(frozen=True)
class RejectionSampling(Strategy):
    """The policy plays each task several times."""

    rollouts: Count = 5
    """Episodes per task."""

    name = "rft"
    estimates = False
    credit = "demonstrations"
    learner = "sft"

    async def explore(self, sampler: Sampler) -> None:
        await gather_all(sampler.play(number) for number in range(self.rollouts))
