"""What outcomes say about the values of the actions at one state, as probabilities. Knows nothing
of trees, policies or journals.

Outcomes are scaled into [0, 1]. The values of a state's actions scatter around a centre, more or
less firmly, or are all equal; how often which of these holds is estimated from the states of a run
(`Prior.fitted`). An outcome x counts as x successes and 1 - x failures: exact for outcomes of 0 and
1, and cautious for those between, as nothing in [0, 1] of a given mean varies more than a Bernoulli
variable. Where a task's outcomes vary less, each counts for more (`Scale.weight`). A posterior does
not depend on why the next rollout was drawn. See docs/exploration.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betainc, expit, xlog1py, xlogy

from rro.errors import UsageError
from rro.types import ProcessReward

Array = npt.NDArray[np.float64]

FIRMNESS = (0.5, 1.0, 2.0, 4.0, 8.0, np.inf)
"""How firmly the values of a state's actions keep to its centre: as values drawn from Beta(s c,
s (1 - c)) do, with s each of these numbers; at infinity they are equal."""

_VALUES = np.linspace(0.0, 1.0, 51)
"""Values are told apart to within one cell; those in one cell count as equal."""
_CENTERS = expit(np.linspace(-4.5, 4.5, 19))
_SWEEPS = 40
_OUTCOMES = 3.0
"""Outcomes with Bernoulli variance that are assumed beforehand in `Scale.weight`."""


def _table() -> Array:
    """P(value | firmness, centre), of shape (firmness, centres, values)."""
    edges = np.concatenate([[0.0], (_VALUES[1:] + _VALUES[:-1]) / 2, [1.0]])
    firmness = np.array(FIRMNESS[:-1])[:, None, None]
    centers = _CENTERS[:, None]
    spread = np.diff(betainc(firmness * centers, firmness * (1 - centers), edges))
    equal = np.eye(len(_VALUES))[np.rint(_CENTERS * (len(_VALUES) - 1)).astype(int)]
    table: Array = np.concatenate([spread, equal[None]])
    return table


_TABLE = _table()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen of one action: outcomes as successes and failures, or its known value."""

    successes: float = 0.0
    failures: float = 0.0
    exact: float | None = None

    def likelihood(self) -> Array:
        """Of each of the values on the grid, up to a factor."""
        if self.exact is not None:
            known: Array = np.eye(len(_VALUES))[round(self.exact * (len(_VALUES) - 1))]
            return known
        # as logarithms: after a thousand outcomes every likelihood is too small for a float
        logarithm = xlogy(self.successes, _VALUES) + xlog1py(self.failures, -_VALUES)
        likelihood: Array = np.exp(logarithm - logarithm.max())
        return likelihood


@dataclass(frozen=True)
class Scale:
    """The bounds of outcomes."""

    low: float = 0.0
    high: float = 1.0

    def evidence(self, estimate: ProcessReward, weight: float = 1.0) -> Evidence:
        """An estimate's outcomes, each of which counts for `weight`. Raises UsageError for an
        outcome out of bounds."""
        scaled = self._scaled(estimate.outcomes)
        if estimate.exact:
            return Evidence(exact=scaled[0])
        return Evidence(weight * sum(scaled), weight * (len(scaled) - sum(scaled)))

    def weight(self, outcomes: Sequence[float]) -> float:
        """How many Bernoulli outcomes one outcome counts for: 1 where outcomes are 0 or 1, more
        where they vary less than that.

        It is the inverse of a quasi-binomial dispersion, estimated from all outcomes of a task; the
        differences between their actions are in it, so it errs on the cautious side."""
        scaled = self._scaled(outcomes)
        mean = sum(scaled) / len(scaled) if scaled else 0.0
        bernoulli = mean * (1 - mean)
        if bernoulli < 1e-9:
            return 1.0
        variances = sum((outcome - mean) ** 2 for outcome in scaled) / bernoulli
        return max(1.0, (_OUTCOMES + len(scaled)) / (_OUTCOMES + variances))

    def _scaled(self, outcomes: Sequence[float]) -> list[float]:
        for outcome in outcomes:
            if not self.low <= outcome <= self.high:
                raise UsageError(
                    f"an outcome of {outcome:g} is not between {self.low:g} and {self.high:g}: "
                    "set reward_range of the benchmark"
                )
        return [(outcome - self.low) / (self.high - self.low) for outcome in outcomes]


