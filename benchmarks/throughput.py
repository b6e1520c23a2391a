"""What makes exploration fast: `python -m benchmarks.throughput RUN [--tasks 12] [--repeats 3]
[--replicas 2] [--same]`, on a run folder that has done SFT.

The same policy, tasks, seeds and strategy four ways, in turn: as IPR's code works (an episode is
forked by replaying it from the start, one request at a time, every prompt computed whole); with
batching alone; the engine as it is (snapshots, batches, shared prefixes); and that with the model
in several processes. All tasks are in flight at once, where several can be. `--same`: the share of
pairs that are equal between 1 and 64 tasks in flight.

Prints one JSON object: pairs an hour, prompt tokens computed, generated tokens, the ratios with
their range over the repeats, and what bounded each way: CPU seconds in forward passes that only
draw, in those that also compute prompts, in the rest of the policy's thread, and in the loop's
thread (environment, journal, templates); with how many rows (answers) a pass advances. Seconds are
wall time; `cpu_seconds`, of all threads and processes, say more on a machine that does other work,
too."""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from rro.environments.base import Benchmark, Environment
from rro.environments.registry import open_benchmark
from rro.episodes.loop import Limits
from rro.exploration import explorer
from rro.exploration.sampler import ExplorationContext
from rro.exploration.strategies import make_strategy
from rro.models.loading import load_model
from rro.policies.base import Policy
from rro.policies.local.policy import TransformersPolicy
from rro.policies.local.replicas import ReplicatedPolicy
from rro.runs.folder import RunFolder
from rro.runs.journal import Journal
from rro.runs.progress import Progress
from rro.types import Message, SamplingParams, StepResult, Task


class Unforkable(Environment):
    """An environment without its snapshots: the engine forks it by replay."""

    def __init__(self, inner: Environment) -> None:
        self._inner, self.blocking = inner, inner.blocking

    def reset(self, task: Task, seed: int = 0) -> Sequence[Message]:
        return self._inner.reset(task, seed)

    def step(self, action: Message) -> StepResult:
        return self._inner.step(action)


class UnforkableBenchmark(Benchmark):
    def __init__(self, inner: Benchmark) -> None:
        self._inner, self.max_steps, self.success_reward = (
            inner,
            inner.max_steps,
            inner.success_reward,
        )
        self.name = inner.name

    def tasks(self, split: str) -> Sequence[Task]:
        return self._inner.tasks(split)

    def make(self) -> Environment:
        return Unforkable(self._inner.make())


@dataclass(frozen=True)
class Way:
    """How to work: forking, tasks in flight, answers drawn together, tokens of prompts kept,
    processes with the model."""

    snapshots: bool
    concurrency: int
    max_batch: int
    prefix_cache_tokens: int
    replicas: int = 1


def ways(tasks: int, replicas: int) -> dict[str, Way]:
    """As many tasks in flight as there are, where there can be several."""
    engine = Way(True, tasks, 2 * tasks, 200_000)
    return {
        "one at a time": Way(False, 1, 1, 0),
        "batching": Way(False, tasks, 2 * tasks, 0),
        "engine": engine,
        f"engine, {replicas} replicas": replace(engine, replicas=replicas),
    }


class Passes:
    """Counts a model's forward passes and their CPU seconds, apart for those that only draw: one
    token a row."""

    def __init__(self, model: Any) -> None:
        self._sums = {
            name: dict.fromkeys(("passes", "rows", "tokens", "seconds"), 0.0)
            for name in ("draw", "prompt")
        }
        self._begun = 0.0
        model.register_forward_pre_hook(lambda *_: self._begin())
        model.register_forward_hook(self._end, with_kwargs=True)

    def _begin(self) -> None:
        self._begun = time.thread_time()

    def _end(self, model: Any, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
        tokens, rows = kwargs["input_ids"].numel(), output.logits.shape[:-1].numel()
        sums = self._sums["draw" if tokens == rows else "prompt"]
        for name, value in (("passes", 1), ("rows", rows), ("tokens", tokens)):
            sums[name] += value
        sums["seconds"] += time.thread_time() - self._begun

    def report(self, loop_seconds: float, cpu_seconds: float) -> dict[str, float]:
        """What the CPU seconds went into; sums over both kinds of passes for `rows_per_pass`."""
        draw, prompt = self._sums["draw"], self._sums["prompt"]
        passes, seconds = draw["passes"] + prompt["passes"], draw["seconds"] + prompt["seconds"]
        return {
            "drawing_passes": draw["passes"],
            "drawing_seconds": round(draw["seconds"], 2),
            "prompt_passes": prompt["passes"],
            "prompt_seconds": round(prompt["seconds"], 2),
            "tokens_per_prompt_pass": round(prompt["tokens"] / max(1, prompt["passes"]), 1),
            "rows_per_pass": round((draw["rows"] + prompt["rows"]) / max(1, passes), 1),
            "other_policy_seconds": round(cpu_seconds - loop_seconds - seconds, 2),
            "loop_seconds": round(loop_seconds, 2),
        }


def main() -> None:
    arguments = _arguments()
    folder = RunFolder.open(arguments.run)
    if folder.config.threads:
        import torch

        torch.set_num_threads(folder.config.threads)
    found = ways(arguments.tasks, arguments.replicas)
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in found}
    for _ in range(arguments.repeats):
        for name, way in found.items():
            measured[name].append(_measure(folder, way, arguments.tasks))
    report = {"tasks": arguments.tasks, "repeats": arguments.repeats, **_report(measured)}
    if arguments.same:
        one, many = (
            _measure(folder, Way(True, number, 128, 200_000), arguments.tasks)["found"]
            for number in (1, 64)
        )
        report["same_pairs_between_concurrency_1_and_64"] = {
            "pairs": len(one),
            "share": _same(one, many),
        }
    print(json.dumps(report, indent=2))


