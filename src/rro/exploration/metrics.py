"""The running figures of an exploration, for a tracker: a few sums, kept up with each finished
task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rro.types import Usage


class RunningFigures:
    """Told each task's record, tells `log` the figures so far, at the step "tasks finished"."""

    def __init__(self, log: Callable[[Mapping[str, float], int], None]) -> None:
        self._log, self._usage = log, Usage()
        self._tasks = self._pairs = self._steps = self._candidates = self._priced = 0
        self._reward = 0.0

    def add(self, record: Mapping[str, Any]) -> None:
        """One more task is finished."""
        self._tasks += 1
        self._pairs += len(record["pairs"])
        self._steps += len(record["candidates"])
        self._candidates += sum(record["candidates"])
        self._usage += Usage(**record["usage"])
        last = record["committed"][-1]["process_reward"] if record["committed"] else None
        if last is not None:
            self._priced += 1
            self._reward += last
        self._log(self._figures(), self._tasks)

    def _figures(self) -> dict[str, float]:
        figures: dict[str, float] = {
            "explore/pairs": self._pairs,
            "explore/policy_calls": self._usage.policy_calls,
            "explore/generated_tokens": self._usage.generated_tokens,
            "explore/cost": self._usage.cost,
        }
        if self._steps:
            figures["explore/candidates_per_step"] = self._candidates / self._steps
        if self._priced:
            figures["explore/final_process_reward"] = self._reward / self._priced
        return figures
