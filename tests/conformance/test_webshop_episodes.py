"""Recordings of the original WebShop, replayed: every step, every reward, every price and goal."""

import gzip
import json

import pytest

from rro.environments.recordings import replay
from rro.webshop.catalogue import build_catalogue, open_catalogue
from rro.webshop.goals import draw_goals
from rro.webshop.raw_files import load_raw
from rro.webshop.reward import purchase_reward
from rro.webshop.verify import Replay, verify


@pytest.fixture(scope="module")
def recordings(shared):
    return shared / "conformance" / "webshop"


@pytest.fixture(scope="module")
def data(shared):
    return shared / "data" / "webshop-1k"


@pytest.fixture(scope="module", params=["memory", "folder"])
def catalogue(request, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("webshop") / "catalogue"
    return build_catalogue(load_raw(data), folder if request.param == "folder" else None)


@pytest.mark.parametrize("states", [(), (0,), (0, 1)])
def test_every_step_and_final_reward(data, recordings, states):
    files = [recordings / f"state_seed{seed}.json.gz" for seed in states]
    found = verify(data, recordings / "episodes.jsonl.gz", state=files)
    assert found["episodes"] == 300
    assert (
        found["steps"] == found["steps_equal"] == 2148
    )  # of 2195; the rest follows a step that raised
    assert found["finals"] == found["finals_equal"] == 248


def test_every_step_on_a_mapped_catalogue(data, recordings, tmp_path):
    build_catalogue(load_raw(data), tmp_path / "shop")
    shop = Replay(open_catalogue(tmp_path / "shop"))
    replay(recordings / "episodes.jsonl.gz", shop.episode, "WebShop")
    replay(recordings / "search.jsonl.gz", shop.search, "WebShop")
    counts = shop.counts
    assert (counts.steps, counts.steps_equal) == (2148, 2148)
    assert (counts.finals, counts.finals_equal) == (248, 248)
    assert (counts.searches, counts.searches_equal) == (300, 300)


@pytest.mark.parametrize("seed", [0, 1])
def test_prices_and_goals(catalogue, recordings, seed):
    state = json.loads(gzip.decompress((recordings / f"state_seed{seed}.json.gz").read_bytes()))
    drawn = draw_goals(catalogue, "synthetic", seed)
    assert drawn.prices == state["product_prices"]
    mine = [
        {
            "asin": goal.asin,
            "goal_options": dict(goal.options),
            "price_upper": goal.price_limit,
            "instruction_text": goal.instruction,
            "weight": weight,
        }
        for goal, weight in zip(drawn.goals, drawn.weights, strict=True)
    ]
    assert mine == state["goals"]


def test_goals_that_no_purchase_fulfils(catalogue):
    goals = draw_goals(catalogue, "synthetic", 0)
    rewards = [
        purchase_reward(
            catalogue, catalogue[goal.asin], goal, goals.prices[goal.asin], goal.option_values()
        )[0]
        for goal in goals.goals
    ]
    assert len(rewards) == 6910
    assert sum(reward < 1 for reward in rewards) == 458