@dataclass(frozen=True)
class Prior:
    """How the values of a state's actions scatter: probabilities of shape (firmness, centres), for
    states of which no action ended the episode, and for those of which one did."""

    going_on: Array
    ending: Array

    @staticmethod
    def fixed() -> Prior:
        """Values scatter as firmly as after two outcomes, and none are equal; every centre is as
        likely."""
        scatter = np.zeros(_TABLE.shape[:2])
        scatter[FIRMNESS.index(2.0)] = _CENTERS * (1 - _CENTERS)
        scatter /= scatter.sum()
        return Prior(scatter, scatter)

    @staticmethod
    def fitted(states: Iterable[Sequence[Evidence]]) -> Prior:
        """From what was seen of the actions of each state, by expectation maximisation. One
        state's worth of evidence for each firmness is assumed beforehand, so few states change
        little. The same states in the same order give the same prior."""
        compared = [state for state in states if len(state) > 1]
        kinds = [[state for state in compared if _ends(state) == kind] for kind in (False, True)]
        return Prior(*map(_fit, kinds))

    def posterior(self, siblings: Sequence[Evidence]) -> Posterior:
        """What is believed of the actions of one state after what was seen of all of them."""
        prior = self.ending if _ends(siblings) else self.going_on
        scatter = _weighed(prior, siblings)
        return Posterior(siblings, scatter / scatter.sum())


class Posterior:
    """The values of the actions of one state. Actions are known by their place in the sequence."""

    def __init__(self, siblings: Sequence[Evidence], scatter: Array) -> None:
        self._scatter, self._known = scatter, [sibling.exact for sibling in siblings]
        rows = [_TABLE * sibling.likelihood() for sibling in siblings]
        self._values = [row / np.maximum(row.sum(-1, keepdims=True), 1e-300) for row in rows]

    def above(self, one: int, other: int) -> float:
        """P(one is worth more than the other); equal values do not count."""
        known, known_other = self._known[one], self._known[other]
        if known is not None and known_other is not None:
            return float(known > known_other)
        one_row, other_row = self._values[one], self._values[other]
        lower = np.cumsum(other_row, -1) - other_row
        # The sum of a distribution may be a rounding error above 1.
        return min(1.0, float((self._scatter * (one_row * lower).sum(-1)).sum()))

    def gap(self, one: int, other: int) -> float:
        """By how much one is worth more than the other, as expected."""
        difference = (self._values[one] - self._values[other]) @ _VALUES
        return float((self._scatter * difference).sum())


def _ends(siblings: Sequence[Evidence]) -> bool:
    return any(sibling.exact is not None for sibling in siblings)


def _weighed(scatter: Array, siblings: Sequence[Evidence]) -> Array:
    """Probabilities by firmness and centre times those of what was seen there, up to a factor."""
    for sibling in siblings:
        scatter = scatter * (_TABLE @ sibling.likelihood())
        scatter /= scatter.max()
    return scatter


def _fit(states: Sequence[Sequence[Evidence]]) -> Array:
    seen = [sibling for state in states for sibling in state if sibling.exact is None]
    successes, failures = sum(s.successes for s in seen), sum(s.failures for s in seen)
    mean = (0.5 + successes) / (1.0 + successes + failures)
    start = _CENTERS ** (2 * mean) * (1 - _CENTERS) ** (2 * (1 - mean))
    start /= start.sum()
    firmness, centers = np.full(len(FIRMNESS), 1 / len(FIRMNESS)), start
    if states:
        evidence = np.array([_weighed(np.ones(_TABLE.shape[:2]), state) for state in states])
        for _ in range(_SWEEPS):
            scatter = evidence * firmness[:, None] * centers
            scatter /= scatter.sum((1, 2), keepdims=True)
            firmness = scatter.sum((0, 2)) + 1
            firmness /= firmness.sum()
            centers = scatter.sum((0, 1)) + 5 * start
            centers /= centers.sum()
    prior: Array = firmness[:, None] * centers
    return prior
