"""The generated shop has the form of WebShop's files, and its rewards tell right purchases from
wrong ones."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rro.environments.registry import open_benchmark
from rro.errors import UsageError
from rro.webshop import SampleOptions, WebShopBenchmark, WebShopOptions, open_webshop
from rro.webshop.products import parse_products
from rro.webshop.reward import purchase_reward
from rro.webshop.sample import MAX_PRODUCTS, OPTIONS, STYLES, sample_catalogue


@pytest.fixture(scope="module")
def shop() -> WebShopBenchmark:
    return open_webshop(WebShopOptions(catalogue="sample", results_per_page=4, system=""))


def test_same_seed_same_shop() -> None:
    assert sample_catalogue(3) == sample_catalogue(3)
    assert sample_catalogue(3) != sample_catalogue(4)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 80), st.integers(2, 4))
def test_every_entry_is_a_product_of_its_own(seed: int, products: int, styles: int) -> None:
    raw = sample_catalogue(seed, SampleOptions(products=products, styles=styles))
    parsed = list(parse_products(raw))
    assert len(parsed) == len(raw.products) == products
    assert len({product.title for product in parsed}) == products
    assert set(raw.attributes) == set(raw.nouns) == {product.asin for product in parsed}
    for product in parsed:
        assert raw.attributes[product.asin]["instruction"] == f"i want a {product.title}"
        values = [value for _, choices in product.options for value in choices]
        assert len(set(values)) == len(values)  # a click means one option


@pytest.mark.parametrize(
    ("products", "styles"),
    [(0, 2), (100, 2), (10, 0), (10, len(STYLES) + 1), (MAX_PRODUCTS + 1, 10)],
)
def test_more_than_its_words_allow_is_refused(products: int, styles: int) -> None:
    with pytest.raises(UsageError, match=r"environment\.options\.sample"):
        open_benchmark(
            "webshop",
            {"catalogue": "sample", "sample": {"products": products, "styles": styles}},
        )


LONG = WebShopOptions(
    catalogue="sample",
    reward="success",
    results_per_page=3,
    sample=SampleOptions(products=6, styles=3, options=10, values=2),
)


def test_no_word_stands_in_two_kinds_of_options_nor_hides_a_colour() -> None:
    values = [value for choices in OPTIONS.values() for value in choices]
    assert len(set(values)) == len(values)
    for value in set(values) - set(OPTIONS["color"]):
        assert not any(color in value for color in OPTIONS["color"])


def test_long_episodes_are_won_by_doing_all_and_lost_by_leaving_one_out() -> None:
    shop = open_webshop(LONG)
    environment = shop.make()
    for task in shop.tasks("test")[:40]:
        goal = shop.goals.goals[task.data]
        values = goal.option_values()
        assert len(values) == 10
        for clicks, reward in ((values, 1.0), (values[1:], 0.0), (values[:-1], 0.0)):
            environment.reset(task)
            environment.act(f"search[{shop.catalogue[goal.asin].query}]")
            while goal.asin not in environment.page.clickables.values():
                assert not environment.act("click[next >]").invalid
            for click in (goal.asin, *clicks):
                assert not environment.act(f"click[{click}]").invalid
            assert environment.act("click[buy now]").reward == reward


def test_too_many_goals_are_refused() -> None:
    with pytest.raises(UsageError, match="245760 goals"):
        open_benchmark("webshop", {"catalogue": "sample", "sample": {"options": 12, "values": 2}})


def test_largest_shop_has_distinct_ids() -> None:
    raw = sample_catalogue(0, SampleOptions(products=MAX_PRODUCTS, styles=len(STYLES)))
    assert len({entry["asin"] for entry in raw.products}) == MAX_PRODUCTS


def test_unknown_option_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="productz"):
        open_benchmark("webshop", {"catalogue": "sample", "sample": {"productz": 3}})


def test_train_and_test_goals_differ(shop: WebShopBenchmark) -> None:
    goals = shop.goals.goals
    train = {goals[task.data].instruction for task in shop.tasks("train")}
    test = {goals[task.data].instruction for task in shop.tasks("test")}
    assert len(train) + len(test) == len(goals) == 16 * len(shop.catalogue.products)
    assert not train & test


def _reward(shop: WebShopBenchmark, asin: str, index: int, values: list[str]) -> float:
    goals = shop.goals
    return purchase_reward(
        shop.catalogue, shop.catalogue[asin], goals.goals[index], goals.prices[asin], values
    )[0]


def test_right_purchase_is_worth_one_and_every_omission_costs(shop: WebShopBenchmark) -> None:
    for index, goal in enumerate(shop.goals.goals):
        color, size = goal.option_values()
        assert _reward(shop, goal.asin, index, [color, size]) == 1.0
        assert (
            _reward(shop, goal.asin, index, [color])
            == _reward(shop, goal.asin, index, [size])
            == 0.75
        )
        assert _reward(shop, goal.asin, index, []) == 0.5


def test_wrong_values_count_as_missing(shop: WebShopBenchmark) -> None:
    for index, goal in enumerate(shop.goals.goals):
        options = dict(shop.catalogue[goal.asin].options)
        wrong = [next(v for v in options[name] if v != value) for name, value in goal.options]
        assert _reward(shop, goal.asin, index, wrong) == 0.5


def test_another_style_loses_its_attribute_and_another_kind_everything(
    shop: WebShopBenchmark,
) -> None:
    for index, goal in enumerate(shop.goals.goals[:100]):
        wanted = shop.catalogue[goal.asin]
        for product in shop.catalogue.products:
            if product.asin == goal.asin:
                continue
            reward = _reward(shop, product.asin, index, list(goal.option_values()))
            same_price = shop.goals.prices[product.asin] <= goal.price_limit
            expected = (3 if same_price else 2) / 4 if product.query == wanted.query else 0.0
            assert reward == expected


def test_the_experts_search_shows_the_goal_on_its_first_page(shop: WebShopBenchmark) -> None:
    environment = shop.make()
    for task in shop.tasks("test"):
        goal = shop.goals.goals[task.data]
        environment.reset(task)
        query = shop.catalogue[goal.asin].query
        shown = environment.act(f"search[{' '.join([query, *goal.option_values()])}]").observation
        assert re.search(rf"\b{goal.asin}\b", shown)
        assert goal.asin.lower() in environment.page.clickables
