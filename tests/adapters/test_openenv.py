"""OpenEnv both ways, with the real package: rro serves benchmarks to OpenEnv's own client, and
plays what OpenEnv's servers serve."""

import asyncio
import contextlib
import importlib.util
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
from fakes import explore, finished_trees, fresh_journal, make_context, pairs_of
from report_toys import steps_in_report

from rro.cli.main import main
from rro.environments.base import Forkable, TaskList
from rro.environments.registry import open_benchmark
from rro.errors import RroError, UsageError
from rro.exploration.strategies.fixed_size import FixedSizeExploration
from rro.policies.scripted import ScriptedPolicy
from rro.types import Message

if importlib.util.find_spec("openenv") is None:
    pytest.skip("the extra openenv is not installed", allow_module_level=True)

ROOT = Path(__file__).parents[2]
SHOP = {
    "catalogue": "sample",
    "sample": {"products": 12},
    "results_per_page": 3,
}
WORDS = [
    "webshop",
    "environment.options.catalogue=sample",
    "environment.options.sample.products=12",
    "environment.options.results_per_page=3",
]


@contextlib.contextmanager
def served(*command):
    """The address of a server in a process of its own."""
    paths = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
        text=True,
    )
    try:
        line = process.stdout.readline()
        yield re.search(r"http://\S+", line)[0]
    finally:
        process.terminate()
        assert process.wait(60) is not None


@pytest.fixture(scope="module")
def shop():
    with served("-m", "rro", "serve-env", *WORDS, "--port", "0", "--sessions", "40") as url:
        yield url


