"""What each page of the shop says and offers. Pure: a session's state in, a page out.

Source: princeton-nlp/WebShop at 64fa2a5,
web_agent_site/{templates,engine/engine.py,envs/web_agent_text_env.py}. A text observation is the
page's visible text nodes joined by ' [SEP] '. Knows nothing of actions or agents."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from rro.webshop.catalogue import Catalogue, Product
from rro.webshop.goals import GoalSet

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
    """The whole state of one buyer's visit.

    `goal` is an index into the goals. `keywords`, `number` (of the result page) and `random_seed`
    (what <r> showed) say which results were seen last; `asin`, `options` (name, value) and
    `section` what is looked at. `seed` and `draws` are the random stream of <r>: where it starts
    and how often it was used. `reward` is that of a finished purchase."""

    goal: int
    page: PageName = "index"
    keywords: tuple[str, ...] = ()
    number: int = 0
    asin: str = ""
    options: tuple[tuple[str, str], ...] = ()
    section: str = ""
    seed: int = 0
    draws: int = 0
    random_seed: int = 0
    reward: float = 0.0


@dataclass(frozen=True, slots=True)
class Page:
    """`text` is the observation. `clickables` maps what can be clicked (lower case, in page order)
    to what it names: a product's asin, an option's name, or None for a button."""

    text: str
    clickables: Mapping[str, str | None]
    search_bar: bool = False


@dataclass(frozen=True, slots=True)
class _ProductTexts:
    """A product's part of the pages it appears on."""

    key: str
    row: str
    item: str
    sections: Mapping[str, str]
    clickables: Mapping[str, str | None]


class Pages:
    """Renders sessions. Shared among episodes; holds the products' texts once they were shown."""

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
        """The page that `session` is on. Raises QueryError for keywords that cannot be searched
        for."""
        match session.page:
            case "index":
                text = f"WebShop{SEPARATOR}{self._instruction(session)}{SEPARATOR}Search"
                return Page(text, {"search": None}, search_bar=True)
            case "search_results":
                return self._results(session)
            case "item_page":
                texts = self._texts(self.catalogue.position[session.asin])
                return Page(self._instruction(session) + SEPARATOR + texts.item, texts.clickables)
            case "item_sub_page":
                texts = self._texts(self.catalogue.position[session.asin])
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
    """A text node as the original's HTML parser and its join leave it: none for an empty node or a
    whitespace-only one with a newline, an empty segment for other whitespace, else the stripped
    text."""
    if node == "":
        return []
    if not node.strip(_HTML_SPACE):
        return [] if "\n" in node else [""]
    return [node.strip()]


def _done(session: Session) -> str:
    """The page after a purchase. It shows neither goal nor price, and the reward in full
    precision."""
    options = json.dumps(dict(session.options), sort_keys=True).translate(_HTML_SAFE)
    bought = [
        "Purchased",
        "asin",
        session.asin,
        "options",
        options,
        "attrs",
        "None",
        "category",
        "None",
    ]
    bought += ["query", "None", "product category", "None"]
    target = [
        "Target",
        "asin",
        "options",
        "attrs",
        "price upper",
        "instuction text",
        "category",
        "product category",
    ]
    score = ["Your score (min 0.0, max 1.0)", str(session.reward), "Reward Details", "None"]
    head = [
        "Thank you for shopping with us!",
        "Your code:",
        "None",
        "(Paste it in your MTurk interface.)",
    ]
    return SEPARATOR.join([*head, *bought, *target, "query", "Goal", "None", "Reward", *score])


def address_page(session: Session) -> str:
    """Which page the original takes itself to be on: it looks for page names in the address, and
    the address holds the keywords and the clicked options. So a search for "search_results" makes
    it mistake an item for a result page."""
    if session.page not in ADDRESS_NAMES:
        return session.page
    address = " ".join(
        (session.page, *session.keywords, *(part for option in session.options for part in option))
    )
    return next(name for name in ADDRESS_NAMES if name in address)
