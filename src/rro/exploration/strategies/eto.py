"""ETO: one whole trajectory a task, to be compared with the expert's (arXiv 2403.02502)."""

from __future__ import annotations

from dataclasses import dataclass

from rro.exploration.sampler import Sampler
from rro.exploration.strategies.base import Strategy


@dataclass(frozen=True)
class TrajectoryExploration(Strategy):
    """The policy plays each task once, at the temperature of its actions. The defaults of its
    credit are a simplified version; the method `eto` sets what the authors' program does."""

    name = "eto"
    estimates = False
    needs = frozenset({"experts"})
    credit = "outcome_pairs"

    async def explore(self, sampler: Sampler) -> None:
        await sampler.play(0)
