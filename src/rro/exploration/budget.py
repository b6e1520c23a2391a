"""What an exploration has spent, and the limit at which it begins nothing new.

Knows nothing of trees: the sampler reserves each piece of work (a candidate, a rollout, an episode)
and reports its cost."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rro.config import BudgetConfig
from rro.types import Usage


class BudgetSpent(Exception):
    """Nothing new may begin. What is finished stays valid, and trees end where they are."""


@dataclass
class Budget:
    """The cost of an exploration so far and its limits.

    `spent` includes earlier processes of the same run, except that seconds are this process's wall
    time. `observe` is given each new cost. `exhausted` names the limit that was reached, if one
    was.

    A piece of work may begin while its expected cost, and that of the work in flight, still fits:
    so the limit is met on average, and not overrun by everything in flight. The expected cost is
    the mean of the finished pieces of its kind, or one policy call before the first."""

    limits: BudgetConfig = field(default_factory=BudgetConfig)
    spent: Usage = field(default_factory=Usage)
    observe: Callable[[Usage], None] = field(default=lambda usage: None)
    exhausted: str | None = None
    _started: float = field(default_factory=time.perf_counter)
    _in_flight: Counter[str] = field(default_factory=Counter)
    _finished: Counter[str] = field(default_factory=Counter)
    _cost: dict[str, Usage] = field(default_factory=dict)

    @contextmanager
    def reserve(self, kind: str) -> Iterator[None]:
        """Room for one piece of work. Raises BudgetSpent if it does not fit any more."""
        if self.exhausted or (limit := self._exceeded_by(kind)):
            self.exhausted = self.exhausted or limit
            raise BudgetSpent(self.exhausted)
        self._in_flight[kind] += 1
        try:
            yield
        finally:
            self._in_flight[kind] -= 1

    def spend(self, kind: str, usage: Usage) -> None:
        """Enter the cost of a finished piece of work."""
        self.spent += usage
        self._finished[kind] += 1
        self._cost[kind] = self._cost.get(kind, Usage()) + usage
        self.observe(usage)

    def share(self) -> float | None:
        """The share of the budget that is spent, by the nearest limit (1: all); None without
        one."""
        shares = [used / limit if limit else 1.0 for _, limit, used in self._limits(self.spent)]
        return max(shares, default=None)

    def _exceeded_by(self, kind: str) -> str | None:
        """The first limit that one more piece of this kind would exceed."""
        expected = self.spent
        for other, count in (self._in_flight + Counter([kind])).items():
            total = self._cost.get(other, Usage(policy_calls=1))
            expected += _scaled(total, count / max(1, self._finished[other]))
        return next(
            (name for name, limit, used in self._limits(expected) if used > limit or limit <= 0),
            None,
        )

    def _limits(self, usage: Usage) -> list[tuple[str, float, float]]:
        """(name, limit, used) of the limits that are set."""
        used = {
            "policy_calls": usage.policy_calls,
            "generated_tokens": usage.generated_tokens,
            "thought_tokens": usage.thought_tokens,
            "tokens": usage.prompt_tokens + usage.generated_tokens,
            "cost": usage.cost,
            "seconds": time.perf_counter() - self._started,
        }
        limits = self.limits.model_dump()
        return [(name, limits[name], now) for name, now in used.items() if limits[name] is not None]


def _scaled(usage: Usage, factor: float) -> Usage:
    """A multiple of a cost, in the fields that limits refer to."""
    return Usage(
        policy_calls=round(usage.policy_calls * factor),
        prompt_tokens=round(usage.prompt_tokens * factor),
        generated_tokens=round(usage.generated_tokens * factor),
        cost=usage.cost * factor,
        thought_tokens=round(usage.thought_tokens * factor),
    )
