"""The share of rising steps by stage of an episode: the RRO paper's trend analysis. Knows only
numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StageShare:
    """How many steps one stage of the episodes has, and how many of them rise."""

    rising: int
    steps: int

    @property
    def share(self) -> float | None:
        """Between 0 and 1; None for a stage without steps."""
        return self.rising / self.steps if self.steps else None


def rising_share_by_stage(
    trajectories: Sequence[Sequence[float]], starts: Sequence[float], stages: int = 3
) -> tuple[StageShare, ...]:
    """How many steps rise in each third (1/`stages`) of their episode (arXiv 2505.20737).

    `trajectories[i]` are the process rewards of episode i's steps, `starts[i]` its r_0. A step
    rises if its process reward exceeds that of the step before. It belongs to the stage that holds
    its middle: step t of T (from 0) lies at (t + 1/2) / T, so two steps are an initial and a final
    one, and a single step is a middle one. Raises ValueError if `stages` is below 1."""
    if stages < 1:
        raise ValueError(f"stages is {stages}, not at least 1")
    rising, steps = [0] * stages, [0] * stages
    for rewards, start in zip(trajectories, starts, strict=True):
        previous = start
        for t, reward in enumerate(rewards):
            stage = (2 * t + 1) * stages // (2 * len(rewards))
            steps[stage] += 1
            rising[stage] += reward > previous
            previous = reward
    return tuple(map(StageShare, rising, steps))
