"""A small shop of the package's own, for the quickstart and for tests: no download, every word in
it made up here.

It has the form of WebShop's files, so goals, search, pages and rewards are the ordinary ones. Kept
easy to read for a model that starts from nothing: one style and one kind of thing per title, short
ids, two options from small shared vocabularies. Several styles of each kind differ in attributes,
price and options, so opening the wrong one costs part of the reward; another kind of thing is worth
nothing."""

from __future__ import annotations

import random
from typing import Any

from pydantic import Field

from rro.config import Section
from rro.errors import UsageError
from rro.webshop.catalogue import RawCatalogue

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
    "rustic",
    "folding",
    "quiet",
    "woven",
    "polished",
    "padded",
    "vintage",
    "compact",
    "glossy",
    "sturdy",
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
COLORS_EACH, SIZES_EACH = 4, 4
MAX_PRODUCTS = sum(map(len, KINDS.values())) * len(STYLES)


class SampleOptions(Section):
    """The size of a generated shop."""

    products: int = Field(60, ge=1)
    """Products of the shop."""
    styles: int = Field(2, ge=1)
    """Styles of each kind of thing, as far as they go."""


def sample_catalogue(seed: int = 0, products: int = 60, styles: int = 2) -> RawCatalogue:
    """A shop of `products` articles, `styles` of each kind of thing as far as they go; the same for
    the same arguments.

    Every product has an instruction and 4 colours and 4 sizes to choose from, so it makes 16
    synthetic goals; there are no human instructions. Raises UsageError where the shop has not
    enough words for that."""
    kinds = [(department, kind) for department, names in KINDS.items() for kind in names]
    if not 1 <= styles <= len(STYLES) or not 1 <= products <= styles * len(kinds):
        raise UsageError(
            f"the sample shop has 1 to {styles * len(kinds)} products with {styles} styles of a kind, not {products} "
            f"(styles: 1 to {len(STYLES)})"
        )
    stream = random.Random(f"rro sample shop {seed}")
    stream.shuffle(kinds)
    names = [
        (department, kind, style)
        for department, kind in kinds
        for style in stream.sample(STYLES, styles)
    ]
    asins = [str(number) for number in stream.sample(range(100, 1000), products)]
    raw = RawCatalogue([], {}, {}, {}, list(COLORS))
    for asin, name in zip(asins, names[:products], strict=True):
        _add(raw, asin, *name, stream)
    stream.shuffle(raw.products)
    return raw


def _add(
    raw: RawCatalogue, asin: str, department: str, kind: str, style: str, stream: random.Random
) -> None:
    benefit = stream.choice(BENEFITS)
    options = {
        "color": stream.sample(COLORS, COLORS_EACH),
        "size": stream.sample(SIZES, SIZES_EACH),
    }
    entry: dict[str, Any] = {
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
    raw.products.append(entry)
    raw.attributes[asin] = {
        "attributes": [style, benefit],
        "instruction": f"i want a {style} {kind}",
        "instruction_attributes": [style],
    }
    raw.nouns[asin] = [
        kind
    ]  # a style is an adjective, so that titles alike in style alone do not count as alike
