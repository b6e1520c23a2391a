"""The reward, worked out by hand on small cases."""

import pytest

from rro.webshop.catalogue import Catalogue
from rro.webshop.goals import Goal
from rro.webshop.products import Product
from rro.webshop.reward import purchase_reward

BASE = {
    "title": "Red Kettle",
    "description": "",
    "bullets": (),
    "prices": (20.0,),
    "price_tag": "$20.0",
    "options": (),
    "attributes": ("easy clean",),
    "category": "kitchen",
    "query": "kettles",
    "product_category": "Home › Kitchen › Kettles",
    "nouns": ("kettle",),
}
GOAL = Goal("A1", "", ("easy clean",), (), 30.0)


def product(asin="A1", **changes):
    return Product(asin=asin, **(BASE | changes))


def worth(bought, goal=GOAL, price=20.0, options=(), wanted=None, colors=("ash", "red")):
    wanted = wanted or product()
    products = [wanted] if bought.asin == wanted.asin else [wanted, bought]
    return purchase_reward(Catalogue.of(products, colors), bought, goal, price, options)


def test_a_perfect_purchase_without_options():
    reward, account = worth(product())
    assert reward == 1.0
    assert account == {
        "r_type": 1.0,
        "query_match": True,
        "category_match": True,
        "title_score": 1.0,
        "r_att": 1.0,
        "w_att": 0.5,
        "r_price": True,
        "w_price": 0.5,
    }


def test_a_price_above_the_limit_costs_its_share():
    assert worth(product(), price=30.0)[0] == 1.0
    assert worth(product(), price=30.01)[0] == 0.5


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"attributes": ("clean easy",)}, True),  # the set of words counts
        ({"attributes": ("x",), "title": "An EASY CLEAN Kettle"}, True),
        (
            {"attributes": ("x",), "bullets": ("so easy", "clean")},
            True,
        ),  # bullets are joined by a space
        ({"attributes": ("x",), "description": "Easy clean."}, True),
        ({"attributes": ("x",), "description": "easily cleaned"}, False),
        ({"attributes": ("easy open",)}, False),
    ],
)
def test_attributes(changes, found):
    assert worth(product(**changes))[1]["r_att"] == found


@pytest.mark.parametrize(
    ("bought", "kind"),
    [
        (
            {"query": "kettles", "nouns": ("pot",), "product_category": "x"},
            0.0,
        ),  # no title noun in common: nothing
        ({"query": "pots", "product_category": "x", "nouns": ("kettle",)}, 1.0),
        ({"query": "pots", "product_category": "Home › Kitchen", "nouns": ("pot",)}, 0.0),
    ],
)
def test_kind_of_product(bought, kind):
    assert worth(product("B2", **bought))[1]["r_type"] == kind


@pytest.mark.parametrize(
    ("shared", "of", "query", "kind"),
    [(1, 5, "pots", 0.5), (1, 5, "kettles", 1.0), (1, 11, "kettles", 0.1), (2, 5, "pots", 1.0)],
)
def test_title_score(shared, of, query, kind):
    wanted = product(nouns=tuple(f"n{number}" for number in range(of)))
    bought = product("B2", nouns=wanted.nouns[:shared], query=query, product_category="x")
    _, account = worth(bought, wanted=wanted)
    assert account["title_score"] == shared / of
    assert account["r_type"] == kind


def test_repeated_nouns_count_in_the_length_alone():
    wanted = product(nouns=("kettle", "kettle", "lid", "lid"))
    assert worth(wanted, wanted=wanted)[1]["title_score"] == 0.5
    assert worth(product("B2"), wanted=product(nouns=()))[1]["title_score"] == 0.2


def test_options_of_people_match_by_colour():
    goal = Goal("A1", "", ("easy clean",), ("bright red",), 30.0)
    assert worth(product(), goal, options=["dark red"])[1]["r_option"] == 1.0
    assert worth(product(), goal, options=["blue"])[1]["r_option"] == 0.0


def test_synthetic_options_are_tuples_in_which_colours_are_not_found():
    """The original's quirk: "wash" becomes the colour "ash" on the buyer's side alone, so no
    purchase can match."""
    goal = Goal("A1", "", ("easy clean",), (("style", "wash"),), 30.0)
    assert worth(product(), goal, options=["wash"])[1]["r_option"] == 0.0
    assert worth(product(), goal, options=["wash"], colors=())[1]["r_option"] == 1.0
    exact = Goal("A1", "", ("easy clean",), (("color", "red"),), 30.0)
    assert worth(product(), exact, options=["red"])[0] == 1.0


def test_every_option_counts():
    goal = Goal("A1", "", ("easy clean",), (("color", "red"), ("size", "large")), 30.0)
    assert worth(product(), goal, options=["red", "large"])[0] == 1.0
    reward, account = worth(product(), goal, options=["red"])
    assert (reward, account["r_option"], account["w_option"]) == (0.75, 0.5, 0.5)
    assert worth(product(), goal)[0] == 0.5
