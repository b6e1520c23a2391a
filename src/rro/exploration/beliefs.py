"""What outcomes say about values, as probabilities. Knows nothing of trees, policies or journals.

Outcomes are scaled into [0, 1]. A value has a Beta prior; an outcome x counts as x successes and 1
- x failures: exact for outcomes of 0 and 1, and cautious for those between, as nothing in [0, 1] of
a given mean varies more than a coin. Where a task's outcomes vary less than coins would, each
counts for more (`Prior.weight`). A posterior does not depend on why the next rollout was drawn, so
it may be looked at after each. See docs/exploration.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from rro.errors import UsageError
from rro.types import ProcessReward

_LOGITS = np.linspace(-30.0, 30.0, 1201)
_VALUES = 1 / (1 + np.exp(-_LOGITS))
_FIRMNESS = 3.0  # outcomes that vary as coins do, reckoned with beforehand in `Prior.weight`


@dataclass(frozen=True, slots=True)
class Belief:
    """A value in [0, 1]: Beta(successes, failures), or known (`exact`)."""

    successes: float
    failures: float
    exact: float | None = None

    @property
    def mean(self) -> float:
        if self.exact is not None:
            return self.exact
        return self.successes / (self.successes + self.failures)

    @property
    def variance(self) -> float:
        if self.exact is not None:
            return 0.0
        return self.mean * (1 - self.mean) / (self.successes + self.failures + 1)

    def after(self, outcomes: float, mean: float) -> Belief:
        """What would be believed after so many more outcomes with this mean."""
        if self.exact is not None:
            return self
        return Belief(self.successes + outcomes * mean, self.failures + outcomes * (1 - mean))


@dataclass(frozen=True)
class Prior:
    """Before its first outcome an action is believed to be worth what its state is worth, as firmly
    as after `strength` outcomes. `low` and `high` bound the outcomes."""

    strength: float = 2.0
    low: float = 0.0
    high: float = 1.0

    def belief(
        self, estimate: ProcessReward | None, center: float = 0.5, weight: float = 1.0
    ) -> Belief:
        """`center` is the mean of the prior, `weight` what an outcome counts for. Raises UsageError
        for an outcome out of bounds."""
        prior = Belief(self.strength * center, self.strength * (1 - center))
        if estimate is None:
            return prior
        scaled = self._scaled(estimate.outcomes)
        if estimate.exact:
            return Belief(0.0, 0.0, scaled[0])
        return prior.after(weight * len(scaled), sum(scaled) / len(scaled))

    def center(self, estimate: ProcessReward | None, weight: float = 1.0) -> float:
        """What a state is worth, in (0, 1), by the rollouts from it and a uniform prior."""
        return Prior(2.0, self.low, self.high).belief(estimate, 0.5, weight).mean

    def weight(self, outcomes: Sequence[float]) -> float:
        """How many coins one outcome counts for: 1 where outcomes are 0 or 1, more where they vary
        less than coins would.

        It is the inverse of a quasi-binomial dispersion, estimated from all outcomes of a task; the
        differences between their actions are in it, so it errs on the cautious side."""
        scaled = self._scaled(outcomes)
        mean = sum(scaled) / len(scaled) if scaled else 0.0
        coins = mean * (1 - mean)
        if coins < 1e-9:
            return 1.0
        variances = sum((outcome - mean) ** 2 for outcome in scaled) / coins
        return max(1.0, (_FIRMNESS + len(scaled)) / (_FIRMNESS + variances))

    def _scaled(self, outcomes: Sequence[float]) -> list[float]:
        for outcome in outcomes:
            if not self.low <= outcome <= self.high:
                raise UsageError(
                    f"an outcome of {outcome:g} is not between {self.low:g} and {self.high:g}: "
                    "set reward_range of the benchmark"
                )
        return [(outcome - self.low) / (self.high - self.low) for outcome in outcomes]


def above(one: Belief, other: Belief) -> float:
    """P(one > other), equal values counted half, so that above(a, b) + above(b, a) = 1. Error below
    0.001 for parameters from 0.25 to 60, by the sum for whole numbers (0.015 against a known value,
    one cell of the grid)."""
    if one.exact is not None and other.exact is not None:
        return float(one.exact > other.exact) + 0.5 * (one.exact == other.exact)
    if one.exact is not None:
        return 1.0 - above(other, one)
    mass = _mass(one.successes, one.failures)
    if other.exact is not None:
        share = (other.exact < _VALUES) + 0.5 * (other.exact == _VALUES)
    else:
        below = _mass(other.successes, other.failures)
        share = np.cumsum(below) - below / 2
    # The sum of a mass may be a rounding error above 1.
    return min(1.0, float(mass @ share))


@lru_cache(4096)
def _mass(successes: float, failures: float) -> npt.NDArray[np.float64]:
    """Beta(successes, failures) on a grid of logits, where its density is always smooth."""
    log = -successes * np.logaddexp(0, -_LOGITS) - failures * np.logaddexp(0, _LOGITS)
    mass = np.exp(log - log.max())
    return mass / mass.sum()  # type: ignore[no-any-return]
