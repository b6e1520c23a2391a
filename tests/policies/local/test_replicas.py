"""A local model in several processes: the same answers as from one, and what happens when a process
ends."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from fakes import policy_context

from rro.config import ModelConfig, TinyConfig, parse_config
from rro.errors import PolicyError, RroError, UsageError
from rro.models.loading import build_tiny, load_model
from rro.plugins import POLICIES
from rro.policies.local.policy import TransformersPolicy
from rro.policies.local.replicas import ReplicatedPolicy
from rro.types import Message, SamplingParams, Source

SAMPLED = SamplingParams(temperature=1.0, max_new_tokens=12, logprobs=True)
LONG = SamplingParams(temperature=1.0, max_new_tokens=400, stop=())
MODEL = ModelConfig(device="cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    size = TinyConfig(
        hidden_size=32,
        intermediate_size=64,
        layers=2,
        heads=2,
        kv_heads=2,
        vocabulary=300,
        context=512,
    )
    build_tiny(size, ["search click red shoes price 12.50"] * 3, 0, folder)
    model, _ = load_model(MODEL, folder, train=False)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.mul_(6.0 if "proj" in name else 1.0)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def shared(weights: Path) -> Iterator[ReplicatedPolicy]:
    """For tests that do not change it: two processes take seconds to start."""
    policy = start(weights)
    yield policy
    asyncio.run(policy.close())


def start(weights: Path, replicas: int = 2) -> ReplicatedPolicy:
    return ReplicatedPolicy(
        MODEL, weights, "tiny", replicas, 1, {"max_batch": 8, "prefix_cache_tokens": 10_000}
    )


def history(task: int, *answers: str) -> list[Message]:
    turns = [Message("user", f"task {task}: red shoes, please")]
    for answer in answers:
        turns += [Message("assistant", answer, Source.POLICY), Message("user", "what now?")]
    return turns


def children() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children()
        if child.is_running() and child.status() != psutil.STATUS_ZOMBIE
    ]


async def until(done: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not done():
            await asyncio.sleep(0.02)


def test_the_answers_are_those_of_one_process(weights: Path, shared: ReplicatedPolicy) -> None:
    async def ask(policy: Any) -> list[Any]:
        asked = [policy.sample(history(task), 2, SAMPLED, 100 + task) for task in range(12)]
        return [answer for answers in await asyncio.gather(*asked) for answer in answers]

    async def alone() -> list[Any]:
        policy = TransformersPolicy(*load_model(MODEL, weights, train=False), "tiny")
        try:
            return await ask(policy)
        finally:
            await policy.close()

    one, many = asyncio.run(alone()), asyncio.run(ask(shared))
    assert [answer.message for answer in many] == [answer.message for answer in one]
    assert [answer.finish for answer in many] == [answer.finish for answer in one]
    for answer, expected in zip(many, one, strict=True):
        assert answer.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
    assert len({answer.message.content for answer in many}) > 12


def test_the_provenance_has_the_number_of_replicas(shared: ReplicatedPolicy) -> None:
    assert shared.provenance["replicas"] == 2
    assert shared.provenance["backend"] == "transformers"


def test_a_task_stays_with_the_replica_that_knows_its_history(shared: ReplicatedPolicy) -> None:
    async def body() -> None:
        tasks = range(20, 28)
        firsts = await asyncio.gather(
            *(shared.sample(history(task), 1, SAMPLED, task) for task in tasks)
        )
        for task, [first] in zip(tasks, firsts, strict=True):
            [second] = await shared.sample(history(task, first.message.content), 1, SAMPLED, 1)
            assert second.usage.cached_tokens >= first.usage.prompt_tokens - 1

    asyncio.run(body())


def test_both_replicas_work_for_several_event_loops(shared: ReplicatedPolicy) -> None:
    async def body() -> set[int]:
        calls = [
            asyncio.ensure_future(shared.sample(history(task), 1, LONG, task))
            for task in range(40, 48)
        ]
        await asyncio.sleep(0)
        loads = [replica.load for replica in shared.replicas]
        await asyncio.gather(*calls)
        return set(loads)

    assert asyncio.run(body()) == {4}
    assert asyncio.run(body()) == {4}
    assert [replica.load for replica in shared.replicas] == [0, 0]


def test_a_cancelled_request_leaves_the_others_alone(shared: ReplicatedPolicy) -> None:
    async def body() -> None:
        calls = [
            asyncio.ensure_future(shared.sample(history(task), 1, LONG, task))
            for task in range(60, 64)
        ]
        while not any(replica.load for replica in shared.replicas):
            await asyncio.sleep(0)
        calls[0].cancel()
        assert [len(answers) for answers in await asyncio.gather(*calls[1:])] == [1, 1, 1]
        assert calls[0].cancelled()

    asyncio.run(body())
    assert sum(replica.load for replica in shared.replicas) == 0


def test_a_users_mistake_is_reported_as_with_one_process(shared: ReplicatedPolicy) -> None:
    with pytest.raises(UsageError, match="needs at least one message"):
        asyncio.run(shared.sample([], 1, SAMPLED, 0))


def test_no_checkpoint_is_a_users_mistake_and_leaves_no_process(tmp_path: Path) -> None:
    before = len(children())
    with pytest.raises(UsageError, match="no such checkpoint folder"):
        start(tmp_path / "none", replicas=1)
    assert len(children()) == before


def test_a_killed_run_leaves_no_process(weights: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from rro.config import ModelConfig
from rro.policies.local.replicas import ReplicatedPolicy
policy = ReplicatedPolicy(ModelConfig(device="cpu"), Path({str(weights)!r}), "tiny", 1, 1, {{}})
print(policy.replicas[0].pid, flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        replica = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    assert replica.wait(timeout=30) is None  # it was no child of this process
    assert not replica.is_running()


def test_a_killed_replica_fails_its_calls_alone_and_the_others_go_on(weights: Path) -> None:
    async def body(policy: ReplicatedPolicy) -> None:
        first, second = policy.replicas
        calls = [
            asyncio.ensure_future(policy.sample(history(task), 1, LONG, task)) for task in range(4)
        ]
        await until(lambda: first.load == second.load == 2)
        os.kill(first.pid, signal.SIGKILL)
        results = await asyncio.gather(*calls, return_exceptions=True)
        failed = [result for result in results if isinstance(result, PolicyError)]
        assert len(failed) == 2
        assert "replica 1 of 2 of policy tiny has ended with exit code -9" in str(failed[0])
        again = await asyncio.gather(
            *(policy.sample(history(task), 1, SAMPLED, task) for task in range(4))
        )
        assert len(again) == 4
        os.kill(second.pid, signal.SIGKILL)
        await until(lambda: second.ended)
        with pytest.raises(RroError, match="exit code -9, as have all others"):
            await policy.sample(history(0), 1, SAMPLED, 0)

    check(weights, body)


def test_closing_fails_what_is_in_flight_and_ends_the_processes(weights: Path) -> None:
    async def body(policy: ReplicatedPolicy) -> None:
        before = children()
        call = asyncio.ensure_future(policy.sample(history(0), 1, LONG, 0))
        await until(lambda: sum(replica.load for replica in policy.replicas))
        await policy.close()
        with pytest.raises(RroError, match="was closed before it answered"):
            await call
        with pytest.raises(RroError, match="is closed"):
            await policy.sample(history(0), 1, SAMPLED, 0)
        assert {child.pid for child in before} - {child.pid for child in children()} == {
            replica.pid for replica in policy.replicas
        }

    check(weights, body, replicas=1)


def check(
    weights: Path, body: Callable[[ReplicatedPolicy], Awaitable[None]], replicas: int = 2
) -> None:
    async def whole() -> None:
        policy = await asyncio.to_thread(start, weights, replicas)
        try:
            await body(policy)
        finally:
            await policy.close()

    asyncio.run(whole())


@pytest.mark.parametrize(
    ("backend", "hint"), [("vllm", "; vLLM has data_parallel_size"), ("openai", "$")]
)
def test_other_backends_refuse_replicas(backend: str, hint: str, tmp_path: Path) -> None:
    config = parse_config({"policy": {"backend": backend, "replicas": 2}}, "r.toml")
    plugin = POLICIES.find(backend)
    options = plugin.options_model()
    with pytest.raises(UsageError, match=f'"transformers", not for "{backend}"{hint}'):
        plugin.make(options, policy_context(config, None, "t/sft", tmp_path))