def _measure(folder: RunFolder, way: Way, count: int) -> dict[str, Any]:
    """Explore the first `count` train tasks once."""
    config = folder.config
    benchmark = open_benchmark(config.environment.name, config.environment.options)
    tasks = benchmark.tasks(config.environment.train_split)[:count]
    strategy = make_strategy(config.explore, {}, benchmark.success_reward)
    params = SamplingParams(
        config.policy.temperature, config.policy.top_p, config.policy.max_new_tokens
    )
    limits = Limits(config.environment.max_steps or benchmark.max_steps, 60.0, 2)
    used = benchmark if way.snapshots else UnforkableBenchmark(benchmark)
    policy, passes = _open(folder, way)
    below = _cpu_below()
    with (
        tempfile.TemporaryDirectory() as scratch,
        Journal(Path(scratch) / "journal.jsonl") as journal,
    ):
        context = ExplorationContext(
            used, policy, policy, journal, params, params, limits, config.seed
        )
        wall, processor, thread = time.perf_counter(), time.process_time(), time.thread_time()
        with Progress(str(way), count, "tasks") as progress:
            asyncio.run(explorer.explore(tasks, strategy, context, way.concurrency, progress))
        seconds, loop_seconds = time.perf_counter() - wall, time.thread_time() - thread
        cpu_seconds = time.process_time() - processor + _cpu_below() - below
        summary = explorer.summarise(journal.records("task"))
        pairs = [
            (row["prompt"], row["chosen"], row["rejected"])
            for r in journal.records("task")
            for row in r["pairs"]
        ]
    asyncio.run(policy.close())
    usage = summary.usage
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "pairs": summary.pairs,
        "policy_calls": usage.policy_calls,
        "prompt_tokens": usage.prompt_tokens,
        "prompt_tokens_computed": usage.prompt_tokens - usage.cached_tokens,
        "generated_tokens": usage.generated_tokens,
        "environment_steps": usage.environment_steps,
        **(
            passes.report(loop_seconds, cpu_seconds)
            if passes
            else {"loop_seconds": round(loop_seconds, 2)}
        ),
        "found": {json.dumps(pair) for pair in pairs},
    }


def _open(folder: RunFolder, way: Way) -> tuple[Policy, Passes | None]:
    """The SFT policy, and what counts its passes where these are in this process."""
    config, checkpoint = folder.config, folder.checkpoint("sft")
    settings = {"max_batch": way.max_batch, "prefix_cache_tokens": way.prefix_cache_tokens}
    if way.replicas > 1:
        return ReplicatedPolicy(
            config.model, checkpoint, "sft", way.replicas, config.threads, settings
        ), None
    model, tokenizer = load_model(config.model, checkpoint, train=False)
    return TransformersPolicy(model, tokenizer, "sft", **settings), Passes(model)


def _cpu_below() -> float:
    """CPU seconds of the processes that this one has started, so far."""
    children = psutil.Process().children(recursive=True)
    return sum(child.cpu_times().user + child.cpu_times().system for child in children)


def _report(measured: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    slow = measured["one at a time"]
    report: dict[str, Any] = {}
    for name, runs in measured.items():
        first = runs[0]
        ratios = {
            key: [one[key] / other[key] for one, other in zip(slow, runs, strict=True)]
            for key in ("seconds", "cpu_seconds", "prompt_tokens_computed")
        }
        same = [_same(one["found"], other["found"]) for one, other in zip(slow, runs, strict=True)]
        report[name] = {
            **_first(first),
            "seconds": _spread([run["seconds"] for run in runs]),
            "cpu_seconds": _spread([run["cpu_seconds"] for run in runs]),
            "pairs_per_hour": _spread([3600 * run["pairs"] / run["seconds"] for run in runs]),
            **{f"times_fewer_{key}": _spread(values) for key, values in ratios.items()},
            "share_of_same_pairs": _spread(same),
        }
    return report


def _first(run: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value for key, value in run.items() if key not in ("seconds", "cpu_seconds", "found")
    }


def _same(one: set[str], other: set[str]) -> float:
    """The share of the first's pairs that the other found, too."""
    return len(one & other) / max(1, len(one))


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "low": round(min(values), 3),
        "high": round(max(values), 3),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="run folder with checkpoints/sft")
    parser.add_argument("--tasks", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--replicas", type=int, default=2, help="processes with the model, of the last way"
    )
    parser.add_argument(
        "--same", action="store_true", help="also compare the pairs of 1 and 64 tasks in flight"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
