"""A server that drops connections, rejects, hangs, gives incomplete answers or another model's:
nothing is lost, and no failure becomes a reward of 0."""

import asyncio
import logging
import random

import pytest
from bad_server import KEY, in_http_date, serving
from fakes import TREE, TreeBenchmark, explore, fresh_journal, make_context, task_records, timeless

from rro.config import Config
from rro.errors import PolicyError, RroError, UsageError
from rro.exploration.strategies.rising import RisingExploration
from rro.pipeline import stages as pipeline
from rro.pipeline.run import Run
from rro.policies.api.client import connect, disconnect
from rro.policies.api.endpoint import ServedModel, list_models
from rro.policies.api.opening import open_served
from rro.policies.api.settings import OpenAIConfig
from rro.runs.folder import RunFolder
from rro.runs.journal import Journal
from rro.types import Message, SamplingParams

pytestmark = pytest.mark.usefixtures("short_waits")
ASK = (Message("user", "at : go left right"),)
PARAMS = SamplingParams(max_new_tokens=5)
TRANSIENT = [
    "drop",
    "hang",
    "half",
    "html",
    "half JSON",
    "not an object",
    "empty",
    "other model",
    "no reason",
]
TRANSIENT += ["408", "409", "429", "500", "502", "503"]
WITHHELD = ["filtered", "tool", "thoughts"]


def settings(server, **changes):
    return OpenAIConfig(
        **{
            "base_url": server.base_url,
            "key_variable": "RRO_TEST_KEY",
            "timeout": 20,
            "retries": 4,
            **changes,
        }
    )


def opened(server, **changes):
    return open_served(settings(server, **changes), ServedModel("walker"), "run/sft", None)


def listed(server):
    link = connect(settings(server))
    try:
        return list_models(link)
    finally:
        disconnect(link)


def sample(policy, n=1, seed=1, messages=ASK, params=PARAMS):
    async def body():
        try:
            return await policy.sample(messages, n, params, seed)
        finally:
            await policy.close()

    return asyncio.run(body())


def faulty(server, policy, *faults):
    """Answers number 1, 2, ... from now on get these faults, all later ones the last."""
    before = len(server.bodies)
    server.fault = lambda number, body: faults[min(number - before, len(faults)) - 1]
    return policy


@pytest.mark.parametrize("fault", TRANSIENT)
def test_a_transient_fault_is_retried_and_a_lasting_one_fails(fault, caplog):
    with serving() as server:
        policy = opened(server, retries=2, timeout=1.0 if fault == "hang" else 20)

        async def body():
            [calm] = await policy.sample(ASK, 1, PARAMS, 1)
            [shaken] = await faulty(server, policy, fault, fault, None).sample(ASK, 1, PARAMS, 1)
            assert server.faults[fault] == 2
            assert shaken.message == calm.message
            assert shaken.message.content in ("left", "right")
            with pytest.raises(PolicyError, match="did not answer in 3 attempts"):
                await faulty(server, policy, fault).sample(ASK, 1, PARAMS, 1)
            assert server.faults[fault] == 5
            await policy.close()

        asyncio.run(body())
        assert "5 attempts failed" in caplog.text  # the account, when the connection closes
        assert "1 requests given up" in caplog.text


@pytest.mark.parametrize("fault", WITHHELD)
def test_a_withheld_answer_is_a_failure_at_once(fault):
    with (
        serving() as server,
        pytest.raises(PolicyError, match=r"content_filter|tool_calls|gave no text"),
    ):
        sample(faulty(server, opened(server), fault))
    assert server.faults[fault] == 1


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("401", UsageError, "check the key in the environment variable RRO_TEST_KEY"),
        ("403", UsageError, "RRO_TEST_KEY"),
        ("404", UsageError, "policy.openai.base_url"),
        ("400", RroError, "check the settings of policy"),
        ("402", RroError, "has no credit left"),
        ("broke", RroError, "top up the account, then resume the run"),
    ],
)
def test_a_lasting_error_ends_the_run_at_once(fault, error, words):
    with serving() as server:
        policy = faulty(server, opened(server), fault)
        with pytest.raises(error, match=words) as raised:
            sample(policy)
        assert server.faults[fault] == 1
        assert server.base_url in str(raised.value)
        assert "'walker'" in str(raised.value)


def test_a_full_context_is_no_failure():
    with serving() as server:
        [completion] = sample(faulty(server, opened(server), "full"))
        assert (completion.finish, completion.message.content) == ("context", "")
        assert server.faults["full"] == 1


