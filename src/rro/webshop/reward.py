"""The reward of a purchase, exactly as in WebShop.

Source: web_agent_site/engine/{goal,normalize}.py of princeton-nlp/WebShop at 64fa2a5. The original
compares texts with thefuzz and parses titles with spaCy; here it is rapidfuzz after thefuzz's
preprocessing, and nouns tagged beforehand. Knows nothing of pages or agents.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from rapidfuzz import fuzz, utils

from rro.webshop.catalogue import Catalogue
from rro.webshop.goals import Goal
from rro.webshop.products import Product

# thefuzz drops these characters, and no others, before it compares.
_LATIN1 = dict.fromkeys(range(128, 256))
# Of 100.
_SIMILAR = 85
# Separates the levels of a product category.
_LEVELS = "›"


def purchase_reward(
    catalogue: Catalogue, product: Product, goal: Goal, price: float, options: Sequence[str]
) -> tuple[float, dict[str, Any]]:
    """The reward, in [0, 1], for buying `product` with the chosen option values at `price` dollars.

    Also returns its parts, with the keys of the original's verbose_info; a goal without options has
    no keys of options.
    """
    wanted = catalogue[goal.asin]
    kind, account = _type_reward(product, wanted)
    attributes = sum(_has_attribute(product, attribute) for attribute in goal.attributes)
    matched = _matched_options(catalogue.colors, goal.options, options)
    affordable = price <= goal.price_limit
    total = len(goal.attributes) + len(goal.options) + 1
    account["r_att"] = attributes / max(1, len(goal.attributes))
    account["w_att"] = len(goal.attributes) / total
    if goal.options:
        account["r_option"] = matched / len(goal.options)
        account["w_option"] = len(goal.options) / total
    account["r_price"] = affordable
    account["w_price"] = 1 / total
    return (attributes + matched + affordable) / total * kind, account


def _type_reward(bought: Product, wanted: Product) -> tuple[float, dict[str, Any]]:
    """The factor for the kind of product: 1, 0.5, 0.1 or 0, and what it is based on."""
    same_query = bought.query == wanted.query
    same_category = len(_levels(bought.product_category) & _levels(wanted.product_category)) >= 2
    nouns = wanted.nouns
    # The number of distinct common nouns over that of all nouns, as in the original.
    score = len(set(bought.nouns) & set(nouns)) / len(nouns) if nouns else 0.2
    kind = 1.0 if same_query or same_category or score > 0.2 else 0.5
    if score < 0.1:
        kind = 0.1
    if score == 0.0:
        kind = 0.0
    return kind, {
        "r_type": kind,
        "query_match": same_query,
        "category_match": same_category,
        "title_score": score,
    }


def _levels(product_category: str) -> set[str]:
    return {level.strip() for level in product_category.split(_LEVELS)}


def _has_attribute(product: Product, wanted: str) -> bool:
    if any(_similar(attribute, wanted) for attribute in product.attributes):
        return True
    texts = (product.title, " ".join(product.bullets), product.description)
    return any(wanted in text.lower() for text in texts)


def _matched_options(
    colors: Sequence[str], wanted: Iterable[str | tuple[str, str]], clicked: Iterable[str]
) -> int:
    chosen = [_normal_color(colors, value) for value in clicked]
    return sum(
        any(_similar(value, str(_normal_color(colors, option))) for value in chosen)
        for option in wanted
    )


def _normal_color(colors: Sequence[str], option: str | tuple[str, str]) -> str | tuple[str, str]:
    """The first colour word in the option, or else the option.

    The option of a synthetic goal is a (name, value) tuple, in which `in` compares whole elements;
    in the buyer's text it finds substrings ("wash" becomes "ash"). Because of this quirk of the
    original, no purchase earns 1.0 for some goals.
    """
    return next((color for color in colors if color in option), option)


def _similar(one: object, other: object) -> bool:
    return round(fuzz.token_set_ratio(_processed(str(one)), _processed(str(other)))) > _SIMILAR


@lru_cache(65536)
def _processed(text: str) -> str:
    return utils.default_process(text.translate(_LATIN1))
