"""The pages of the shop: a pure function from the state of a visit to a page.

The text of a page is that of its visible HTML nodes, joined by " [SEP] ", as in the original.
Source: web_agent_site/{templates,engine/engine.py,envs/web_agent_text_env.py} of princeton-nlp/
WebShop at 64fa2a5. Knows nothing of actions or agents.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from rro.webshop.catalogue import Catalogue
from rro.webshop.goals import GoalSet
from rro.webshop.products import Product

SEPARATOR = " [SEP] "
ADDRESS_NAMES = ("search_results", "item_page", "item_sub_page")
SECTIONS = {
    "description": "Description",
    "features": "Features",
    "reviews": "Reviews",
    "attributes": "Attributes",
}
_HTML_SPACE = " \t\n\f\r"
_CACHED_PRODUCTS = 16384
_HTML_SAFE = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "'": "\\u0027"})

PageName = Literal["index", "search_results", "item_page", "item_sub_page", "done"]


@dataclass(frozen=True, slots=True)
class Session:
    """The whole state of a visit. Equal states answer alike."""

    goal: int
    """Index of the goal."""
    page: PageName = "index"
    """The current page."""
    keywords: tuple[str, ...] = ()
    """Keywords of the last search."""
    number: int = 0
    """Number of the last page of results, from 1."""
    asin: str = ""
    """Id of the current product."""
    options: tuple[tuple[str, str], ...] = ()
    """Chosen options of the product as (name, value), sorted."""
    section: str = ""
    """The open section of the product page, such as "Features"."""
    seed: int = 0
    """Seed of the random products that searches for "<r>" show."""
    draws: int = 0
    """How often random products were drawn."""
    random_seed: int = 0
    """Seed of the random products drawn last."""
    reward: float = 0.0
    """Reward of the purchase."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page as an agent sees it.

    `text` is the observation. `clickables` maps what can be clicked (in lower case and page order)
    to what it stands for: a product's id, an option's name, or None for a button. `search_bar`:
    whether the page has one.
    """

    text: str
    clickables: Mapping[str, str | None]
    search_bar: bool = False


@dataclass(frozen=True, slots=True)
class _ProductTexts:
    """A product's parts of the pages on which it appears."""

    key: str
    row: str
    item: str
    sections: Mapping[str, str]
    clickables: Mapping[str, str | None]


