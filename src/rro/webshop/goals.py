"""The goals: what a buyer is asked for, up to which price, and whether for training or testing.

The original draws prices and limits from Python's global random stream in whatever state it is in;
here the stream is seeded (`price_seed`). The order of the goals depends only on their number.
Source: web_agent_site/engine/{engine,goal}.py and envs/web_agent_text_env.py of princeton-nlp/
WebShop at 64fa2a5. Knows nothing of pages, rewards or agents.
"""

from __future__ import annotations

import bisect
import itertools
import json
import random
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from rro.errors import DataError
from rro.webshop.catalogue import SHUFFLE_SEED, Catalogue

GoalKind = Literal["synthetic", "human"]
CACHED_GOALS = 16384
# As in the original.
NO_LIMIT = 1_000_000
PRICE_STEPS = [10.0 * step for step in range(1, 100)]
TEST_GOALS, TEST_SHARE = 500, 0.2


@dataclass(frozen=True, slots=True)
class Goal:
    """What to buy.

    `options` are values in human goals and (name, value) tuples in synthetic ones; the reward
    treats the two differently. `price_limit` is in dollars.
    """

    asin: str
    instruction: str
    attributes: tuple[str, ...]
    options: tuple[str | tuple[str, str], ...]
    price_limit: float

    def option_values(self) -> tuple[str, ...]:
        """The values to click, in order."""
        return tuple(option if isinstance(option, str) else option[1] for option in self.options)


class Prices(Mapping[str, float]):
    """The price of every product in dollars, by product id."""

    def __init__(self, catalogue: Catalogue, values: array[float]) -> None:
        """`values` are by position."""
        self._catalogue, self.values_by_position = catalogue, values

    def __getitem__(self, asin: str) -> float:
        return self.values_by_position[self._catalogue.position(asin)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._catalogue.asins)

    def __len__(self) -> int:
        return len(self.values_by_position)


class SyntheticGoals(Sequence[Goal]):
    """A goal for every combination of a product's option values, shuffled; each is made when it is
    asked for. `limits` are the products' price limits by position."""

    def __init__(self, catalogue: Catalogue, limits: array[float]) -> None:
        self._products, self._limits = catalogue.products, limits
        self._starts, self._order = (
            catalogue.arrays[name] for name in ("goal_starts", "goal_order")
        )
        self._goal = lru_cache(CACHED_GOALS)(self._made)

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, index: int) -> Goal: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Goal]: ...
    def __getitem__(self, index: int | slice) -> Goal | Sequence[Goal]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        return self._goal(index if index >= 0 else index + len(self))

    def _made(self, index: int) -> Goal:
        number = int(self._order[index])
        position = int(np.searchsorted(self._starts, number, "right")) - 1
        product, limit = self._products[position], self._limits[position]
        rest, options = number - int(self._starts[position]), list[tuple[str, str]]()
        # The last option's value changes first.
        for name, values in sorted(product.options, reverse=True):
            rest, place = divmod(rest, len(values))
            options.insert(0, (name, values[place]))
        wish = ", and ".join(f"{name}: {value}" for name, value in options)
        text = f"{product.instruction}{' with ' if wish else ''}{wish}{limit_wording(limit)}"
        wanted = product.instruction_attributes
        return Goal(product.asin, text, wanted, tuple(options), limit)


@dataclass(frozen=True)
class GoalSet:
    """The shuffled goals, and the price of every product in dollars, by product id, as drawn from
    one seed. `recorded_weights` replace those that would be computed."""

    kind: GoalKind
    goals: Sequence[Goal]
    prices: Mapping[str, float]
    recorded_weights: Sequence[float] | None = None

    @cached_property
    def weights(self) -> Sequence[float]:
        """Each goal's share when the original draws one at random. Those of synthetic goals make
        rare attributes as likely as common ones."""
        if self.recorded_weights is not None:
            return self.recorded_weights
        if self.kind == "human":
            return [1.0] * len(self.goals)
        count = Counter(attribute for goal in self.goals for attribute in goal.attributes)
        return [
            sum(1.0 / count[name] for name in goal.attributes) / max(1, len(goal.attributes))
            for goal in self.goals
        ]

    @cached_property
    def _cumulative(self) -> list[float]:
        return [0.0, *itertools.accumulate(self.weights)]

    def draw(self, stream: random.Random) -> int:
        """Draw the index of a goal, as the original does if it is given none.

        Each goal is drawn with the weight of the one before it, so the first never comes up; that
        is the original's behaviour.
        """
        position = stream.uniform(0, self._cumulative[-1])
        return min(bisect.bisect(self._cumulative, position), len(self.goals) - 1)


def draw_goals(catalogue: Catalogue, kind: GoalKind, price_seed: int) -> GoalSet:
    """All goals of a kind, with the prices and limits that the original draws right after
    `random.seed(price_seed)`.

    Raises DataError if there are none, or if the instructions do not have WebShop's form.
    """
    stream = random.Random(price_seed)
    prices = _prices(catalogue, stream)
    try:
        goals = (
            _human(catalogue, prices, stream)
            if kind == "human"
            else SyntheticGoals(catalogue, _limits(catalogue, prices, stream))
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"the {kind} instructions do not have WebShop's form: {error!r}") from None
    if not goals:
        raise DataError(f"the catalogue has no product with a {kind} instruction")
    return GoalSet(kind, goals, Prices(catalogue, prices))


