"""The shop's goods: WebShop's own data files in, frozen products and a search over them out.

Facts about formats and their quirks: princeton-nlp/WebShop at 64fa2a5,
web_agent_site/engine/engine.py. Knows nothing of goals, drawn prices, pages or agents. Everything
here is shared read-only among episodes."""

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

from rro.errors import DataError
from rro.webshop.analysis import QueryError

HITS = 50  # what one search returns at most
CACHED_SEARCHES = 8192  # rollouts from one state repeat each other's searches
ITEM_FILES = (
    ("items_shuffle_1000.json", "items_ins_v2_1000.json"),
    ("items_shuffle.json", "items_ins_v2.json"),
)
HUMAN_FILE, NOUN_FILE, COLOR_FILE = "items_human_ins.json", "title_nouns.json", "color_words.json"


@dataclass(frozen=True)
class RawCatalogue:
    """WebShop's files, parsed and otherwise as they are.

    `products`: entries of items_shuffle*.json, in index order. `attributes`: items_ins_v2*.json,
    asin -> {"attributes", and where it has a synthetic instruction "instruction",
    "instruction_attributes"}. `human`: items_human_ins.json, asin -> [{"instruction",
    "instruction_attributes", "instruction_options", ...}]. `nouns`: asin -> lower-cased NOUN and
    PROPN tokens of the title, in order. `colors`: the colour words of the reward's normalisation,
    in order."""

    products: list[dict[str, Any]]
    attributes: dict[str, Any]
    human: dict[str, Any]
    nouns: dict[str, list[str]]
    colors: list[str]


@dataclass(frozen=True, slots=True)
class Product:
    """One article as the shop shows and judges it. `prices` has one or two dollar amounts (two: a
    range, of which each price seed draws one); `options` are (name, values) in file order; `nouns`
    those of the title."""

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
        """What the search indexes."""
        options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in self.options)
        first_bullet = self.bullets[0] if self.bullets else ""
        return " ".join((self.title, self.description, first_bullet, options)).lower()


class SearchIndex(Protocol):
    """What a catalogue searches with (see rro.webshop.index)."""

    def search(self, query: str, k: int = HITS) -> list[tuple[int, float]]: ...


class Catalogue:
    """Products in index order and how to find them."""

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
        """Positions of the products that a search shows, best first. `random_seed` decides what <r>
        shows.

        Raises QueryError where the original fails: <a>, a bare <c>, lone surrogates, over-long
        queries."""
        if any(
            "\ud800" <= character <= "\udfff"
            for word in keywords
            if not word.isascii()
            for character in word
        ):
            raise QueryError("the keywords hold half of a surrogate pair")
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
    """Products of `raw` and their search index: in memory, or in the folder `index`, where it is
    built unless it lies there.

    Raises DataError for a bad entry, or an index of another catalogue."""
    from rro.webshop.index import Index, build, build_folder

    products = list(parse_products(raw))
    ids, texts = [product.asin for product in products], (product.text() for product in products)
    if index is None:
        return Catalogue(products, raw.colors, build(ids, texts))
    found = Index.open(index) if index.exists() else build_folder(index, ids, texts)
    if not found.has_ids(ids):
        raise DataError(
            f"{index} is the search index of another catalogue: name another folder, or delete it"
        )
    return Catalogue(products, raw.colors, found)


def parse_products(raw: RawCatalogue) -> Iterator[Product]:
    """The entries that WebShop keeps: not named 'nan', not longer than 10 characters, and only the
    first of a name."""
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
                    f"{NOUN_FILE} has no entry for product {asin}: its titles must be tagged again"
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
    """Dollar amounts (at most two), and how the shop prints them."""
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
    options: dict[
        str, tuple[str, ...]
    ] = {}  # names that agree but for case: the last one's values, the first one's place
    for name, values in customization.items():
        if values is not None:
            options[name.lower()] = tuple(
                value["value"].strip().replace("/", " | ").lower() for value in values
            )
    return tuple(options.items())


def catalogue_files(folder: Path) -> list[Path]:
    """The files of a data folder: items, attributes, human instructions, nouns, colours. Where both
    catalogues lie in one folder it is the small one. Raises DataError that names what is
    missing."""
    items, attributes = next(
        (pair for pair in ITEM_FILES if (folder / pair[0]).exists()), ITEM_FILES[0]
    )
    files = [folder / name for name in (items, attributes, HUMAN_FILE, NOUN_FILE, COLOR_FILE)]
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise DataError(
            f"{folder} is not a WebShop data folder: {', '.join(missing)} missing; see rro data fetch"
        )
    return files


def load_raw(folder: Path) -> RawCatalogue:
    """Read a data folder. Raises DataError, which names the file, where one is missing, broken or
    of another form."""
    kinds = (list, dict, dict, dict, list)
    return RawCatalogue(
        *(_read(file, kind) for file, kind in zip(catalogue_files(folder), kinds, strict=True))
    )


def _read(file: Path, kind: type) -> Any:
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read ({error}): fetch it again") from None
    if not isinstance(value, kind):
        raise DataError(
            f"{file} holds a JSON {type(value).__name__} where WebShop's has a {kind.__name__}"
        )
    return value


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each data file by name, for the record of a run."""
    hashes = {}
    for file in catalogue_files(folder):
        with file.open("rb") as stream:
            hashes[file.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return hashes
