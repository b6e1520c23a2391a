"""The catalogue: the products, in index order, and the ways to find them.

It only sees arrays, so that a catalogue in memory and one mapped from a folder share all code;
processes that map the same folder share its memory. A product is decoded when it is asked for.
Knows nothing of drawn prices, pages or agents. All episodes share a catalogue read-only.
"""

from __future__ import annotations

import json
import math
import random
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np

from rro.webshop.analysis import QueryError, has_surrogates
from rro.webshop.index import HEADER, Index, add_index
from rro.webshop.index_store import (
    Array,
    MemoryStore,
    Store,
    StringTable,
    new_folder,
    open_folder,
    put,
)
from rro.webshop.products import Product, parse_products
from rro.webshop.raw_files import RawCatalogue

# Most products that a search returns.
HITS = 50
# Rollouts from the same state repeat each other's searches, and open the same products.
CACHED_SEARCHES, CACHED_PRODUCTS = 8192, 16384
# As in the original.
SHUFFLE_SEED = 233
_HEADER = {**HEADER, "format": "rro webshop catalogue"}


class SearchIndex(Protocol):
    """The search of a catalogue (see `rro.webshop.index.Index`)."""

    def search(self, query: str, k: int = HITS) -> list[tuple[int, float]]:
        """The best `k` products as (position, score), best first."""
        ...


class Products(Sequence[Product]):
    """The products by position."""

    def __init__(self, rows: StringTable) -> None:
        self._rows = rows
        self._product = lru_cache(CACHED_PRODUCTS)(lambda at: Product.from_row(rows[at]))

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, position: int) -> Product: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[Product]: ...
    def __getitem__(self, position: int | slice) -> Product | Sequence[Product]:
        if isinstance(position, slice):
            return [self[at] for at in range(len(self))[position]]
        return self._product(position if position >= 0 else position + len(self))

    def __iter__(self) -> Iterator[Product]:
        return map(Product.from_row, self._rows)


class Groups(Mapping[str, Sequence[int]]):
    """The positions of the products with a certain value, such as those of a category."""

    def __init__(self, name: str, arrays: Mapping[str, Array]) -> None:
        self._values = StringTable.named(name, arrays)
        self._starts, self._places = arrays[f"{name}_starts"], arrays[f"{name}_places"]

    def __getitem__(self, value: str) -> tuple[int, ...]:
        number = self._values.find(_encoded(value))
        if number is None:
            raise KeyError(value)
        return tuple(self._places[self._starts[number] : self._starts[number + 1]].tolist())

    def __iter__(self) -> Iterator[str]:
        return (value.decode("utf-8", "surrogatepass") for value in self._values)

    def __len__(self) -> int:
        return len(self._values)


class Catalogue:
    """The products, in index order, and the ways to find them.

    `ranked` is the text search, with a cache: it takes a query and returns positions, best first.
    `position` takes a product's id and raises KeyError if there is none with it. `colors` and
    `human` are those of the files, `origin` describes them for the run folder; `file_sizes` has
    their bytes by name.
    """

    def __init__(self, arrays: Mapping[str, Array], index: SearchIndex) -> None:
        """`arrays` are those of a folder that `build_catalogue` made, by name."""
        self.arrays, self.index = arrays, index
        self.products = Products(StringTable.named("product", arrays))
        facts = json.loads(arrays["facts"].tobytes())
        self.colors: Sequence[str] = facts["colors"]
        self.human: Mapping[str, Any] = facts.get("human") or {}
        self.origin: Mapping[str, Any] = facts.get("origin") or {}
        self.file_sizes: Mapping[str, int] = facts.get("file_sizes") or {}
        self.asins = Groups("asin", arrays)
        self._by_category, self._by_query = Groups("category", arrays), Groups("query", arrays)
        self.ranked = lru_cache(CACHED_SEARCHES)(self._ranked)
        self.position = lru_cache(CACHED_PRODUCTS)(self._position)

    @classmethod
    def of(
        cls, products: Iterable[Product], colors: Sequence[str] = (), index: Any = None
    ) -> Catalogue:
        """These products in memory, with a search of one's own."""
        store = MemoryStore()
        _add_products(store, products, {"colors": list(colors)})
        return cls(store.arrays, index)

    def _position(self, asin: str) -> int:
        return self.asins[asin][0]

    def __getitem__(self, asin: str) -> Product:
        return self.products[self.position(asin)]

    def find(self, keywords: tuple[str, ...], random_seed: int) -> tuple[int, ...]:
        """Positions of the products that a search finds, best first.

        A first keyword "<r>" gives random products (from `random_seed`), "<c>" those of a category,
        "<q>" those of a query. Raises QueryError where the original fails: "<a>", "<c>" alone, lone
        surrogates, queries that are too long.
        """
        if any(map(has_surrogates, keywords)):
            raise QueryError("the keywords contain a lone surrogate")
        match keywords:
            case ("<r>", *_):
                count = len(self.products)
                return tuple(random.Random(random_seed).sample(range(count), min(HITS, count)))
            case ("<a>", *_) | ("<c>",):
                raise QueryError(f"the original fails on {keywords[0]}")
            case ("<c>", category, *_):
                return tuple(self._by_category.get(category.strip(), ()))
            case ("<q>", *query):
                return tuple(self._by_query.get(" ".join(query).strip(), ()))
        return self.ranked(" ".join(keywords))

    def _ranked(self, query: str) -> tuple[int, ...]:
        return tuple(position for position, _ in self.index.search(query, HITS))


