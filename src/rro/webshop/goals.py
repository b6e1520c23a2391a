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
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from rro.errors import DataError
from rro.webshop.catalogue import Catalogue, Product, RawCatalogue

GoalKind = Literal["synthetic", "human"]
# As in the original.
SHUFFLE_SEED = 233
NO_LIMIT = 1_000_000
PRICE_STEPS = [10.0 * step for step in range(1, 100)]
TEST_GOALS, TEST_SHARE = 500, 0.2


@dataclass(frozen=True, slots=True)
class Goal:
    """What to buy.

    `options` are values in human goals and (name, value) tuples in synthetic ones; the reward
    treats the two differently. `price_limit` is in dollars. `weight` is the goal's share when the
    original draws a goal at random.
    """

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
    """The shuffled goals, and the price of every product in dollars, by product id, as drawn from
    one seed."""

    kind: GoalKind
    goals: tuple[Goal, ...]
    prices: Mapping[str, float]

    @cached_property
    def _cumulative(self) -> list[float]:
        return [0.0, *itertools.accumulate(goal.weight for goal in self.goals)]

    def draw(self, stream: random.Random) -> int:
        """Draw the index of a goal, as the original does if it is given none.

        Each goal is drawn with the weight of the one before it, so the first never comes up; that
        is the original's behaviour.
        """
        position = stream.uniform(0, self._cumulative[-1])
        return min(bisect.bisect(self._cumulative, position), len(self.goals) - 1)


def draw_goals(raw: RawCatalogue, catalogue: Catalogue, kind: GoalKind, price_seed: int) -> GoalSet:
    """All goals of a kind, with the prices and limits that the original draws right after
    `random.seed(price_seed)`.

    Raises DataError if there are none, or if the instructions do not have WebShop's form.
    """
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
    """A price limit above `price`, and its wording in the instruction."""
    above = [step for step in PRICE_STEPS if step > price][:4]
    if len(above) < 2:
        return NO_LIMIT, ""
    limit = max(stream.sample(above, 2))
    return limit, f", and price lower than {limit:.2f} dollars"


def _synthetic(
    raw: RawCatalogue, catalogue: Catalogue, prices: Mapping[str, float], stream: random.Random
) -> Iterator[Goal]:
    """A goal for every combination of a product's option values. They share one price limit."""
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
    """A goal for every written instruction that has attributes. For the others no limit is
    drawn."""
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
        replace(goal, weight=sum(1.0 / count[name] for name in names) / max(1, len(names)))
        for goal in goals
        for names in [goal.attributes]
    ]


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
    goals = []
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
                weight=entry.get("weight", goal.weight),
            )
        )
    return GoalSet(drawn.kind, tuple(goals), state["product_prices"])


def split_goals(goals: GoalSet, folder: Path | None = None) -> dict[str, tuple[int, ...]]:
    """Indices of the goals by split: "train", "test" and "all".

    Test is the first fifth, but at most 500 goals; train is the rest. So of the 6910 synthetic
    goals of the 1000 products, test has 0-499, as in verl-agent. Human goals follow `splits.json`
    in `folder` if it exists: {"train": [indices], "test": [indices]}, the form of IPR's and ETO's
    lists. Raises DataError if an index in it is not that of a goal.
    """
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