@contextlib.contextmanager
def counting():
    """The address of a Counter's server."""
    import uvicorn
    from openenv_toys import counting_app

    server = uvicorn.Server(uvicorn.Config(counting_app(), log_level="error"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def own_client(url):
    """OpenEnv's own client."""
    from openenv.core import GenericEnvClient

    return GenericEnvClient(base_url=url)


@pytest.fixture(scope="module")
def counter():
    with counting() as url:
        yield url


def steps_of(environment, task, texts):
    """What an environment of rro's answers, without a model."""
    from rro.environments.coroutines import settled

    opening = [message.content for message in settled(environment.reset(task, 0))]
    answers = []
    for text in texts:
        result = settled(environment.step(Message("assistant", text)))
        answers.append((result.observation, result.reward, result.done, result.invalid))
        if result.done:
            break
    settled(environment.close())
    return opening, answers


TEXTS = ["Action: search[shirt]", "nothing", "Action: click[Back to Search]", "Action: search[red]"]


def test_openenvs_own_client_plays_our_benchmark(shop):
    benchmark = open_benchmark("webshop", SHOP)
    task = benchmark.tasks("test")[1]
    opening, answers = steps_of(benchmark.make(), task, TEXTS)
    with own_client(shop).sync() as client:
        result = client.reset(seed=0, split="test", index=1)
        assert [message["content"] for message in result.observation["messages"]] == opening
        for text, (observation, reward, done, _) in zip(TEXTS, answers, strict=True):
            result = client.step({"message": text})
            assert result.observation["text"] == observation
            assert (result.reward, result.done) == (reward, done)
        assert client.state()["task"] == task.id
        assert "snapshot" not in result.metadata
        with pytest.raises(RuntimeError, match="has no task 'x'"):
            client.reset(task="x")
        with pytest.raises(RuntimeError, match="from 0 on"):
            client.reset(index=10**9)


def test_a_split_that_there_is_not_is_told(shop):
    answer = httpx.post(f"{shop}/webshop/tasks", json={"split": "tset"})
    assert answer.status_code == 400
    assert "tset" in answer.json()["detail"]


def test_the_client_of_rro_gives_the_same_episodes(shop):
    benchmark = open_benchmark("openenv", {"url": shop})
    own = open_benchmark("webshop", SHOP)
    for split in ("train", "test"):
        assert len(benchmark.tasks(split)) == len(own.tasks(split))
    for place in (0, 3):
        ours, theirs = own.tasks("train")[place], benchmark.tasks("train")[place]
        expected = steps_of(own.make(), ours, TEXTS)
        assert steps_of(benchmark.make(), theirs, TEXTS) == expected


def any_click(messages, rng):
    """The expert's kind of action: some product, or to buy."""
    names = re.findall(r"B\w{9}|Buy Now", messages[-1].content)
    return f"Action: click[{rng.choice(names)}]" if names else "Action: search[shirt]"


def trees(benchmark, folder):
    """Pairs and outcomes of two tasks."""
    benchmark.max_steps = 4
    listed = benchmark.tasks("train")[:2]
    benchmark.tasks = lambda split: listed
    with fresh_journal(folder, f"{benchmark.name}.jsonl") as journal:
        policy, strategy = ScriptedPolicy(any_click), FixedSizeExploration()
        assert explore(strategy, make_context(benchmark, policy, journal, step_timeout=60.0)) == []
        return {
            key: (pairs_of(strategy, tree), tree.outcomes(), tree.usage().environment_steps)
            for key, tree in finished_trees(journal).items()
        }


def test_snapshots_at_the_server_give_the_same_trees(shop, tmp_path):
    benchmark = open_benchmark("openenv", {"url": shop})
    assert isinstance(benchmark.make(), Forkable)
    grown = trees(benchmark, tmp_path)
    assert grown == trees(open_benchmark("webshop", SHOP), tmp_path)
    assert len(grown) == 2


def test_a_server_of_others_is_forked_by_replay(counter, tmp_path):
    options = {"url": counter, "outcome": "return", "arguments": {"start": 1}, "max_steps": 6}
    benchmark = open_benchmark("openenv", options)
    assert not isinstance(benchmark.make(), Forkable)
    listed = benchmark.tasks("train")[:2]
    benchmark.tasks = lambda split: listed
    policy = ScriptedPolicy(lambda messages, rng: rng.choice(["up", "stay"]))
    with fresh_journal(tmp_path) as journal:
        assert explore(FixedSizeExploration(), make_context(benchmark, policy, journal)) == []
        grown = list(finished_trees(journal).values())
    assert {tree.root.opening[0].content for tree in grown} == {"at 1", "at 2"}
    values = {value for tree in grown for value in tree.outcomes()}
    assert values <= {0.5, 0.75, 1.0, 1.25, 1.5}
    assert len(values) > 1


def test_what_the_server_raises_is_a_failure_of_the_episode(counter):
    environment = open_benchmark("openenv", {"url": counter}).make()
    with pytest.raises(RuntimeError, match="the server's fault"):
        steps_of(
            environment, open_benchmark("openenv", {"url": counter}).tasks("train")[0], ["break"]
        )


def test_an_episode_that_ends_without_a_reward_has_no_outcome(counter):
    benchmark = open_benchmark("openenv", {"url": counter})
    with pytest.raises(ValueError, match="no reward: the outcome is missing"):
        steps_of(benchmark.make(), benchmark.tasks("train")[0], ["up", "leave"])


def test_a_server_that_is_gone_ends_the_exploration_and_changes_no_task(tmp_path, monkeypatch):
    monkeypatch.setattr("rro.adapters.openenv_client.WAITS", (0.01,))
    with counting() as url:
        benchmark = open_benchmark("openenv", {"url": url})
        listed = benchmark.tasks("train")[:20]
    with pytest.raises(UsageError, match="no OpenEnv server answers"):
        benchmark.tasks("train")
    benchmark.tasks = lambda split: listed
    policy = ScriptedPolicy(lambda messages, rng: "up")
    with fresh_journal(tmp_path) as journal:
        with pytest.raises(RroError, match=r"no longer answers .*: start it again, and resume"):
            explore(FixedSizeExploration(), make_context(benchmark, policy, journal))
        assert not list(journal.records("task"))


def test_sessions_are_isolated_and_bounded(shop):
    async def play(index):
        async with own_client(shop) as client:
            first = await client.reset(seed=0, split="train", index=index)
            seen = [first.observation["text"]]
            for _ in range(5):
                await asyncio.sleep(0.01)
                seen.append(
                    (await client.step({"message": f"search[{index}]"})).observation["text"]
                )
            return seen

    async def crowd():
        apart = [await play(index) for index in range(8)]
        together = await asyncio.gather(*map(play, range(8)))
        clients = [own_client(shop) for _ in range(41)]
        for client in clients[:40]:
            await client.connect()
            await client.reset(seed=0)
        await clients[40].connect()
        with pytest.raises(RuntimeError, match="CAPACITY"):
            await clients[40].reset(seed=0)
        for client in clients:
            await client.close()
        return apart, list(together)

    apart, together = asyncio.run(crowd())
    assert apart == together


@pytest.mark.parametrize("action", [{}, {"message": 3}, {"message": "x", "extra": 1}])
def test_a_bad_message_ends_no_session(shop, action):
    with own_client(shop).sync() as client:
        client.reset(seed=0)
        with pytest.raises(RuntimeError, match="VALIDATION_ERROR"):
            client.step(action)
        assert client.step({"message": "search[shirt]"}).done is False


def test_no_server_is_one_sentence():
    with pytest.raises(UsageError, match="no OpenEnv server answers at http"):
        open_benchmark("openenv", {"url": "http://127.0.0.1:9"})


def test_a_port_that_is_taken_is_one_sentence(shop, capsys):
    port = shop.rpartition(":")[2]
    assert main(["serve-env", *WORDS, "--port", port]) == 2
    assert f"cannot listen on 127.0.0.1, port {port}: " in capsys.readouterr().err


def test_threads_end(shop):
    before = threading.active_count()
    benchmark = open_benchmark("openenv", {"url": shop})
    for place in range(3):
        steps_of(benchmark.make(), benchmark.tasks("train")[place], TEXTS[:1])
    assert threading.active_count() <= before + 1


def test_the_report_shows_trees_and_info_of_servers(shop, counter, tmp_path):
    benchmark = open_benchmark("openenv", {"url": counter, "train_tasks": 2, "max_steps": 4})
    policy = ScriptedPolicy(lambda messages, rng: rng.choice(["up", "stay"]))
    shown = steps_in_report(tmp_path / "counter", benchmark, policy, FixedSizeExploration(2, 1))
    assert all(step["observation"] == f"at {step['info']['count']}" for step in shown)

    ours = open_benchmark("openenv", {"url": shop, "max_steps": 4})
    ours = TaskList("openenv", ours.make, {"train": ours.tasks("train")[:1]}, max_steps=4)
    plan = ["search[{thing}]", "click[{product}]", "click[Buy Now]"]

    def buy(messages, rng):
        turn = sum(message.role == "assistant" for message in messages) - 1
        page = messages[-1].content
        thing = re.search("i want a (.*?) with", page)[1]
        product = re.search(r"Next > \[SEP\] (\w+)|$", page)[1]
        return f"Action: {plan[min(turn, 2)].format(thing=thing, product=product)}"

    policy = ScriptedPolicy(buy)
    shown = steps_in_report(tmp_path / "shop", ours, policy, FixedSizeExploration(1, 1))
    bought = [step["info"] for step in shown if step["info"]]
    assert bought
    assert all(info.keys() == {"asin", "options", "price", "account"} for info in bought)
