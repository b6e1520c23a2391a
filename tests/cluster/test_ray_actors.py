"""Replicas and environments as actors on one node: the same answers as here, weights, mistakes."""

import asyncio
import logging
from pathlib import Path

import pytest
import torch
from fakes import policy_context

from benchmarks.cluster_faults import RECIPE
from benchmarks.scale import ready
from rro.cluster.connection import connect
from rro.config import ModelConfig, RayConfig, TinyConfig, load_config, parse_config
from rro.environments.base import Environment, Forkable, TaskList
from rro.environments.coroutines import settled
from rro.environments.registry import open_environment
from rro.errors import UsageError
from rro.models.loading import build_tiny, load_model
from rro.pipeline import stages
from rro.pipeline.run import open_run
from rro.policies.local.policy import TransformersPolicy
from rro.policies.ray.policy import RayPolicy
from rro.policies.scripted import ScriptedPolicy
from rro.runs.folder import RunFolder
from rro.types import Message, SamplingParams, Source, StepResult, Task

pytestmark = pytest.mark.slow
SAMPLED = SamplingParams(temperature=1.0, max_new_tokens=12)
# So that a machine with one core has room.
FEW = {"num_cpus": 0.25}
SIZE = {"hidden_size": 32, "intermediate_size": 64, "layers": 2, "heads": 2, "kv_heads": 2}


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray = pytest.importorskip("ray")
    patch = pytest.MonkeyPatch()
    patch.delenv("RAY_ADDRESS", raising=False)
    connect(RayConfig())
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


WORKERS = 4


class Slow(ScriptedPolicy):
    """The replica in the first process that asks is slow: it answers nothing until `released` is
    there, or until it has to answer all workers."""

    slow, held = False, 0

    async def sample(self, messages, n, params, seed):
        self.held += 1
        while self.slow and self.held < WORKERS and not self.released.exists():
            await asyncio.sleep(0.01)
        return await super().sample(messages, n, params, seed)


def open_uneven(context, folder: str = ""):
    """One replica is slow: the one that makes the file."""
    policy = Slow(lambda messages, rng: "slow" if policy.slow else "quick", context.name)
    policy.released = Path(folder) / "released"
    try:
        (Path(folder) / "slow").touch(exist_ok=False)
        policy.slow = True
    except FileExistsError:
        pass
    return policy


def policy_of(section, checkpoint=None, replicas=2):
    section = {"replicas": replicas, "placement": "ray", "ray": FEW, **section}
    config = parse_config({"policy": section}, "r")
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
    policy = ready(policy_of({**section, "options": {"folder": str(tmp_path)}}), 2)
    numbers, said = iter(range(80)), []

    async def worker():
        for number in numbers:
            (answer,) = await policy.sample([Message("user", f"task {number}")], 1, SAMPLED, 0)
            said.append(answer.message.content)
        (tmp_path / "released").touch()

    async def all_workers():
        await asyncio.gather(*(worker() for _ in range(WORKERS)))

    try:
        asyncio.run(all_workers())
    finally:
        asyncio.run(policy.close())
    # At first both have nothing to do, so each gets the tasks of two workers.
    assert sorted(said) == ["quick"] * 78 + ["slow"] * 2


def test_a_users_mistakes_are_those_of_one_process(tmp_path, checkpoints):
    with pytest.raises(UsageError, match="no such checkpoint folder"):
        policy_of({"ray": {"weights": "shared_folder"}}, tmp_path / "none")
    with pytest.raises(UsageError, match="is for models that rro runs"):
        policy_of({"backend": "openai"}, replicas=1)
    with pytest.raises(UsageError, match=r"replicas of policy t/sft cannot start: no node has all"):
        policy_of({"ray": {"num_cpus": 4000}}, checkpoints[0])


def test_an_environment_elsewhere_is_as_one_here():
    section = load_config(RECIPE).environment
    update = {"placement": "ray", "actors": 1, "ray": RayConfig(**FEW)}
    there = open_environment(section.model_copy(update=update))
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


class Odd(Environment):
    """One turn; the reward is 1 for an answer with an odd number of characters."""

    def reset(self, task, seed=0):
        return [Message("user", task.id)]

    def step(self, action):
        return StepResult("end", float(len(action.content) % 2), True)


def open_odd():
    tasks = [Task(f"task {number}: red shoes") for number in range(8)]

    def expert(task, noise, seed):
        return ScriptedPolicy(lambda messages, rng: task.id, "expert", Source.EXPERT)

    return TaskList("odd", Odd, {"train": tasks, "test": tasks}, max_steps=1, expert=expert)


ROUNDS = {
    "name": "lora",
    "threads": 1,
    "environment": {"name": "cluster.test_ray_actors:open_odd"},
    "model": {"tiny": {**SIZE, "vocabulary": 300, "context": 128}, "device": "cpu"},
    "policy": {"max_new_tokens": 6, "replicas": 2, "placement": "ray", "ray": FEW},
    "sft": {"epochs": 1, "batch_size": 8},
    "explore": {"strategy": "group", "tasks": 4, "options": {"episodes": 4}},
    "credit": {"name": "group_advantages"},
    "optimise": {"learner": "policy_gradient", "options": {"learning_rate": 0.02}},
    "rounds": {"count": 2},
}


async def drawn(policy):
    """What a policy, or a replica of one, draws: token ids, and all log-probabilities."""
    params = SamplingParams(temperature=1.0, max_new_tokens=12, logprobs=True)
    answers = [
        (await policy.sample([Message("user", f"task {n}: red shoes")], 1, params, n))[0]
        for n in range(8)
    ]
    return (
        [answer.message.token_ids for answer in answers],
        [logprob for answer in answers for logprob in answer.logprobs],
    )


async def drawn_with(checkpoint):
    loaded = load_model(ModelConfig(device="cpu"), checkpoint, train=False)
    policy = TransformersPolicy(*loaded, "here")
    try:
        return await drawn(policy)
    finally:
        await policy.close()


def test_rounds_of_adapters_reach_the_replicas(tmp_path, caplog):
    """Policy gradient with LoRA: each round's adapter alone goes to the replicas, which then answer
    as the round's merged checkpoint does."""
    caplog.set_level(logging.INFO, "rro")
    lora = {"model": {**ROUNDS["model"], "lora": {"rank": 4, "alpha": 8}}}
    folder = RunFolder.create(parse_config({**ROUNDS, **lora}, "r"), tmp_path / "run")
    checkpoints = [folder.checkpoint(label) for label in ("sft", "group-1", "group-2")]

    async def answers():
        for replica in ready(run.live, 2).replicas:
            said.append(await drawn(replica))

    async def expected():
        return [await drawn_with(checkpoint) for checkpoint in checkpoints]

    said = []
    with open_run(folder) as run:
        stages.sft(run)
        for number in (1, 2):
            stages.explore(run, number)
            asyncio.run(answers())
            stages.optimise(run, number)
        asyncio.run(run.live.update(checkpoints[2], "lora/group-2"))
        asyncio.run(answers())
    sft, first, second = asyncio.run(expected())
    assert sft[1] != pytest.approx(first[1], abs=1e-2)
    assert first[1] != pytest.approx(second[1], abs=1e-2)
    for there, here in zip(said, (sft, sft, first, first, second, second), strict=True):
        assert there[0] == here[0]
        assert there[1] == pytest.approx(here[1], abs=1e-4)
    for number in (1, 2):
        assert f"the weights of lora/group-{number} (adapters: {number})" in caplog.text
