"""The running figures of an exploration, for a tracker: a few sums, kept up with each finished
tree. Does not know how pairs are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rro.exploration.tree import Tree
from rro.types import Usage


class RunningFigures:
    """Takes each finished tree and passes the figures so far to `log`, by tasks finished."""

    def __init__(self, log: Callable[[Mapping[str, float], int], None]) -> None:
        self._log, self._usage = log, Usage()
        self._tasks = self._steps = self._candidates = self._estimated = 0
        self._reward = 0.0
        self.pairs = 0

    def add(self, tree: Tree, pairs: int) -> None:
        """One more task is finished; its tree gives so many pairs."""
        drawn = tree.candidates_per_step()
        self._tasks += 1
        self.pairs += pairs
        self._steps += len(drawn)
        self._candidates += sum(drawn)
        self._usage += tree.usage()
        last = tree.committed()[-1].estimate if drawn else None
        if last is not None:
            self._estimated += 1
            self._reward += last.mean
        self._log(self._figures(), self._tasks)

    def _figures(self) -> dict[str, float]:
        figures: dict[str, float] = {
            "explore/pairs": self.pairs,
            "explore/policy_calls": self._usage.policy_calls,
            "explore/generated_tokens": self._usage.generated_tokens,
            "explore/cost": self._usage.cost,
        }
        if self._steps:
            figures["explore/candidates_per_step"] = self._candidates / self._steps
        if self._estimated:
            figures["explore/final_process_reward"] = self._reward / self._estimated
        return figures