def _prices(catalogue: Catalogue, stream: random.Random) -> array[float]:
    """The price of each product by position. That of a range is drawn."""
    low, high = catalogue.arrays["price_low"], catalogue.arrays["price_high"]
    prices = array("d", low.tobytes())
    for position in np.flatnonzero(~np.isnan(high)).tolist():
        prices[position] = stream.uniform(prices[position], float(high[position]))
    return prices


def _limits(catalogue: Catalogue, prices: Sequence[float], stream: random.Random) -> array[float]:
    """The price limit of each product that has synthetic goals, which share it, by position."""
    limits = array("d", bytes(8 * len(prices)))
    for position in np.flatnonzero(np.diff(catalogue.arrays["goal_starts"])).tolist():
        limits[position] = price_limit(prices[position], stream)
    return limits


def price_limit(price: float, stream: random.Random) -> float:
    """Draw a price limit above `price`: the larger of two of the next four multiples of 10, or
    NO_LIMIT where fewer than two are left."""
    first = bisect.bisect(PRICE_STEPS, price)
    above = PRICE_STEPS[first : first + 4]
    return max(stream.sample(above, 2)) if len(above) > 1 else NO_LIMIT


def limit_wording(limit: float) -> str:
    """The end of an instruction with that price limit."""
    return "" if limit == NO_LIMIT else f", and price lower than {limit:.2f} dollars"


def _human(
    catalogue: Catalogue, prices: Sequence[float], stream: random.Random
) -> tuple[Goal, ...]:
    """A goal for every written instruction that has attributes, shuffled. For the others no limit
    is drawn."""
    goals = []
    known = [asin for asin in catalogue.human if asin in catalogue.asins]
    for asin in sorted(known, key=catalogue.position):
        for source in catalogue.human[asin]:
            attributes = tuple(source["instruction_attributes"])
            if not attributes:
                continue
            limit = price_limit(prices[catalogue.position(asin)], stream)
            text = source["instruction"].strip(".") + limit_wording(limit)
            goals.append(Goal(asin, text, attributes, tuple(source["instruction_options"]), limit))
    random.Random(SHUFFLE_SEED).shuffle(goals)
    return tuple(goals)


def with_state(drawn: GoalSet, state: Mapping[str, Any], where: str) -> GoalSet:
    """`drawn` with the prices, limits, texts and weights of a recorded state of the original.

    Raises DataError that begins with `where` if the recording is of other goals.
    """
    recorded = state["goals"]
    if len(recorded) != len(drawn.goals):
        raise DataError(
            f"{where}: {len(recorded)} goals, but the catalogue has {len(drawn.goals)} "
            f"{drawn.kind} ones"
        )
    goals, weights = [], []
    for index, (goal, entry) in enumerate(zip(drawn.goals, recorded, strict=True)):
        if entry["asin"] != goal.asin:
            raise DataError(
                f"{where}: goal {index} is for {entry['asin']}; here it is for {goal.asin}"
            )
        goals.append(
            replace(
                goal,
                instruction=entry["instruction_text"],
                price_limit=entry["price_upper"],
            )
        )
        weights.append(entry["weight"] if "weight" in entry else drawn.weights[index])
    return GoalSet(drawn.kind, tuple(goals), state["product_prices"], weights)


def split_goals(goals: GoalSet, folder: Path | None = None) -> dict[str, Sequence[int]]:
    """Indices of the goals by split: "train", "test" and "all".

    Test is the first fifth, but at most 500 goals; train is the rest. So of the 6910 synthetic
    goals of the 1000 products, test has 0-499, as in verl-agent. Human goals follow `splits.json`
    in `folder` if it exists: {"train": [indices], "test": [indices]}, the form of IPR's and ETO's
    lists. Raises DataError if an index in it is not that of a goal.
    """
    total = len(goals.goals)
    tested = min(TEST_GOALS, int(total * TEST_SHARE))
    splits: dict[str, Sequence[int]] = {"train": range(tested, total), "test": range(tested)}
    if goals.kind == "human" and folder is not None and (folder / "splits.json").exists():
        splits = _read_splits(folder / "splits.json", total)
    return {**splits, "all": range(total)}


def _read_splits(file: Path, total: int) -> dict[str, Sequence[int]]:
    try:
        lists = json.loads(file.read_bytes())
        splits: dict[str, Sequence[int]] = {name: tuple(lists[name]) for name in ("train", "test")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f'{file}: expected {{"train": [indices], "test": [indices]}} ({error!r})'
        ) from None
    for name, indices in splits.items():
        wrong = next(
            (index for index in indices if type(index) is not int or not 0 <= index < total), None
        )
        if wrong is not None:
            raise DataError(f"{file}: {name} lists {wrong!r}, but there are goals 0 to {total - 1}")
    return splits
