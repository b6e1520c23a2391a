"""A small generated shop for the quickstart and for tests: no download, all text made up here.

It has the form of WebShop's files, so goals, search, pages and rewards work as for the real data.
The text is kept easy for a model trained from scratch: a title is one style and one kind of
product, ids are short, and options come from small shared vocabularies. Several styles of each
kind differ in attributes, price and options, so opening the wrong one costs part of the reward.
Another kind of product earns nothing.
"""

from __future__ import annotations

import random
from typing import Any, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from rro.config import Section
from rro.webshop.raw_files import RawCatalogue

KINDS: dict[str, tuple[str, ...]] = {
    "Kitchen": ("kettle", "skillet", "teapot", "mug", "ladle", "colander"),
    "Lighting": ("lantern", "lamp", "candle"),
    "Bedroom": ("blanket", "pillow", "quilt", "mattress"),
    "Luggage": ("backpack", "satchel", "wallet", "suitcase"),
    "Clothing": ("jacket", "scarf", "sweater", "raincoat"),
    "Office": ("notebook", "stapler", "planner", "clipboard"),
    "Outdoor": ("tent", "hammock", "cooler", "canoe"),
    "Electronics": ("speaker", "charger", "keyboard", "webcam"),
    "Living Room": ("rug", "curtain", "mirror", "bookcase"),
    "Garden": ("trowel", "planter", "birdhouse"),
}
STYLES = (
    *("rustic", "folding", "quiet", "woven", "polished"),
    *("padded", "vintage", "compact", "glossy", "sturdy"),
)
BENEFITS = (
    "easy to clean",
    "made by hand",
    "good for travel",
    "safe for children",
    "built to last",
)
COLORS = ("red", "blue", "green", "black", "white", "yellow", "purple", "orange")
SIZES = ("small", "medium", "large", "narrow", "wide", "tall")
OPTIONS: dict[str, tuple[str, ...]] = {
    "color": COLORS,
    "size": SIZES,
    "material": ("oak", "steel", "wool", "linen", "copper", "bamboo"),
    "finish": ("matte", "satin", "brushed", "oiled", "waxed", "raw"),
    "pattern": ("striped", "dotted", "plain", "checked", "floral", "zigzag"),
    "shape": ("round", "square", "oval", "hexagonal", "curved", "flat"),
    "scent": ("cedar", "lemon", "vanilla", "mint", "lavender", "unscented"),
    "edge": ("beveled", "scalloped", "straight", "fringed", "hemmed", "rolled"),
    "closure": ("zipper", "button", "buckle", "magnet", "drawstring", "hook"),
    "lining": ("fleece", "silk", "cotton", "felt", "velvet", "mesh"),
    "handle": ("rope", "leather", "wooden", "chain", "brass", "plastic"),
    "season": ("spring", "summer", "autumn", "winter", "monsoon", "holiday"),
}
"""The kinds of options and their values. No word stands in two of them."""
MAX_GOALS = 100_000
KIND_COUNT = sum(map(len, KINDS.values()))
MAX_PRODUCTS = KIND_COUNT * len(STYLES)


class SampleOptions(Section):
    """Size of the generated shop."""

    products: int = Field(60, ge=1)
    """Number of products. With the options as they are, each makes 16 goals."""
    styles: int = Field(2, ge=1, le=len(STYLES))
    """How many styles of each kind of product there are, such as a rustic and a woven lamp."""
    options: int = Field(2, ge=1, le=len(OPTIONS))
    """How many kinds of options a product has: colour, size, material, ... Each takes a click, so
    10 make episodes of 13 steps."""
    values: int = Field(4, ge=2, le=min(map(len, OPTIONS.values())))
    """How many values each kind of option has on a product. The product's goals are all
    combinations of them."""

    @model_validator(mode="after")
    def _enough_words(self) -> Self:
        most = self.styles * KIND_COUNT
        if self.products > most:
            raise PydanticCustomError(
                "too_many_products",
                "with styles = {styles} the sample shop has at most {most} products",
                {"styles": self.styles, "most": most},
            )
        goals = self.products * self.values**self.options
        if goals > MAX_GOALS:
            raise PydanticCustomError(
                "too_many_goals",
                "{products} products with {options} options of {values} values make {goals} goals, "
                "and the sample shop takes at most {most}; lower one of them",
                {**self.model_dump(), "goals": goals, "most": MAX_GOALS},
            )
        return self


DEFAULT_SIZE = SampleOptions()


def sample_catalogue(seed: int = 0, size: SampleOptions = DEFAULT_SIZE) -> RawCatalogue:
    """Generate a shop; the same arguments give the same shop.

    Every product has an instruction, so its options make synthetic goals. There are no human
    instructions.
    """
    kinds = [(department, kind) for department, names in KINDS.items() for kind in names]
    stream = random.Random(f"rro sample shop {seed}")
    stream.shuffle(kinds)
    names = [
        (department, kind, style)
        for department, kind in kinds
        for style in stream.sample(STYLES, size.styles)
    ]
    asins = [str(number) for number in stream.sample(range(100, 1000), size.products)]
    entries = list[dict[str, Any]]()
    raw = RawCatalogue(entries, {}, {}, {}, list(COLORS))
    for asin, name in zip(asins, names[: size.products], strict=True):
        entries.append(_add(raw, asin, *name, size, stream))
    stream.shuffle(entries)
    return raw


def _add(
    raw: RawCatalogue,
    asin: str,
    department: str,
    kind: str,
    style: str,
    size: SampleOptions,
    stream: random.Random,
) -> dict[str, Any]:
    """A product's entry; the rest of what is known of it is put into `raw`."""
    benefit = stream.choice(BENEFITS)
    names = list(OPTIONS)[: size.options]
    options = {name: stream.sample(OPTIONS[name], size.values) for name in names}
    raw.attributes[asin] = {
        "attributes": [style, benefit],
        "instruction": f"i want a {style} {kind}",
        "instruction_attributes": [style],
    }
    # Styles are adjectives, so titles that share only a style have no noun in common.
    raw.nouns[asin] = [kind]
    return {
        "asin": asin,
        "name": f"{style} {kind}",
        "full_description": f"A {style} {kind}, {benefit}.",
        "small_description": [f"It is {benefit}."],
        "pricing": f"${stream.randint(8, 90)}.00",
        "category": department.lower(),
        "query": kind,
        "product_category": f"{department} › {kind.capitalize()}",
        "customization_options": {
            name: [{"value": value} for value in values] for name, values in options.items()
        },
    }
