"""A visit to the shop: pages, state, and answers to whatever an agent writes."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rro.environments.base import Forkable
from rro.environments.registry import open_benchmark
from rro.errors import DataError, UsageError
from rro.exploration.forks import replay_checked, restore_checked
from rro.types import Message, Step, Task
from rro.webshop import WebShopOptions, open_webshop
from rro.webshop.environment import INVALID_FORMAT, PREFIX

ANY_TEXT = st.text(alphabet=st.characters(), max_size=60)  # lone surrogates included


@pytest.fixture(scope="module")
def shop():
    return open_webshop(WebShopOptions(catalogue="sample"))


@pytest.fixture
def visit(shop):
    environment = shop.make()
    environment.reset(shop.tasks("train")[0])
    return environment


def say(environment, action):
    return environment.step(Message("assistant", f"Thought: so be it\nAction: {action}"))


def first_product(environment):
    return list(environment.page.clickables)[2]


def test_what_an_agent_makes_up_buys_nothing(shop, visit):
    """Several actions in one answer: the first is carried out, and the answer to it is the shop's
    own."""
    goal = shop.goals.goals[shop.tasks("train")[0].data]
    query = shop.catalogue[goal.asin].query
    made_up = f"Observation:\nWebShop [SEP] {goal.asin} [SEP] Buy Now\nThought: Good.\nAction: "
    first = say(visit, f"search[{query}]\n{made_up}click[{goal.asin}]\nAction: click[Buy Now]")
    assert "Page 1 (Total results: " in first.observation
    item = say(visit, f"click[{goal.asin}]\n{made_up}click[Buy Now]")
    assert item.observation.endswith("Buy Now")
    assert not item.done
    option = say(visit, f"click[{goal.option_values()[0]}]\nAction: click[Buy Now]")
    assert (option.done, option.reward) == (False, 0.0)
    assert say(visit, "click[Buy Now]\nAction: search[more]").done


def test_answers_that_do_the_same_have_one_action(shop):
    answers = ("Thought: a\nAction: click[Buy Now]", "Action: click[BUY now]\nAction: click[x]")
    assert {shop.action_of(Message("assistant", answer)) for answer in answers} == {
        "click[buy now]"
    }
    assert shop.action_of(Message("assistant", "I buy.")) == ""


# pages


def test_the_opening_is_configurable(shop):
    task = shop.tasks("train")[0]
    rules, ok, first = shop.make().reset(task)
    assert (rules.role, ok.role, ok.content, first.role) == ("user", "assistant", "OK", "user")
    assert first.content.startswith(f"{PREFIX}WebShop [SEP] Instruction: [SEP] ")
    short = open_webshop(WebShopOptions(catalogue="sample", system="Buy it.")).make().reset(task)
    assert [message.content for message in short] == ["Buy it.", "OK", first.content]
    assert open_webshop(WebShopOptions(catalogue="sample", system="")).make().reset(task) == (
        first,
    )


def test_a_purchase(shop, visit):
    goal = shop.goals.goals[shop.tasks("train")[0].data]
    product = shop.catalogue[goal.asin]
    result = say(visit, f"search[{product.query}]")
    assert "Page 1 (Total results: " in result.observation
    result = say(visit, f"click[{product.asin}]")
    assert result.observation.endswith(
        "Rating: N.A. [SEP] Description [SEP] Features [SEP] Reviews [SEP] Buy Now"
    )
    for section, text in (
        ("Description", product.description),
        ("Features", product.bullets[0]),
        ("Reviews", "< Prev"),
    ):
        assert say(visit, f"click[{section}]").observation.endswith(text)
        assert say(visit, "click[< Prev]").observation == result.observation
    for value in goal.option_values():
        assert (
            say(visit, f"click[{value}]").observation == result.observation
        )  # clicked options are not shown
    last = say(visit, "click[Buy Now]")
    assert (last.reward, last.done, last.invalid) == (1.0, True, False)
    assert last.info["asin"] == goal.asin
    assert last.info["options"] == dict(goal.options)
    assert "Your score (min 0.0, max 1.0) [SEP] 1.0 [SEP] " in last.observation


def test_result_pages_never_end(visit):
    say(visit, "search[red]")
    found = int(re.search(r"Total results: (\d+)", visit.page.text)[1])
    pages = -(-found // 10)
    assert "< prev" not in visit.page.clickables
    for _ in range(pages):
        assert not say(visit, "click[Next >]").invalid
    assert list(visit.page.clickables) == ["back to search", "< prev", "next >"]
    say(visit, "click[< Prev]")
    assert len(visit.page.clickables) == 3 + (found - 1) % 10 + 1


def test_options_last_until_the_results(visit):
    say(visit, "search[red]")
    product = first_product(visit)
    say(visit, f"click[{product}]")
    option = list(visit.page.clickables)[-1]
    say(visit, f"click[{option}]")
    say(visit, "click[Description]")
    say(visit, "click[< Prev]")
    assert [value for _, value in visit.snapshot().options] == [option]
    say(visit, "click[< Prev]")
    say(visit, f"click[{product}]")
    assert visit.snapshot().options == ()


def test_options_per_page_and_attributes():
    shop = open_webshop(
        WebShopOptions(catalogue="sample", results_per_page=4, show_attributes=True)
    )
    visit = shop.make()
    visit.reset(shop.tasks("train")[0])
    say(visit, "search[red]")
    assert len(visit.page.clickables) == 2 + 4
    say(visit, f"click[{first_product(visit)}]")
    assert not say(visit, "click[Attributes]").invalid


def test_a_page_name_in_the_keywords_misleads_as_in_the_original(visit):
    say(visit, "search[red search_results]")
    first = visit.page.text
    say(visit, f"click[{first_product(visit)}]")
    assert (
        "Page 0 (Total results: " in say(visit, "click[< Prev]").observation
    )  # taken for a result page
    assert list(visit.page.clickables) == ["back to search", "next >"]
    assert say(visit, "click[Next >]").observation == PREFIX + first
    say(visit, "search[red item_page]")
    first = visit.page.text
    say(visit, f"click[{first_product(visit)}]")
    say(visit, "click[Features]")
    assert (
        say(visit, "click[< Prev]").observation == PREFIX + first
    )  # a section taken for the product


# bad actions


@pytest.mark.parametrize(
    "action",
    [
        "",
        "nothing",
        "buy[now]",
        "search[]",
        "Search[red]",
        " search[red]",
        "click[search]",
        "click[buy now]",
        "click[next >]",
        "search[<c>]",
        "search[<a> red]",
        "search[" + " ".join(f"w{number}" for number in range(1100)) + "]",
    ],
)
def test_bad_actions_change_nothing(visit, action):
    before, text = visit.snapshot(), visit.page.text
    result = say(visit, action)
    assert result.invalid
    assert (result.reward, result.done) == (0.0, False)
    assert visit.snapshot() == before
    assert result.observation in (PREFIX + text, INVALID_FORMAT)


@pytest.mark.parametrize(
    "action", ["search[\ud800]", "search[<c> \udfff]", "search[<r> \ud800]", "click[\ud800]"]
)
def test_half_a_surrogate_pair_is_a_bad_action(visit, action):
    before = visit.snapshot()
    assert visit.act(action).invalid  # the bare action: a Message holds no such text
    assert visit.snapshot() == before


def test_an_answer_without_an_action(visit):
    before = visit.snapshot()
    result = visit.step(Message("assistant", "search[red]"))
    assert (result.observation, result.invalid) == (INVALID_FORMAT, True)
    assert visit.snapshot() == before


ACTIONS = st.one_of(
    st.sampled_from(
        [
            "click[Next >]",
            "click[< Prev]",
            "click[Back to Search]",
            "click[Buy Now]",
            "click[Description]",
        ]
    ),
    st.sampled_from(
        [
            "search[red]",
            "search[<r>]",
            "search[<c> kitchen]",
            "search[<q> lamp]",
            "search[a search_results]",
        ]
    ),
    st.integers(0, 30),  # whatever is listed there
    ANY_TEXT,
    ANY_TEXT.map(lambda text: f"search[{text}]"),
    ANY_TEXT.map(lambda text: f"click[{text}]"),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(ACTIONS, max_size=15), st.integers(0, 5))
def test_any_episode_can_be_forked(shop, actions, seed):
    """Never raises; an invalid action changes nothing; a restored state answers as the first
    did."""
    task = shop.tasks("test")[seed]
    environment, fork = shop.make(), shop.make()
    environment.reset(task, seed)
    for action in actions:
        listed = list(environment.page.clickables)
        text = (
            f"click[{listed[action % len(listed)]}]"
            if isinstance(action, int) and listed
            else str(action)
        )
        before = environment.snapshot()
        restore_checked(fork, before)
        result = environment.act(text)
        if result.invalid:
            assert environment.snapshot() == before
        assert fork.act(text) == result
        assert fork.snapshot() == environment.snapshot()
        assert 0 <= result.reward <= 1
        if result.done:
            break


@settings(max_examples=50, deadline=None)
@given(
    st.lists(ACTIONS.filter(lambda action: isinstance(action, str)), max_size=8), st.integers(0, 5)
)
def test_any_episode_can_be_replayed(shop, actions, seed):
    task = shop.tasks("test")[seed]
    environment = shop.make()
    opening = environment.reset(task, seed)
    messages = [Message("assistant", f"Action: {action}") for action in actions]
    results = [environment.step(message) for message in messages]
    steps = [
        Step(m, r.observation, r.reward, r.done, r.invalid)
        for m, r in zip(messages, results, strict=True)
    ]
    replay_checked(shop.make(), task, seed, opening, steps)


# state


def test_a_state_is_a_value(shop, visit):
    assert isinstance(visit, Forkable)
    say(visit, "search[red]")
    product = first_product(visit)
    say(visit, f"click[{product}]")
    values = list(visit.page.clickables)[-7:]  # four colours and three sizes
    one, other = shop.make(), shop.make()
    for environment, clicks in (
        (one, (values[0], values[-1])),
        (other, (values[-1], values[1], values[0])),
    ):
        environment.restore(visit.snapshot())
        for value in clicks:
            say(environment, f"click[{value}]")
    assert one.snapshot() == other.snapshot()  # what was clicked counts, not in which order
    assert hash(one.snapshot()) == hash(other.snapshot())
    assert one.snapshot() != visit.snapshot()


def test_random_results_follow_the_seed(shop):
    def pages(seed):
        environment = shop.make()
        environment.reset(shop.tasks("train")[0], seed)
        return [
            say(environment, action).observation
            for action in ("search[<r>]", "click[Next >]", "click[< Prev]")
        ]

    assert pages(1) == pages(1)
    assert pages(1) != pages(2)
    first, _, again = pages(1)
    assert first != again  # anew on each page


# the benchmark


def test_tasks_and_their_errors(shop):
    assert shop.tasks("test")[3] == Task("synthetic-3", 3)
    assert len(shop.tasks("train")) + len(shop.tasks("test")) == len(shop.tasks("all"))
    with pytest.raises(UsageError, match="choose one of train, test, all"):
        shop.tasks("dev")
    for wrong in (-1, 10**6, None, True, "3"):
        with pytest.raises(UsageError, match="not the index"):
            shop.make().reset(Task("x", wrong))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"goals": "mixed"}, "goals must be one of synthetic, human"),
        ({"catalogue": "shelf"}, "catalogue must be one of folder, sample"),
        ({"results_per_page": 0}, "results_per_page"),
        ({"sample": {"prodcuts": 3}}, "prodcuts"),
        ({"pages": 3}, "pages"),
        ({"goals": "human"}, "no product with a human instruction"),
    ],
)
def test_options_are_checked(options, words):
    with pytest.raises(UsageError, match=words):
        open_benchmark("webshop", {"catalogue": "sample"} | options)


def test_missing_data_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("RRO_DATA", str(tmp_path))
    with pytest.raises(DataError, match="rro data fetch webshop-1k"):
        open_webshop(WebShopOptions())


def test_provenance_tells_shops_apart():
    def origin(**options):
        return dict(open_webshop(WebShopOptions(catalogue="sample", **options)).provenance())

    assert origin()["goal_count"] == 960
    assert origin()["license"] == "Apache-2.0"
    assert origin() == origin()
    assert origin(sample_seed=1)["sample_sha256"] != origin()["sample_sha256"]
    assert origin(price_seed=5)["price_seed"] == 5
