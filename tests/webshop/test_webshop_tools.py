"""WebShop by tools: the same pages and rewards as in text."""

import pytest
from fakes import expert_episode

from rro.environments import contract
from rro.tool_calls import tool_calls, tools_of
from rro.types import Message
from rro.webshop import WebShopOptions, open_webshop
from rro.webshop.environment import PREFIX, actions_of


@pytest.fixture(scope="module")
def shops():
    return tuple(
        open_webshop(WebShopOptions(catalogue="sample", tools=tools)) for tools in (False, True)
    )


def call(name, **arguments):
    return Message("assistant", "", tool_calls=tool_calls([(name, arguments, None)]))


def as_call(action):
    (word, argument) = actions_of(action)[0]
    return call(word, **{"query" if word == "search" else "element": argument})


@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_the_same_actions_earn_the_same_by_tools_as_in_text(shops, noise):
    text, tools = shops
    outcomes = set()
    for task in text.tasks("train")[:6]:
        episode, environment = expert_episode(text, task, noise), tools.make()
        opening = contract.reset(environment, task, 0)
        assert [tool["function"]["name"] for tool in tools_of(opening)] == ["search", "click"]
        assert episode.opening[-1].content.removeprefix(PREFIX) in opening[-1].content
        for step in episode.steps:
            again = contract.step(environment, as_call(step.action))
            assert PREFIX + again.observation == step.observation
            assert (again.reward, again.done) == (step.reward, step.done)
            assert tools.action_of(again.action) == text.action_of(step.action)
        outcomes.add(episode.reward)
    assert max(outcomes) == 1.0


def test_the_expert_calls_tools(shops):
    tools = shops[1]
    for task in tools.tasks("train")[:6]:
        episode = expert_episode(tools, task, 0.0)
        assert episode.reward == 1.0
        assert all(step.action.tool_calls for step in episode.steps)


@pytest.mark.parametrize(
    "action",
    [
        call("search", query=""),
        call("search", query="\nred"),
        call("click", element="no such button"),
        call("click", element="search"),
        call("click", element=""),
        call("click", query="buy now"),
        call("buy"),
        call("search", query=["a"]),
        Message("assistant", "Action: search[red]"),
    ],
)
def test_a_bad_call_leaves_the_page(shops, action):
    tools = shops[1]
    environment = tools.make()
    contract.reset(environment, tools.tasks("train")[0], 0)
    before = environment.snapshot()
    step = contract.step(environment, action)
    assert step.invalid
    assert environment.snapshot() == before
