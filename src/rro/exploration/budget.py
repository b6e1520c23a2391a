"""What an exploration has spent, and the limit at which it begins nothing new.

Knows nothing of trees: the sampler asks before each piece of work (a candidate, a rollout, an
episode), and reports its cost."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rro.config import BudgetConfig
from rro.types import Usage


class BudgetSpent(Exception):
    """Nothing new may be begun. What is there is sound: a task's tree ends where it stands."""


@dataclass
class Budget:
    """The cost so far of an exploration, earlier processes of the same run included (`spent`;
    seconds are this process's wall time). `observe` is told each new cost.

    A piece of work may begin while its expected cost, and that of what is under way, still fits: so
    the limit is met on average, not overrun by everything in flight. The expectation is the mean of
    finished pieces of its kind, at first one policy call."""

    limits: BudgetConfig = field(default_factory=BudgetConfig)
    spent: Usage = field(default_factory=Usage)
    observe: Callable[[Usage], None] = field(default=lambda usage: None)
    exhausted: str | None = None  # the limit that was reached
    _begun: float = field(default_factory=time.perf_counter)
    _open: Counter[str] = field(default_factory=Counter)
    _finished: Counter[str] = field(default_factory=Counter)
    _cost: dict[str, Usage] = field(default_factory=dict)

    @contextmanager
    def reserve(self, kind: str) -> Iterator[None]:
        """One piece of work. Raises BudgetSpent where it does not fit any more."""
        if self.exhausted or (limit := self._broken(kind)):
            self.exhausted = self.exhausted or limit
            raise BudgetSpent(self.exhausted)
        self._open[kind] += 1
        try:
            yield
        finally:
            self._open[kind] -= 1

    def spend(self, kind: str, usage: Usage) -> None:
        """Enter the cost of a finished piece."""
        self.spent += usage
        self._finished[kind] += 1
        self._cost[kind] = self._cost.get(kind, Usage()) + usage
        self.observe(usage)

    def share(self) -> float | None:
        """How much of the budget is spent, 1 for all of it, by the limit that is nearest; None
        without one."""
        shares = [now / limit if limit else 1.0 for _, limit, now in self._limits(self.spent)]
        return max(shares, default=None)

    def _broken(self, kind: str) -> str | None:
        """The first limit that one more piece of this kind would exceed."""
        expected = self.spent
        for other, count in (self._open + Counter([kind])).items():
            mean = self._cost.get(other, Usage(policy_calls=1))
            expected += _scaled(mean, count / max(1, self._finished[other]))
        return next(
            (name for name, limit, then in self._limits(expected) if then > limit or limit <= 0),
            None,
        )

    def _limits(self, usage: Usage) -> list[tuple[str, float, float]]:
        """(name, limit, used) of the limits that are set."""
        used = {
            "policy_calls": usage.policy_calls,
            "generated_tokens": usage.generated_tokens,
            "tokens": usage.prompt_tokens + usage.generated_tokens,
            "cost": usage.cost,
            "seconds": time.perf_counter() - self._begun,
        }
        limits = self.limits.model_dump()
        return [(name, limits[name], now) for name, now in used.items() if limits[name] is not None]


def _scaled(usage: Usage, factor: float) -> Usage:
    """An expected cost; only what limits are about."""
    return Usage(
        policy_calls=round(usage.policy_calls * factor),
        prompt_tokens=round(usage.prompt_tokens * factor),
        generated_tokens=round(usage.generated_tokens * factor),
        cost=usage.cost * factor,
    )