@pytest.mark.parametrize("date", [False, True])
def test_retry_after_is_honoured(date):
    with serving(places=10) as server:
        policy = opened(server)
        server.retry_after = in_http_date(2) if date else "0.4"
        faulty(server, policy, "429", None)

        async def body():
            loop = asyncio.get_running_loop()
            start = loop.time()
            await policy.sample(ASK, 1, PARAMS, 1)
            waited = loop.time() - start
            await policy.close()
            return waited

        assert asyncio.run(body()) >= (1.0 if date else 0.4)  # a date has whole seconds
        assert server.faults["429"] == 1


def test_a_server_that_asks_for_an_hour_is_given_up():
    with serving(retry_after="3600") as server, pytest.raises(PolicyError, match="in 1 attempts"):
        sample(faulty(server, opened(server), "503"))


def test_concurrency_follows_what_the_server_can_take():
    with serving(hold=0.01) as server:
        policy = opened(server, concurrency=32, retries=30)
        server.places = 5

        async def body():
            seeds = range(200)
            answers = await asyncio.gather(*(policy.sample(ASK, 1, PARAMS, seed) for seed in seeds))
            assert policy.client.limit.lowest < 16
            await policy.close()
            return answers

        answers = asyncio.run(body())
        assert all(one.message.content in ("left", "right") for [one] in answers)
        assert 5 < server.busiest <= 32
        assert len(server.connections) <= 33  # a pool, and the probe


def test_requests_in_flight_end_with_their_policy():
    with serving() as server:
        policy = faulty(server, opened(server), "hang")

        async def body():
            waiting = asyncio.ensure_future(policy.sample(ASK, 1, PARAMS, 1))
            while not server.faults["hang"]:
                await asyncio.sleep(0.01)
            await policy.close()
            with pytest.raises(RroError, match="closed"):
                await waiting
            with pytest.raises(RroError, match="closed"):
                await policy.sample(ASK, 1, PARAMS, 1)

        asyncio.run(body())


def test_no_server_at_all():
    with serving() as server:
        address = server.base_url
    config = OpenAIConfig(base_url=address, retries=1, timeout=2)
    link = connect(config)
    with pytest.raises(UsageError, match=r"start it, or set policy\.openai\.base_url"):
        list_models(link)
    disconnect(link)