class Pages:
    """Renders the pages of a shop. Shared among episodes; caches the texts of products.

    `results_per_page` products are on a page of results. `show_attributes` adds the section
    Attributes to product pages.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        goals: GoalSet,
        results_per_page: int = 10,
        show_attributes: bool = False,
    ) -> None:
        self.catalogue, self.goals = catalogue, goals
        self.results_per_page = results_per_page
        self._buttons = [
            name for name in SECTIONS.values() if show_attributes or name != "Attributes"
        ] + ["Buy Now"]
        self._texts = lru_cache(_CACHED_PRODUCTS)(self._product_texts)

    def render(self, session: Session) -> Page:
        """The page of a state. Raises QueryError if the original fails on its keywords."""
        match session.page:
            case "index":
                text = f"WebShop{SEPARATOR}{self._instruction(session)}{SEPARATOR}Search"
                return Page(text, {"search": None}, search_bar=True)
            case "search_results":
                return self._results(session)
            case "item_page":
                texts = self._texts(self.catalogue.position(session.asin))
                return Page(self._instruction(session) + SEPARATOR + texts.item, texts.clickables)
            case "item_sub_page":
                texts = self._texts(self.catalogue.position(session.asin))
                return Page(
                    self._instruction(session) + SEPARATOR + texts.sections[session.section],
                    _SUB_CLICKABLES,
                )
            case "done":
                return Page(_done(session), {})

    def _instruction(self, session: Session) -> str:
        return SEPARATOR.join(
            ["Instruction:", *_segment(self.goals.goals[session.goal].instruction)]
        )

    def _results(self, session: Session) -> Page:
        found = self.catalogue.find(session.keywords, session.random_seed)
        size, number = self.results_per_page, session.number
        shown = [self._texts(position) for position in found[(number - 1) * size : number * size]]
        back = ["< Prev"] if number > 1 else []
        head = f"Page {number} (Total results: {len(found)})"
        parts = [
            self._instruction(session),
            "Back to Search",
            head,
            *back,
            "Next >",
            *(texts.row for texts in shown),
        ]
        clickables: dict[str, str | None] = {"back to search": None}
        if number > 1:
            clickables["< prev"] = None
        clickables["next >"] = None
        for texts in shown:
            clickables[texts.key.lower()] = texts.key
        return Page(SEPARATOR.join(parts), clickables)

    def _product_texts(self, position: int) -> _ProductTexts:
        product = self.catalogue.products[position]
        clickables: dict[str, str | None] = dict.fromkeys(("back to search", "< prev"))
        clickables.update(dict.fromkeys(button.lower() for button in self._buttons))
        for name, values in product.options:
            clickables.update(dict.fromkeys(values, name))
        return _ProductTexts(
            key=product.asin,
            row=SEPARATOR.join([product.asin, *_segment(product.title), product.price_tag]),
            item=SEPARATOR.join(self._item_segments(product)),
            sections={
                name: SEPARATOR.join(["Back to Search", "< Prev", *texts])
                for name, texts in _sections(product)
            },
            clickables=clickables,
        )

    def _item_segments(self, product: Product) -> Iterable[str]:
        yield from ("Back to Search", "< Prev")
        for name, values in product.options:
            yield from _segment(name)
            for value in values:
                yield from _segment(value)
        yield from _segment(product.title)
        yield from (f"Price: {product.price_tag}", "Rating: N.A.", *self._buttons)


_SUB_CLICKABLES: Mapping[str, str | None] = {"back to search": None, "< prev": None}


def _sections(product: Product) -> Iterable[tuple[str, list[str]]]:
    yield "Description", _segment(product.description)
    yield "Features", [part for bullet in product.bullets for part in _segment(" " + bullet)]
    yield "Reviews", []
    attributes = [part for attribute in product.attributes for part in _segment(" " + attribute)]
    origin = (product.category, product.query, product.product_category)
    yield "Attributes", attributes + [part for text in origin for part in _segment(text)]


def _segment(node: str) -> list[str]:
    """A text node as the original's HTML parser and join leave it: nothing for an empty node, or
    for whitespace with a newline; an empty segment for other whitespace; otherwise the stripped
    text."""
    if node == "":
        return []
    if not node.strip(_HTML_SPACE):
        return [] if "\n" in node else [""]
    return [node.strip()]


def _done(session: Session) -> str:
    """The page after a purchase. It shows neither goal nor price, and the unrounded reward."""
    options = json.dumps(dict(session.options), sort_keys=True).translate(_HTML_SAFE)
    return SEPARATOR.join(
        [
            *("Thank you for shopping with us!", "Your code:", "None"),
            *("(Paste it in your MTurk interface.)", "Purchased"),
            *("asin", session.asin, "options", options, "attrs", "None", "category", "None"),
            *("query", "None", "product category", "None"),
            *("Target", "asin", "options", "attrs", "price upper", "instuction text"),
            *("category", "product category", "query", "Goal", "None"),
            *("Reward", "Your score (min 0.0, max 1.0)", str(session.reward)),
            *("Reward Details", "None"),
        ]
    )


def address_page(session: Session) -> str:
    """The page that the original takes itself to be on.

    It looks for the names of pages in the address, which also contains the keywords and the chosen
    options. So after a search for "search_results" it mistakes an item for a page of results.
    """
    if session.page not in ADDRESS_NAMES:
        return session.page
    address = " ".join(
        (session.page, *session.keywords, *(part for option in session.options for part in option))
    )
    return next(name for name in ADDRESS_NAMES if name in address)
