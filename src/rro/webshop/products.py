"""The products of the shop: what it makes of an entry of WebShop's files, and the row of bytes in
which a catalogue keeps a product.

Quirks follow web_agent_site/engine/engine.py of princeton-nlp/WebShop at 64fa2a5. Knows nothing of
files, searches or goals.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal, InvalidOperation
from operator import attrgetter
from typing import Any, Self

from rro.errors import DataError
from rro.webshop.raw_files import NOUN_FILE, RawCatalogue


@dataclass(frozen=True, slots=True)
class Product:
    """A product as the shop displays and scores it.

    `prices` holds one amount in dollars, or the two ends of a range from which each price seed
    draws one. `options` are (name, values) in file order. `nouns` are those of the title.
    `instruction` is what synthetic goals ask for, before options and price; None if it has none.
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
    instruction: str | None = None
    instruction_attributes: tuple[str, ...] = ()

    def text(self) -> str:
        """The text that the search indexes."""
        options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in self.options)
        first_bullet = self.bullets[0] if self.bullets else ""
        return " ".join((self.title, self.description, first_bullet, options)).lower()

    def row(self) -> bytes:
        """The product as bytes, for `from_row`."""
        return json.dumps(_FIELDS(self), separators=(",", ":")).encode()

    @classmethod
    def from_row(cls, row: bytes) -> Self:
        """The product that `row` gave these bytes."""
        return cls(*map(_frozen, json.loads(row)))


_FIELDS = attrgetter(*(field.name for field in fields(Product)))


def _frozen(value: Any) -> Any:
    """Lists made tuples again."""
    if not isinstance(value, list):
        return value
    return tuple([_frozen(item) if isinstance(item, list) else item for item in value])


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
    bullets, wish = entry["small_description"], attributes.get("instruction")
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
        instruction=wish,
        instruction_attributes=() if wish is None else tuple(attributes["instruction_attributes"]),
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
