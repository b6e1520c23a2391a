"""What buyers are asked for: goals, their price limits, and which of them train or test.

The original draws prices and limits from Python's global random stream in whatever state it happens
to be; here the stream is seeded explicitly (`price_seed`). The order of the goals depends on their
number alone. Source: princeton-nlp/WebShop at 64fa2a5, web_agent_site/engine/{engine,goal}.py and
envs/web_agent_text_env.py."""

from __future__ import annotations

import bisect
import itertools
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from rro.errors import DataError
from rro.webshop.catalogue import Catalogue, Product, RawCatalogue

GoalKind = Literal["synthetic", "human"]
SHUFFLE_SEED = 233  # the original's
NO_LIMIT = 1_000_000
PRICE_STEPS = [10.0 * step for step in range(1, 100)]
TEST_GOALS, TEST_SHARE = 500, 0.2


@dataclass(frozen=True, slots=True)
class Goal:
    """What to buy. `options` are values, or in synthetic goals (name, value) tuples: the reward
    treats them differently. `price_limit` in dollars; `weight` is the goal's share when the
    original draws one at random."""

    asin: str
    instruction: str
    attributes: tuple[str, ...]
    options: tuple[str | tuple[str, str], ...]
    price_limit: float
    weight: float = 1.0

    def option_values(self) -> tuple[str, ...]:
        """The values to click, in order."""
        return tuple(option if isinstance(option, str) else option[1] for option in self.options)


@dataclass(frozen=True)
class GoalSet:
    """One drawing: the shuffled goals, and the price of every product (dollars, by asin)."""

    kind: GoalKind
    goals: tuple[Goal, ...]
    prices: Mapping[str, float]

    @cached_property
    def _cumulative(self) -> list[float]:
        return [0.0, *itertools.accumulate(goal.weight for goal in self.goals)]

    def draw(self, stream: random.Random) -> int:
        """A goal's index as the original draws it when it is given none: each has the weight of the
        one before it, so the first never comes."""
        position = stream.uniform(0, self._cumulative[-1])
        return min(bisect.bisect(self._cumulative, position), len(self.goals) - 1)


def draw_goals(raw: RawCatalogue, catalogue: Catalogue, kind: GoalKind, price_seed: int) -> GoalSet:
    """All goals of a kind, with prices and limits as `random.seed(price_seed)` just before gives
    them in the original.

    Raises DataError where the instructions do not have WebShop's form, or there are none."""
    stream = random.Random(price_seed)
    prices = {product.asin: _price(product, stream) for product in catalogue.products}
    make = _human if kind == "human" else _synthetic
    try:
        goals = list(make(raw, catalogue, prices, stream))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"the {kind} instructions do not have WebShop's form: {error!r}") from None
    if not goals:
        raise DataError(f"the catalogue has no product with a {kind} instruction")
    if kind == "synthetic":
        goals = _weighted(goals)
    random.Random(SHUFFLE_SEED).shuffle(goals)
    return GoalSet(kind, tuple(goals), prices)


def _price(product: Product, stream: random.Random) -> float:
    return product.prices[0] if len(product.prices) == 1 else stream.uniform(*product.prices)


def _limit(price: float, stream: random.Random) -> tuple[float, str]:
    """A price limit above `price`, and how the instruction says it."""
    above = [step for step in PRICE_STEPS if step > price][:4]
    if len(above) < 2:
        return NO_LIMIT, ""
    limit = max(stream.sample(above, 2))
    return limit, f", and price lower than {limit:.2f} dollars"


def _synthetic(
    raw: RawCatalogue, catalogue: Catalogue, prices: Mapping[str, float], stream: random.Random
) -> Iterator[Goal]:
    """One goal for every combination of a product's option values; they share the product's
    limit."""
    for product in catalogue.products:
        source = raw.attributes.get(product.asin, {})
        if source.get("instruction") is None:
            continue
        limit, limit_text = _limit(prices[product.asin], stream)
        attributes = tuple(source["instruction_attributes"])
        names = sorted(product.options)
        for values in itertools.product(*(values for _, values in names)):
            options = tuple((name, value) for (name, _), value in zip(names, values, strict=True))
            wish = ", and ".join(f"{name}: {value}" for name, value in options)
            text = f"{source['instruction']}{' with ' if wish else ''}{wish}{limit_text}"
            yield Goal(product.asin, text, attributes, options, limit)


def _human(
    raw: RawCatalogue, catalogue: Catalogue, prices: Mapping[str, float], stream: random.Random
) -> Iterator[Goal]:
    """People's instructions; those without attributes are left out, before their limit is drawn."""
    for product in catalogue.products:
        for source in raw.human.get(product.asin, ()):
            attributes = tuple(source["instruction_attributes"])
            if not attributes:
                continue
            limit, limit_text = _limit(prices[product.asin], stream)
            text = source["instruction"].strip(".") + limit_text
            yield Goal(product.asin, text, attributes, tuple(source["instruction_options"]), limit)


def _weighted(goals: Sequence[Goal]) -> list[Goal]:
    """Weights that make rare attributes as likely as common ones."""
    count = Counter(attribute for goal in goals for attribute in goal.attributes)
    return [
        replace(
            goal,
            weight=sum(1.0 / count[name] for name in goal.attributes)
            / max(1, len(goal.attributes)),
        )
        for goal in goals
    ]


def with_state(drawn: GoalSet, state: Mapping[str, Any], where: str) -> GoalSet:
    """`drawn` with prices, limits and texts of a recorded drawing (conformance files'
    state_seed*.json).

    Raises DataError that names the goal where the recording is of other goals."""
    recorded = state["goals"]
    if len(recorded) != len(drawn.goals):
        raise DataError(
            f"{where}: {len(recorded)} goals, but the catalogue has {len(drawn.goals)} {drawn.kind} ones"
        )
    goals = []
    for index, (goal, entry) in enumerate(zip(drawn.goals, recorded, strict=True)):
        if entry["asin"] != goal.asin:
            raise DataError(
                f"{where}: goal {index} is for {entry['asin']}, here it is for {goal.asin}"
            )
        goals.append(
            replace(
                goal,
                instruction=entry["instruction_text"],
                price_limit=entry["price_upper"],
                weight=entry.get("weight", goal.weight),
            )
        )
    return GoalSet(drawn.kind, tuple(goals), state["product_prices"])


def split_goals(goals: GoalSet, folder: Path | None = None) -> dict[str, tuple[int, ...]]:
    """Indices of the goals by split: "train", "test" and "all".

    Test is the first fifth, at most 500 goals; train is the rest. So on the 1000 products' 6910
    synthetic goals test is 0-499, as in verl-agent. Human goals follow `splits.json` of the data
    folder where there is one ({"train": [indices], "test": [indices]}, the form of IPR's and ETO's
    lists). Raises DataError for a list that does not fit."""
    total = len(goals.goals)
    tested = min(TEST_GOALS, int(total * TEST_SHARE))
    splits = {"train": tuple(range(tested, total)), "test": tuple(range(tested))}
    if goals.kind == "human" and folder is not None and (folder / "splits.json").exists():
        splits = _read_splits(folder / "splits.json", total)
    return {**splits, "all": tuple(range(total))}


def _read_splits(file: Path, total: int) -> dict[str, tuple[int, ...]]:
    try:
        lists = json.loads(file.read_bytes())
        splits = {name: tuple(lists[name]) for name in ("train", "test")}
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
