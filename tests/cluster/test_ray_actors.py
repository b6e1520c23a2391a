"""Replicas and environments as actors on one node: the same answers as here, weights, mistakes."""

import asyncio
import logging
import os
import sys
from pathlib import Path

import pytest
import torch
from fakes import policy_context

from benchmarks.cluster_faults import RECIPE
from benchmarks.scale import ready
from rro.config import ModelConfig, TinyConfig, load_config, parse_config
from rro.environments.base import Forkable
from rro.environments.coroutines import settled
from rro.environments.registry import open_environment
from rro.errors import RroError, UsageError
from rro.models.loading import build_tiny, load_model
from rro.policies.local.policy import TransformersPolicy
from rro.policies.ray.policy import RayPolicy
from rro.policies.scripted import ScriptedPolicy
from rro.types import Message, SamplingParams

pytestmark = pytest.mark.slow
SAMPLED = SamplingParams(temperature=1.0, max_new_tokens=12)
SIZE = {"hidden_size": 32, "intermediate_size": 64, "layers": 2, "heads": 2, "kv_heads": 2}


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray = pytest.importorskip("ray")
    path = os.pathsep.join(filter(None, sys.path))
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", path)
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    patch.undo()
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Two sets of weights of one model, which samples varied text."""
    folders = []
    for seed in (0, 1):
        folder = tmp_path_factory.mktemp(f"weights-{seed}")
        config = TinyConfig(vocabulary=300, context=256, **SIZE)
        build_tiny(config, ["search click red shoes price 12.50"] * 3, seed, folder)
        model, _ = load_model(ModelConfig(device="cpu"), folder, train=False)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight.mul_(6.0 if "proj" in name else 1.0)
        model.save_pretrained(folder)
        folders.append(folder)
    return folders


class Slow(ScriptedPolicy):
    """The replica in the first process that asks is slow."""

    async def sample(self, messages, n, params, seed):
        await asyncio.sleep(0.3 if self.slow else 0.01)
        answers = await super().sample(messages, n, params, seed)
        return answers


def open_uneven(context, file: str = ""):
    """One replica is slow: the one that makes the file."""
    policy = Slow(lambda messages, rng: "slow" if policy.slow else "quick", context.name)
    try:
        with Path(file).open("x"):
            policy.slow = True
    except FileExistsError:
        policy.slow = False
    return policy


def policy_of(section, checkpoint=None, replicas=2):
    config = parse_config({"policy": {"replicas": replicas, "placement": "ray", **section}}, "r")
    config = config.model_copy(update={"model": ModelConfig(device="cpu")})
    return RayPolicy(policy_context(config, checkpoint, "t/sft", Path("logs")))


async def ask(policy, tasks=24):
    asked = [
        policy.sample([Message("user", f"task {task}: red shoes")], 2, SAMPLED, task)
        for task in range(tasks)
    ]
    return [answer for answers in await asyncio.gather(*asked) for answer in answers]


def here(checkpoint):
    async def alone():
        loaded = load_model(ModelConfig(device="cpu"), checkpoint, train=False)
        policy = TransformersPolicy(*loaded, "t/sft")
        try:
            return await ask(policy)
        finally:
            await policy.close()

    return [answer.message for answer in asyncio.run(alone())]


def test_answers_are_those_of_this_process_before_and_after_an_update(checkpoints):
    first, second = checkpoints
    policy = ready(policy_of({"max_batch": 8}, first), 2)
    try:
        assert policy.provenance["placement"] == "ray"
        before = asyncio.run(ask(policy))
        asyncio.run(policy.update(second, "t/rro-1"))
        after = asyncio.run(ask(policy))
    finally:
        asyncio.run(policy.close())
    assert [answer.message for answer in before] == here(first)
    assert [answer.message for answer in after] == here(second)
    assert {answer.policy for answer in after} == {"t/rro-1"}
    assert len({answer.message.content for answer in before}) > 24


def test_a_slow_replica_gets_less(tmp_path):
    section = {"backend": "cluster.test_ray_actors:open_uneven"}
    policy = ready(policy_of({**section, "options": {"file": str(tmp_path / "slow")}}), 2)

    async def one_after_another(worker):
        return [
            (await policy.sample([Message("user", f"{worker}/{number}")], 1, SAMPLED, 0))[0]
            for number in range(20)
        ]

    async def all_workers():
        return await asyncio.gather(*map(one_after_another, range(4)))

    try:
        answers = [answer for part in asyncio.run(all_workers()) for answer in part]
    finally:
        asyncio.run(policy.close())
    said = [answer.message.content for answer in answers]
    assert said.count("slow") < said.count("quick") / 2
    assert said.count("slow") > 0


def test_a_users_mistakes_are_those_of_one_process(tmp_path, checkpoints):
    with pytest.raises(UsageError, match="no such checkpoint folder"):
        policy_of({"ray": {"weights": "shared_folder"}}, tmp_path / "none")
    with pytest.raises(UsageError, match="is for models that rro runs"):
        policy_of({"backend": "openai"}, replicas=1)
    with pytest.raises(RroError, match=r"none of 1 replicas.* could start for 1 s"):
        policy_of({"ray": {"num_cpus": 64, "patience": 1}}, checkpoints[0], replicas=1)


def test_an_environment_elsewhere_is_as_one_here():
    section = load_config(RECIPE).environment
    there = open_environment(section.model_copy(update={"placement": "ray", "actors": 1}))
    one, other = there.make(), open_environment(section).make()
    task = there.tasks("train")[0]
    assert isinstance(one, Forkable)
    assert list(settled(one.reset(task, 3))) == list(other.reset(task, 3))
    action = Message("assistant", "Action: search[red shoes]")
    assert settled(one.step(action)) == other.step(action)
    state = one.snapshot()
    assert state == other.snapshot()
    settled(one.step(Message("assistant", "Action: click[Next >]")))
    assert one.snapshot() != state
    settled(one.restore(state))
    assert one.snapshot() == state
    bad = Message("assistant", "no action at all")
    assert settled(one.step(bad)) == other.step(bad)
    settled(one.close())
