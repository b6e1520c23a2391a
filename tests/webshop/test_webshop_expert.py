"""The scripted buyer: it reaches its goal, errs when told to, and depends on nothing but messages
and seeds."""

import asyncio

import pytest

from rro.types import Message, SamplingParams, Source
from rro.webshop import WebShopOptions, open_webshop

PARAMS = SamplingParams()


@pytest.fixture(scope="module")
def shop():
    return open_webshop(WebShopOptions(catalogue="sample", results_per_page=4))


def answer(expert, messages, n=1, seed=0):
    return [
        completion.message for completion in asyncio.run(expert.sample(messages, n, PARAMS, seed))
    ]


def play(shop, task, noise=0.0, seed=0, messages=None, environment=None):
    """Final reward, and the messages."""
    environment = environment or shop.make()
    messages = messages or list(environment.reset(task, seed))
    expert = shop.expert(task, noise, seed)
    for turn in range(shop.max_steps):
        (action,) = answer(expert, messages, seed=turn)
        result = environment.step(action)
        messages += [action, Message("user", result.observation)]
        if result.done:
            return result.reward, messages
    return 0.0, messages


def mean(shop, noise, count=60):
    return sum(play(shop, task, noise)[0] for task in shop.tasks("train")[:count]) / count


def test_it_reaches_every_goal_of_the_sample_shop(shop):
    assert mean(shop, 0.0) == 1.0


def test_noise_costs_reward(shop):
    assert 0.2 < mean(shop, 0.5) < mean(shop, 0.2) < 0.98


def test_answers_have_the_agents_form(shop):
    _, messages = play(shop, shop.tasks("train")[0])
    answers = [message for message in messages[3:] if message.role == "assistant"]
    assert all(message.source is Source.EXPERT for message in answers)
    assert all(message.content.startswith("Thought: ") for message in answers)
    assert all(message.content.count("\nAction: ") == 1 for message in answers)
    assert answers[-1].content.endswith("click[Buy Now]")


def test_the_same_messages_and_seed_give_the_same_answers(shop):
    task = shop.tasks("train")[1]
    opening = list(shop.make().reset(task))
    first, second = (shop.expert(task, 0.5, 0) for _ in range(2))
    assert answer(first, opening, 5, seed=3) == answer(second, opening, 5, seed=3)
    many = {message.content for seed in range(20) for message in answer(first, opening, 3, seed)}
    assert len(many) == 2  # the keywords, and the vaguer ones
    assert {message.content for message in answer(shop.expert(task, 0.0, 0), opening, 9)} < many


def test_it_takes_over_where_another_went_astray(shop):
    task = shop.tasks("train")[2]
    goal = shop.goals.goals[task.data]
    environment = shop.make()
    messages = list(environment.reset(task))

    def other(action):
        messages.append(Message("assistant", f"Action: {action}"))
        messages.append(Message("user", environment.step(messages[-1]).observation))

    other("search[red]")
    other("buy something")
    wrong = next(
        asin for asin in environment.page.clickables.values() if asin not in (None, goal.asin)
    )
    other(f"click[{wrong}]")
    messages.append(Message("assistant", "no action"))
    messages.append(Message("user", environment.step(messages[-1]).observation))
    reward, messages = play(shop, task, messages=messages, environment=environment)
    assert reward == 1.0
    assert any(message.content.endswith("click[< Prev]") for message in messages)


def test_it_reads_a_section_and_goes_back(shop):
    task = shop.tasks("train")[3]
    goal = shop.goals.goals[task.data]
    environment = shop.make()
    messages = list(environment.reset(task))
    first = goal.option_values()[0]
    for action in (
        f"search[{shop.catalogue[goal.asin].query}]",
        f"click[{goal.asin}]",
        f"click[{first}]",
        "click[Features]",
    ):
        messages.append(Message("assistant", f"Action: {action}"))
        messages.append(Message("user", environment.step(messages[-1]).observation))
    assert answer(shop.expert(task, 0.0, 0), messages)[0].content.endswith("click[< Prev]")
    reward, messages = play(shop, task, messages=messages, environment=environment)
    assert reward == 1.0
    clicks = [
        message.content for message in messages if message.content.endswith(f"click[{first}]")
    ]
    assert len(clicks) == 1  # it remembers what was chosen before


@pytest.mark.slow
def test_it_reaches_what_can_be_reached_on_the_thousand_products(shared):
    shop = open_webshop(WebShopOptions(data=shared / "data" / "webshop-1k"))
    rewards = [play(shop, task)[0] for task in shop.tasks("train")[:500]]
    assert sum(rewards) / 500 > 0.98
    assert sum(reward == 1.0 for reward in rewards) / 500 > 0.9
