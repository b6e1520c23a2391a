"""What outcomes say about values, as probabilities. Knows nothing of trees, policies or journals.

Outcomes are scaled into [0, 1]. A value has a Beta prior; an outcome x counts as x successes and 1 - x failures, which is
exact for outcomes of 0 and 1 and cautious for those between (no outcome in [0, 1] of a given mean varies more than a coin).
The posterior does not depend on why the next rollout was drawn, so it may be looked at after each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from rro.errors import UsageError
from rro.types import ProcessReward

_LOGITS = np.linspace(-30.0, 30.0, 601)


@dataclass(frozen=True, slots=True)
class Belief:
    """A value in [0, 1]: Beta(successes, failures), or known (`exact`)."""

    successes: float
    failures: float
    exact: float | None = None

    @property
    def mean(self) -> float:
        return self.exact if self.exact is not None else self.successes / (self.successes + self.failures)

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
    """What is believed of an action before its first outcome: it is worth about what the state is worth, as firmly as
    `strength` outcomes would say. `low` and `high` bound the outcomes."""

    strength: float = 2.0
    low: float = 0.0
    high: float = 1.0

    def belief(self, price: ProcessReward | None, center: float = 0.5) -> Belief:
        """`center` is the mean of the prior. Raises UsageError for an outcome out of bounds."""
        prior = Belief(self.strength * center, self.strength * (1 - center))
        if price is None:
            return prior
        scaled = [self._scaled(outcome) for outcome in price.outcomes]
        if price.exact:
            return Belief(0.0, 0.0, scaled[0])
        return prior.after(len(scaled), sum(scaled) / len(scaled))

    def center(self, price: ProcessReward | None) -> float:
        """What a state is worth, from the outcomes of rollouts from it; one success and one failure beforehand."""
        return Belief(1.0, 1.0).mean if price is None else Prior(2.0, self.low, self.high).belief(price).mean

    def _scaled(self, outcome: float) -> float:
        if not self.low <= outcome <= self.high:
            raise UsageError(
                f"an outcome of {outcome:g} lies outside {self.low:g} to {self.high:g}: set reward_range of the benchmark"
            )
        return (outcome - self.low) / (self.high - self.low)


def above(one: Belief, other: Belief) -> float:
    """P(one > other), two equal values counted half. Symmetric: above(a, b) + above(b, a) = 1."""
    if one.exact is not None and other.exact is not None:
        return float(one.exact > other.exact) + 0.5 * (one.exact == other.exact)
    if one.exact is not None:
        return 1.0 - above(other, one)
    mass = _mass(one.successes, one.failures)
    if other.exact is not None:
        return float(mass @ _share_above(other.exact))
    below = _mass(other.successes, other.failures)
    return float(mass @ (np.cumsum(below) - below / 2))


@lru_cache(4096)
def _mass(successes: float, failures: float) -> npt.NDArray[np.float64]:
    """Beta(successes, failures) on a grid of logits, where its density is smooth whatever its parameters."""
    log = -successes * np.logaddexp(0, -_LOGITS) - failures * np.logaddexp(0, _LOGITS)
    mass = np.exp(log - log.max())
    return mass / mass.sum()  # type: ignore[no-any-return]


@lru_cache(1024)
def _share_above(value: float) -> npt.NDArray[np.float64]:
    values = 1 / (1 + np.exp(-_LOGITS))
    return (values > value) + 0.5 * (values == value)
