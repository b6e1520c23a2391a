"""The products: reads WebShop's data files into immutable records with a search over them.

File formats and their quirks follow web_agent_site/engine/engine.py of princeton-nlp/WebShop at
64fa2a5. Knows nothing of goals, drawn prices, pages or agents. All episodes share a catalogue
read-only.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from rro.errors import DataError, reason_of
from rro.webshop.analysis import QueryError, has_surrogates

# Most products that a search returns.
HITS = 50
# Rollouts from the same state repeat each other's searches.
CACHED_SEARCHES = 8192
ITEM_FILES = (
    ("items_shuffle_1000.json", "items_ins_v2_1000.json"),
    ("items_shuffle.json", "items_ins_v2.json"),
)
HUMAN_FILE, NOUN_FILE, COLOR_FILE = "items_human_ins.json", "title_nouns.json", "color_words.json"


@dataclass(frozen=True)
class RawCatalogue:
    """WebShop's files, parsed but otherwise unchanged. Dictionaries are keyed by product id
    (ASIN)."""

    products: list[dict[str, Any]]
    """Entries of items_shuffle*.json, in index order."""
    attributes: dict[str, Any]
    """items_ins_v2*.json: "attributes" and, for a product with a synthetic instruction,
    "instruction" and "instruction_attributes"."""
    human: dict[str, Any]
    """items_human_ins.json: a list of "instruction", "instruction_attributes" and
    "instruction_options" for each product."""
    nouns: dict[str, list[str]]
    """Lower-cased NOUN and PROPN tokens of each title, in order."""
    colors: list[str]
    """Colour words by which the reward normalises options, in order."""


@dataclass(frozen=True, slots=True)
class Product:
    """A product as the shop displays and scores it.

    `prices` holds one amount in dollars, or the two ends of a range from which each price seed
    draws one. `options` are (name, values) in file order. `nouns` are those of the title.
    """

    asin: str
    title: str
    description: str
    bullets: tuple[str, ...]
    prices: tuple[float, ...]
    price_tag: str
    options: tuple[tuple[str, tuple[str, ...]], ...]
    attributes: tuple[str, ...]
    category: str
    query: str
    product_category: str
    nouns: tuple[str, ...]

    def text(self) -> str:
        """The text that the search indexes."""
        options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in self.options)
        first_bullet = self.bullets[0] if self.bullets else ""
        return " ".join((self.title, self.description, first_bullet, options)).lower()


class SearchIndex(Protocol):
    """The search of a catalogue (see `rro.webshop.index.Index`)."""

    def search(self, query: str, k: int = HITS) -> list[tuple[int, float]]:
        """The best `k` products as (position, score), best first."""
        ...


class Catalogue:
    """The products, in index order, and the ways to find them. `ranked` is the text search, with a
    cache: it takes a query and returns positions, best first."""

    def __init__(
        self, products: Sequence[Product], colors: Sequence[str], index: SearchIndex
    ) -> None:
        self.products = tuple(products)
        self.colors = tuple(colors)
        self.index = index
        self.position = {product.asin: number for number, product in enumerate(self.products)}
        self._by_category = _grouped(product.category for product in self.products)
        self._by_query = _grouped(product.query for product in self.products)
        self.ranked = lru_cache(CACHED_SEARCHES)(self._ranked)

    def __getitem__(self, asin: str) -> Product:
        return self.products[self.position[asin]]

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
                return self._by_category.get(category.strip(), ())
            case ("<q>", *query):
                return self._by_query.get(" ".join(query).strip(), ())
        return self.ranked(" ".join(keywords))

    def _ranked(self, query: str) -> tuple[int, ...]:
        return tuple(position for position, _ in self.index.search(query, HITS))


def _grouped(keys: Iterable[str]) -> dict[str, tuple[int, ...]]:
    groups: dict[str, list[int]] = defaultdict(list)
    for position, key in enumerate(keys):
        groups[key].append(position)
    return {key: tuple(positions) for key, positions in groups.items()}


def build_catalogue(raw: RawCatalogue, index: Path | None = None) -> Catalogue:
    """Parse the products of `raw` and index them, in memory or in the folder `index`.

    An index that is already in the folder is opened. Raises DataError for an entry that is not a
    WebShop product, or for the index of another catalogue.
    """
    from rro.webshop.index import Index, build, build_folder

    products = list(parse_products(raw))
    ids, texts = [product.asin for product in products], (product.text() for product in products)
    if index is None:
        return Catalogue(products, raw.colors, build(ids, texts))
    opened = Index.open(index) if index.exists() else build_folder(index, ids, texts)
    if not opened.has_ids(ids):
        raise DataError(
            f"{index} is the search index of another catalogue: name another folder, or delete it"
        )
    return Catalogue(products, raw.colors, opened)


def parse_products(raw: RawCatalogue) -> Iterator[Product]:
    """The products that WebShop keeps: of entries with the same id the first, and none whose id is
    "nan" or has more than 10 characters. Raises DataError that names the entry."""
    seen: set[str] = set()
    for number, entry in enumerate(raw.products):
        try:
            asin = entry["asin"]
            if asin == "nan" or len(asin) > 10 or asin in seen:
                continue
            seen.add(asin)
            yield _product(entry, raw.attributes.get(asin, {}), raw.nouns[asin])
        except KeyError as error:
            if "asin" in entry and error.args == (entry["asin"],):
                raise DataError(
                    f"{NOUN_FILE} has no entry for product {asin}: tag the titles again"
                ) from None
            raise DataError(f"products: entry {number} has no key {error}") from None
        except (TypeError, AttributeError, ValueError, LookupError, InvalidOperation) as error:
            raise DataError(
                f"products: entry {number} is not a WebShop product ({error!r})"
            ) from None


def _product(
    entry: Mapping[str, Any], attributes: Mapping[str, Any], nouns: Sequence[str]
) -> Product:
    prices, tag = _prices(entry.get("pricing"))
    bullets = entry["small_description"]
    return Product(
        asin=entry["asin"],
        title=_text(entry["name"]),
        description=_text(entry["full_description"]),
        bullets=tuple(map(_text, bullets)) if isinstance(bullets, list) else (_text(bullets),),
        prices=prices,
        price_tag=tag,
        options=_options(entry["customization_options"]),
        attributes=tuple(map(_text, attributes.get("attributes", ["DUMMY_ATTR"]))),
        category=_text(entry["category"]),
        query=_text(entry["query"]).lower().strip(),
        product_category=_text(entry["product_category"]),
        nouns=tuple(nouns),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {value!r}")
    return value


def _prices(pricing: str | None) -> tuple[tuple[float, ...], str]:
    """Amounts in dollars (at most two), and how the shop displays them."""
    if not pricing:
        return (100.0,), "$100.0"
    prices = tuple(float(Decimal(re.sub(r"[^\d.]", "", part))) for part in pricing.split("$")[1:])
    if len(prices) == 1:
        return prices, f"${prices[0]}"
    return prices[:2], f"${prices[0]} to ${prices[1]}"


def _options(
    customization: Mapping[str, Any] | str | None,
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    if not isinstance(customization, Mapping):
        return ()
    # Of names that differ only in case, the last one's values take the first one's place.
    options: dict[str, tuple[str, ...]] = {}
    for name, values in customization.items():
        if values is not None:
            options[name.lower()] = tuple(
                value["value"].strip().replace("/", " | ").lower() for value in values
            )
    return tuple(options.items())


def catalogue_files(folder: Path) -> list[Path]:
    """The files of a data folder: products, attributes, human instructions, nouns, colours.

    If the folder has both catalogues, the small one is taken. Raises DataError that names the
    missing files.
    """
    items, attributes = next(
        (pair for pair in ITEM_FILES if (folder / pair[0]).exists()), ITEM_FILES[0]
    )
    files = [folder / name for name in (items, attributes, HUMAN_FILE, NOUN_FILE, COLOR_FILE)]
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise DataError(
            f"{folder} is not a WebShop data folder: {', '.join(missing)} missing; "
            "run rro data fetch webshop-1k (or webshop, the full catalogue)"
        )
    return files


def load_raw(folder: Path) -> RawCatalogue:
    """Read a data folder. Raises DataError that names the file if one is missing, damaged or of
    another form."""
    kinds = (list, dict, dict, dict, list)
    return RawCatalogue(
        *(_read(file, kind) for file, kind in zip(catalogue_files(folder), kinds, strict=True))
    )


def _read(file: Path, kind: type) -> Any:
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read ({reason_of(error)}): fetch it again") from None
    if not isinstance(value, kind):
        raise DataError(
            f"{file} contains a JSON {type(value).__name__}; WebShop's file is a {kind.__name__}"
        )
    return value


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each data file by name."""
    hashes = {}
    for file in catalogue_files(folder):
        with file.open("rb") as stream:
            hashes[file.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return hashes