def build_catalogue(
    raw: RawCatalogue,
    folder: Path | None = None,
    origin: Mapping[str, Any] | None = None,
    file_sizes: Mapping[str, int] | None = None,
) -> Catalogue:
    """Parse the products of `raw` and index them, in memory or in a new `folder`, which is mapped.
    `origin` and `file_sizes` are kept (see `Catalogue`).

    Raises DataError for an entry that is not a WebShop product, and if the folder exists.
    """
    facts = {"colors": raw.colors, "human": raw.human, "origin": origin, "file_sizes": file_sizes}
    if folder is None:
        store = MemoryStore()
        _fill(store, raw, facts)
        return Catalogue(store.arrays, Index(store.arrays))
    with new_folder(folder, _HEADER) as new:
        _fill(new, raw, facts)
    return open_catalogue(folder)


def open_catalogue(folder: Path) -> Catalogue:
    """Map the catalogue that `build_catalogue` put into a folder. Raises DataError if the folder
    has none, or a damaged one, or one of another version."""
    arrays = open_folder(folder, _HEADER)
    return Catalogue(arrays, Index(arrays))


def _fill(store: Store, raw: RawCatalogue, facts: Mapping[str, Any]) -> None:
    asins = _add_products(store, parse_products(raw), facts)
    rows = StringTable.named("product", store.arrays)
    add_index(store, asins, (Product.from_row(row).text() for row in rows))


def _add_products(
    store: Store, products: Iterable[Product], facts: Mapping[str, Any]
) -> Sequence[str]:
    """Put all arrays but those of the search into `store`. Returns the products' ids."""
    columns: dict[str, list[str]] = {"asin": [], "category": [], "query": []}
    low, high, goals = array("d"), array("d"), array("q", [0])

    def rows() -> Iterator[bytes]:
        for product in products:
            for name, values in columns.items():
                values.append(sys.intern(getattr(product, name)))
            low.append(product.prices[0])
            high.append(product.prices[1] if len(product.prices) > 1 else math.nan)
            choices = math.prod(len(values) for _, values in product.options)
            goals.append(goals[-1] + (0 if product.instruction is None else choices))
            yield product.row()

    store.table("product", rows())
    for name, values in columns.items():
        _add_groups(store, name, values)
    order = list(range(goals[-1]))
    random.Random(SHUFFLE_SEED).shuffle(order)
    put(store, "price_low", np.array(low))
    put(store, "price_high", np.array(high))
    put(store, "goal_starts", np.array(goals))
    put(store, "goal_order", np.array(order, np.int32))
    put(store, "facts", np.frombuffer(json.dumps(facts).encode(), np.uint8))
    return columns["asin"]


def _add_groups(store: Store, name: str, values: Sequence[str]) -> None:
    places = sorted(range(len(values)), key=values.__getitem__)
    new = [n for n, at in enumerate(places) if n == 0 or values[at] != values[places[n - 1]]]
    store.table(name, (_encoded(values[places[n]]) for n in new))
    put(store, f"{name}_starts", np.array([*new, len(places)], np.int32))
    put(store, f"{name}_places", np.array(places, np.int32))


def _encoded(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")
