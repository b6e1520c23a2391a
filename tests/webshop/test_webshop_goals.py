"""Goals: how they are drawn, ordered, limited and split."""

import json
import random
from collections import Counter
from dataclasses import replace

import pytest

from rro.errors import DataError
from rro.webshop.catalogue import build_catalogue
from rro.webshop.goals import (
    NO_LIMIT,
    Goal,
    GoalSet,
    draw_goals,
    limit_wording,
    price_limit,
    split_goals,
    with_state,
)
from rro.webshop.sample import sample_catalogue


@pytest.fixture(scope="module")
def raw():
    raw = sample_catalogue(0)
    asin = raw.products[0]["asin"]
    people = [
        {
            "instruction": "buy it.",
            "instruction_attributes": ["a"],
            "instruction_options": ["red", "wide"],
        },
        {"instruction": "no attributes", "instruction_attributes": [], "instruction_options": []},
        {
            "instruction": "...and this...",
            "instruction_attributes": ["a", "b"],
            "instruction_options": [],
        },
    ]
    return replace(raw, human={asin: people})


@pytest.fixture(scope="module")
def shop(raw):
    return build_catalogue(raw)


def test_one_goal_for_each_combination_of_options(raw, shop):
    drawn = draw_goals(shop, "synthetic", 0)
    product = shop.products[3]
    mine = [goal for goal in drawn.goals if goal.asin == product.asin]
    colors, sizes = (values for _, values in product.options)
    assert {goal.options for goal in mine} == {
        (("color", c), ("size", s)) for c in colors for s in sizes
    }
    assert len({goal.price_limit for goal in mine}) == 1
    goal = mine[0]
    wish = f" with color: {goal.option_values()[0]}, and size: {goal.option_values()[1]}"
    assert goal.instruction.endswith(f"{wish}, and price lower than {goal.price_limit:.2f} dollars")


def test_the_order_depends_on_the_number_of_goals_alone(raw, shop):
    one, other = (draw_goals(shop, "synthetic", seed) for seed in (0, 1))
    assert [(goal.asin, goal.options) for goal in one.goals] == [
        (goal.asin, goal.options) for goal in other.goals
    ]
    assert [goal.price_limit for goal in one.goals] != [goal.price_limit for goal in other.goals]
    assert list(draw_goals(shop, "synthetic", 0).goals) == list(one.goals)


def test_human_goals(raw, shop):
    drawn = draw_goals(shop, "human", 0)
    assert len(drawn.goals) == 2  # the one without attributes is dropped
    texts = {goal.instruction.split(", and price")[0]: goal for goal in drawn.goals}
    assert set(texts) == {"buy it", "and this"}
    assert texts["buy it"].option_values() == ("red", "wide")


def test_limits():
    stream = random.Random(0)
    seen = {price_limit(34.0, stream) for _ in range(200)}
    assert seen == {50.0, 60.0, 70.0}  # the larger of two of 40, 50, 60, 70
    # One multiple of ten is left, which is not enough to draw two.
    assert price_limit(985.0, stream) == NO_LIMIT
    assert price_limit(975.0, stream) == 990.0
    assert price_limit(980.0, stream) == NO_LIMIT
    assert limit_wording(NO_LIMIT) == ""
    assert limit_wording(990.0) == ", and price lower than 990.00 dollars"


def test_a_price_range_is_drawn(shop, raw):
    products = [{**product, "pricing": "$5 - $9"} for product in raw.products]
    ranged = replace(raw, products=products)
    prices = draw_goals(build_catalogue(ranged), "synthetic", 3).prices
    assert all(5 <= price <= 9 for price in prices.values())
    assert len(set(prices.values())) == len(prices)


def test_drawing_a_goal_is_off_by_one_as_in_the_original():
    goals = (Goal("a", "", ("a",), (), 1.0),) * 3
    stream = random.Random(0)
    counts = Counter(
        GoalSet("synthetic", goals, {}, (3.0, 1.0, 1.0)).draw(stream) for _ in range(4000)
    )
    assert set(counts) == {1, 2}
    assert 0.57 < counts[1] / 4000 < 0.63  # the weight of goal 0


def goal_set(count, kind="synthetic"):
    return GoalSet(kind, (Goal("a", "", ("x",), (), 1.0),) * count, {})


@pytest.mark.parametrize(("count", "tested"), [(6910, 500), (1080, 216), (13, 2), (3, 0)])
def test_splits_by_rule(count, tested):
    splits = split_goals(goal_set(count))
    assert splits["test"] == range(tested)
    assert splits["train"] == range(tested, count)
    assert splits["all"] == range(count)


def test_splits_from_a_file_are_for_human_goals(tmp_path):
    file = tmp_path / "splits.json"
    file.write_text(json.dumps({"train": [5, 3], "test": [0]}))
    assert split_goals(goal_set(6, "human"), tmp_path)["train"] == (5, 3)
    assert split_goals(goal_set(6, "human"), tmp_path)["test"] == (0,)
    assert split_goals(goal_set(6), tmp_path)["test"] == range(1)
    assert split_goals(goal_set(6), tmp_path)["train"] == range(1, 6)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "expected"),
        ('{"train": []}', "test"),
        ("[]", "expected"),
        ('{"train": [6], "test": []}', "train lists 6"),
        ('{"train": [], "test": [true]}', "test lists True"),
    ],
)
def test_bad_split_files(tmp_path, content, words):
    (tmp_path / "splits.json").write_text(content)
    with pytest.raises(DataError, match=words):
        split_goals(goal_set(6, "human"), tmp_path)


def test_a_recorded_drawing_replaces_prices_and_limits(raw, shop):
    drawn = draw_goals(shop, "synthetic", 0)
    recorded = [
        {"asin": g.asin, "instruction_text": "x", "price_upper": 7.0, "weight": 2.0}
        for g in drawn.goals
    ]
    state = {"seed": 0, "product_prices": {"a": 1.0}, "goals": recorded}
    replaced = with_state(drawn, state, "file")
    assert replaced.prices == {"a": 1.0}
    assert replaced.goals[5] == replace(drawn.goals[5], instruction="x", price_limit=7.0)
    assert list(replaced.weights) == [2.0] * 960
    with pytest.raises(DataError, match="file: 959 goals"):
        with_state(drawn, {**state, "goals": recorded[1:]}, "file")
    with pytest.raises(DataError, match="goal 0 is for elsewhere"):
        with_state(
            drawn, {**state, "goals": [{**recorded[0], "asin": "elsewhere"}, *recorded[1:]]}, "file"
        )


def test_instructions_of_another_form(raw, shop):
    broken = replace(raw, human={raw.products[0]["asin"]: [{"instruction": "x"}]})
    with pytest.raises(DataError, match="instruction_attributes"):
        draw_goals(build_catalogue(broken), "human", 0)
    with pytest.raises(DataError, match="no product with a human instruction"):
        draw_goals(build_catalogue(replace(raw, human={})), "human", 0)
