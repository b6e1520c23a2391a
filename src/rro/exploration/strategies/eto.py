"""ETO: one whole trajectory a task, to be held against the expert's (arXiv 2403.02502)."""

from __future__ import annotations

from dataclasses import dataclass

from rro.exploration.sampler import Sampler
from rro.exploration.strategies.base import Strategy


@dataclass(frozen=True)
class TrajectoryExploration(Strategy):
    """The policy plays each task once."""

    name = "eto"
    needs = frozenset({"experts"})
    credit = "outcome_pairs"

    async def explore(self, sampler: Sampler) -> None:
        await sampler.play(0)
