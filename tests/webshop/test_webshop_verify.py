"""The replay of recordings: it counts right, sees every difference, and names the line of a broken
file."""

import gzip
import json
import random

import pytest

from rro.errors import DataError
from rro.types import Task
from rro.webshop import WebShopOptions, open_webshop
from rro.webshop.raw_files import COLOR_FILE, HUMAN_FILE, ITEM_FILES, NOUN_FILE
from rro.webshop.sample import sample_catalogue
from rro.webshop.verify import run_verify, verify


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The sample shop as a data folder, with one human instruction."""
    folder = tmp_path_factory.mktemp("shop")
    raw = sample_catalogue(0)
    product = raw.products[0]
    values = [option[0]["value"] for option in product["customization_options"].values()]
    wish = {
        "instruction": "get it.",
        "instruction_attributes": ["x"],
        "instruction_options": values,
    }
    parts = (raw.products, raw.attributes, {product["asin"]: [wish]}, raw.nouns, raw.colors)
    for name, part in zip((*ITEM_FILES[0], HUMAN_FILE, NOUN_FILE, COLOR_FILE), parts, strict=True):
        (folder / name).write_text(json.dumps(part))
    return folder


def available(environment):
    return {
        "has_search_bar": environment.page.search_bar,
        "clickables": list(environment.page.clickables),
    }


def record(data, actions, kind="synthetic", seed=0, goal=0, **reset):
    """An episode in the form of the recordings, as this shop answers it."""
    shop = open_webshop(WebShopOptions(data=data, goals=kind, price_seed=seed))
    environment = shop.make()
    environment.reset(Task("x", goal))
    options = shop.goals.goals[goal].options
    episode = {
        "ep": 0,
        "seed": seed,
        "show_attrs": False,
        "reset": {"session": goal, "random_seed": None} | reset,
        "session_id": str(goal),
        "goal_idx": goal,
        "goal": {"goal_options": dict(options) if kind == "synthetic" else list(options)},
        "obs0": environment.page.text,
        "avail0": available(environment),
        "steps": [],
        "finals": [],
    }
    for number, action in enumerate(actions):
        result = environment.act(action, 11)
        episode["steps"].append(
            {
                "a": action,
                "random_seed": 11,
                "obs": result.observation,
                "r": result.reward,
                "done": result.done,
            }
            | {"avail": available(environment)}
        )
        if result.done:
            final = {"step": number, "reward": result.reward, "info": dict(result.info["account"])}
            episode["finals"].append(
                final | {key: result.info[key] for key in ("asin", "options", "price")}
            )
    return episode


def purchase(data, kind="synthetic", seed=0, goal=0):
    shop = open_webshop(WebShopOptions(data=data, goals=kind, price_seed=seed))
    wanted = shop.goals.goals[goal]
    query = shop.catalogue[wanted.asin].query
    clicks = (wanted.asin, *wanted.option_values(), "Buy Now")
    return [f"search[{query}]", *(f"click[{name}]" for name in clicks)]


def write(file, *records):
    text = "".join(json.dumps(item) + "\n" for item in records)
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())
    return file


def counts(data, tmp_path, *records):
    found = verify(data, write(tmp_path / "episodes.jsonl.gz", *records))
    return tuple(
        found[key] for key in ("episodes", "steps", "steps_equal", "finals", "finals_equal")
    )


def test_equal_recordings_count_equal(data, tmp_path):
    bought = record(data, purchase(data))
    human = record(data, purchase(data, "human", 1), "human", 1)
    strolled = record(data, ["search[<r>]", "click[Next >]", "nonsense"], goal=7)
    assert counts(data, tmp_path, bought, human, strolled) == (3, 13, 13, 2, 2)


@pytest.mark.parametrize(
    ("change", "steps", "finals"),
    [
        (lambda e: e.update(obs0="else"), 4, 1),
        (lambda e: e["avail0"].update(has_search_bar=False), 4, 1),
        (lambda e: e["steps"][2].update(obs="else"), 4, 1),
        (lambda e: e["steps"][2].update(r=0.5), 4, 1),
        (lambda e: e["steps"][2].update(done=True), 4, 1),
        (lambda e: e["steps"][1]["avail"]["clickables"].reverse(), 4, 1),
        (lambda e: e["finals"][0].update(price=0), 5, 0),
        (lambda e: e["finals"][0].update(options={}), 5, 0),
        (lambda e: e["finals"][0].update(asin="0"), 5, 0),
        (lambda e: e["finals"][0].update(reward=0), 5, 0),
        (lambda e: e["finals"][0]["info"].update(r_type=0.5), 5, 0),
        (lambda e: e["finals"][0].update(step=1), 5, 0),
    ],
)
def test_every_difference_is_seen(data, tmp_path, change, steps, finals):
    episode = record(data, purchase(data))
    change(episode)
    assert counts(data, tmp_path, episode) == (1, 5, steps, 1, finals)


def test_an_episode_counts_up_to_the_step_that_raised(data, tmp_path):
    episode = record(data, purchase(data))
    episode["steps"][2] = {"a": "search[<c>]", "exc": "IndexError"}
    assert counts(data, tmp_path, episode) == (1, 2, 2, 0, 0)


def test_goals_that_were_drawn_are_drawn_again(data, tmp_path):
    shop = open_webshop(WebShopOptions(data=data))
    goal = shop.goals.draw(random.Random(5))
    named = record(data, ["search[red]"], goal=goal, session="someone", random_seed=5) | {
        "session_id": "someone"
    }
    again = named | {"reset": {"session": "someone", "random_seed": None}}
    stream = random.Random(6)
    stream.choices("abcdefghijklmnopqrstuvwxyz", k=10)
    goal = shop.goals.draw(stream)
    nameless = record(data, ["search[red]"], goal=goal, session=None, random_seed=6) | {
        "session_id": "abc"
    }
    last = record(data, ["search[red]"], goal=959) | {"reset": {"session": -1, "random_seed": None}}
    assert counts(data, tmp_path, named, again, nameless, last) == (4, 4, 4, 0, 0)


def test_searches_compare_in_order(data, tmp_path):
    catalogue = open_webshop(WebShopOptions(data=data)).catalogue
    hits = [
        [catalogue.products[place].asin, score]
        for place, score in catalogue.index.search("red kettle", 50)
    ]
    file = write(
        tmp_path / "s.jsonl",
        {"q": "red kettle", "hits": hits},
        {"q": "red kettle", "hits": hits[::-1]},
    )
    found = verify(data, search=file)
    assert (found["searches"], found["searches_equal"], found["episodes"]) == (2, 1, 0)


def test_recorded_prices_are_used(data, tmp_path):
    episode = record(data, purchase(data), seed=0)
    goals = open_webshop(WebShopOptions(data=data)).goals
    recorded = [
        {"asin": g.asin, "instruction_text": g.instruction, "price_upper": g.price_limit}
        for g in goals.goals
    ]
    state = {"seed": 0, "product_prices": dict(goals.prices), "goals": recorded}
    file = write(tmp_path / "episodes.jsonl", episode)
    assert verify(data, file, state=[write(tmp_path / "state.json", state)])["finals_equal"] == 1
    state["product_prices"] = dict.fromkeys(goals.prices, 1e9)
    assert verify(data, file, state=[write(tmp_path / "state.json.gz", state)])["finals_equal"] == 0
    with pytest.raises(DataError, match="959 goals"):
        verify(data, file, state=[write(tmp_path / "state.json", state | {"goals": recorded[1:]})])
    with pytest.raises(DataError, match="not a recording of prices and goals"):
        verify(data, file, state=[write(tmp_path / "state.json", {"prices": 3})])


def test_one_line_of_json(data, tmp_path, capsys):
    file = write(tmp_path / "episodes.jsonl", record(data, purchase(data)))
    assert run_verify(data, file) is True
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {
        "episodes": 1,
        "steps": 5,
        "steps_equal": 5,
        "finals": 1,
        "finals_equal": 1,
        "searches": 0,
        "searches_equal": 0,
    }
    assert run_verify(data, write(file, record(data, purchase(data)) | {"obs0": "else"})) is False


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"seed": 0}\n', "line 1: not a recording"),
        (b"\n\n{oops\n", "line 3: not JSON"),
        (b"[]\n", "line 1: not a recording"),
        (b"\x1f\x8b\x08broken", "cannot be read"),
    ],
)
def test_broken_files_are_named(data, tmp_path, content, words):
    file = tmp_path / "episodes.jsonl"
    file.write_bytes(content)
    with pytest.raises(DataError, match=f"episodes.jsonl.*{words}"):
        verify(data, file)
    with pytest.raises(DataError, match="cannot be read"):
        verify(data, tmp_path / "nothing.jsonl")


def test_a_goal_out_of_range_names_the_line(data, tmp_path):
    episode = record(data, ["search[red]"]) | {"reset": {"session": 960, "random_seed": None}}
    with pytest.raises(DataError, match="line 1: not a recording"):
        verify(data, write(tmp_path / "e.jsonl", episode))