def test_the_key_is_sent_and_shown_nowhere(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    with serving(key=KEY) as server:
        policy = opened(server)
        assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
        shown = [
            repr(policy),
            str(vars(policy)),
            str(dict(policy.provenance)),
            str(settings(server)),
        ]
        for fault in ("401", "400", "500"):  # the server repeats the key in what it says
            other = faulty(server, opened(server, retries=1), fault, fault, None)
            with pytest.raises((RroError, PolicyError), match=r"\[key\]") as raised:
                sample(other)
            shown += [str(raised.value), repr(raised.value), repr(raised.value.__context__)]
            server.fault = lambda number, body: None
        with fresh_journal(tmp_path) as journal:
            explore(
                RisingExploration(2, 2),
                make_context(TreeBenchmark({"t": {"a": 0.7, "b": 0.7}}), policy, journal),
            )
        asyncio.run(policy.close())
    shown += [caplog.text, (tmp_path / "journal.jsonl").read_text()]
    assert not [text for text in shown if KEY in text]


def test_a_wrong_key_and_a_missing_one(monkeypatch):
    with serving(key=KEY) as server:
        for value, words in (
            ("sk-other", "check the key"),
            ("", "set the key"),
            ("sk-\n\u00e9", "odd characters"),
        ):
            monkeypatch.setenv("RRO_TEST_KEY", value)
            with pytest.raises(UsageError, match=words) as raised:
                listed(server)
            assert not value or value not in str(raised.value)


# -- a whole exploration


def explored(path, server, forest, retries=1, **changes):
    policy = opened(server, **changes)
    with Journal(path) as journal:
        failed = explore(
            RisingExploration(2, 3),
            make_context(TreeBenchmark(forest), policy, journal, retries=retries),
        )
        records = task_records(journal)
    asyncio.run(policy.close())
    return failed, records


def committed(record):
    """The chosen trajectory's nodes of a task record."""
    return [node for node in record["nodes"].values() if node["committed"]]


def without_usage(records):
    return {
        key: {name: v for name, v in record.items() if "usage" not in name}
        for key, record in records.items()
    }


def test_transient_faults_do_not_change_an_exploration(tmp_path):
    forest, chance = {f"t{number}": TREE for number in range(5)}, random.Random(5)
    faults = [fault for fault in TRANSIENT if fault != "hang"] + WITHHELD
    with serving() as server:
        failed, calm = explored(tmp_path / "calm", server, forest)
        assert failed == []
        server.fault = lambda number, body: (
            chance.choice(faults)
            if "go" in body["messages"][-1]["content"] and chance.random() < 0.35
            else None
        )
        failed, flaky = explored(tmp_path / "flaky", server, forest, retries=40, concurrency=8)
        assert failed == []
        assert sum(server.faults[fault] for fault in faults) > 25
        assert without_usage(timeless(flaky)) == without_usage(timeless(calm))


def test_what_fails_is_missing_and_counted(tmp_path, caplog):
    """Every outcome of this forest is 0.7: another price would come from a failure that was
    counted."""
    tree = {"a": {"x": 0.7, "y": 0.7}, "b": {"x": 0.7, "y": 0.7}}
    faults = [fault for fault in TRANSIENT if fault != "hang"] + WITHHELD

    def fault(number, body):
        doomed = body["seed"] % 8 == 0 and "go" in body["messages"][-1]["content"]
        return faults[body["seed"] % len(faults)] if doomed else None

    with serving(fault=fault) as server:
        failed, records = explored(
            tmp_path / "journal", server, {f"t{number}": tree for number in range(14)}, retries=1
        )
    steps = [node for record in records.values() for node in committed(record)]
    assert failed
    assert records
    assert len(failed) + len(records) == 14
    starts = [record["nodes"]["0"] for record in records.values()]
    outcomes = [node["estimate"]["outcomes"] for node in steps + starts]
    assert {outcome for drawn in outcomes for outcome in drawn} == {0.7}
    assert {1, 2} & set(map(len, outcomes))  # some rollouts are missing
    assert "requests given up" in caplog.text
    assert all(f"task {task} failed and is dropped" in caplog.text for task in failed)


def test_a_run_is_resumed_when_its_server_is_back(tmp_path, monkeypatch):
    benchmark = TreeBenchmark({f"t{number}": TREE for number in range(3)})
    monkeypatch.setattr("rro.pipeline.run.open_environment", lambda section: benchmark)
    with serving() as server:
        openai = settings(server, retries=1).model_dump()
        explore = {"rollouts": 2, "candidates": 2, "retries": 0, "tasks": 3}
        config = Config.model_validate(
            {"policy": {"backend": "openai", "openai": openai}, "explore": explore}
        )
        folder = RunFolder.create(config, tmp_path / "run")
        with Journal(folder.journal) as journal:
            run = Run(folder, journal)
            server.fault = lambda number, body: (
                "503" if "go" in body["messages"][-1]["content"] else None
            )
            with pytest.raises(RroError, match="every task failed"):
                pipeline.explore(run, 1)
            assert not run.is_done("explore-1")
            server.fault = lambda number, body: None
            pipeline.explore(run, 1)
            stage = journal.get("stage", "explore-1")
            assert (stage["tasks"], stage["failed_tasks"]) == (3, 0)
            assert [record["token_ids"] for record in journal.records("policy")] == [False, False]


def test_a_run_waits_for_a_server_that_is_gone_and_says_so(caplog):
    with serving() as server:
        policy = opened(server, retries=40)
        [before] = asyncio.run(policy.sample(ASK, 1, PARAMS, 1))
    # its threads still hold connections
    faulty(server, policy, "drop")
    address = server.base_url

    async def body():
        waiting = asyncio.ensure_future(policy.sample(ASK, 1, PARAMS, 1))
        while "cannot be reached" not in caplog.text and not waiting.done():
            await asyncio.sleep(0.01)
        with serving(port=int(address.rpartition(":")[2].partition("/")[0])):
            [after] = await waiting
        await policy.close()
        return after

    assert asyncio.run(body()).message == before.message
    assert "answers again" in caplog.text


def test_a_server_that_does_not_come_back_ends_the_run():
    with serving() as server:
        policy = opened(server, outage=0.4, retries=40)
        asyncio.run(policy.sample(ASK, 1, PARAMS, 1))
    faulty(server, policy, "drop")
    with pytest.raises(RroError, match=r"could not be reached for 0.4 s .* resume the run"):
        sample(policy)
