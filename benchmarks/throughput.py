"""What makes exploration fast: `python -m benchmarks.throughput RUN [--tasks 12] [--repeats 3]
[--replicas 2] [--same]`, on a run folder that has done SFT.

The same policy, tasks, seeds and strategy in four setups, in turn: as IPR's code works (an episode
is forked by replaying it from the start, one request at a time, every prompt computed whole); with
batching alone; with everything that rro has (snapshots, batches, prefix cache); and that with the
model in several processes. All tasks are in flight at once, where several can be. `--same`: the
share of pairs that are equal between 1 and 64 tasks in flight. What each part of the local policy
contributes is measured by `benchmarks.local_engine`.

Prints one JSON object: pairs an hour, prompt tokens computed, generated tokens, the ratios with
their range over the repeats, and what bounded each setup: CPU seconds in forward passes that only
decode, in those that also compute prompts, in the rest of the policy's thread, and in the loop's
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

from rro.config import parse_options
from rro.environments.base import Benchmark, Environment
from rro.environments.registry import open_benchmark
from rro.episodes.loop import Limits
from rro.exploration import explorer
from rro.exploration.sampler import ExplorationContext
from rro.exploration.strategies.base import StrategyContext
from rro.exploration.tree import Tree
from rro.learning.credit.choosing import credit_of
from rro.learning.pairs import to_row
from rro.models.loading import load_model
from rro.plugins import STRATEGIES
from rro.policies.base import Policy
from rro.policies.local.policy import TransformersPolicy
from rro.policies.local.replicas import ReplicatedPolicy
from rro.runs.folder import RunFolder
from rro.runs.journal import Journal
from rro.runs.progress import Progress
from rro.types import Message, SamplingParams, StepResult, Task


class Unforkable(Environment):
    """An environment without its snapshots: it is forked by replay."""

    def __init__(self, inner: Environment) -> None:
        self._inner, self.blocking = inner, inner.blocking

    def reset(self, task: Task, seed: int = 0) -> Sequence[Message]:
        return self._inner.reset(task, seed)

    def step(self, action: Message) -> StepResult:
        return self._inner.step(action)


class UnforkableBenchmark(Benchmark):
    """A benchmark whose environments have no snapshots."""

    def __init__(self, inner: Benchmark) -> None:
        self._inner, self.name, self.max_steps = inner, inner.name, inner.max_steps
        self.success_reward, self.reward_range = inner.success_reward, inner.reward_range

    def tasks(self, split: str) -> Sequence[Task]:
        return self._inner.tasks(split)

    def action_of(self, message: Message) -> str:
        return self._inner.action_of(message)

    def make(self) -> Environment:
        return Unforkable(self._inner.make())


@dataclass(frozen=True)
class Setup:
    """How to explore. `concurrency`: tasks in flight. `replicas`: processes with the model. The
    others are arguments of `TransformersPolicy`."""

    concurrency: int
    max_batch: int
    prefix_cache_tokens: int = 200_000
    snapshots: bool = True
    replicas: int = 1
    shared_prefixes: bool = True
    packed_passes: bool = True


def setups(tasks: int, replicas: int) -> dict[str, Setup]:
    """As many tasks in flight as there are, where there can be several."""
    engine = Setup(tasks, 2 * tasks)
    return {
        "one at a time": Setup(1, 1, 0, snapshots=False),
        "batching": Setup(tasks, 2 * tasks, 0, snapshots=False),
        "engine": engine,
        f"engine, {replicas} replicas": replace(engine, replicas=replicas),
    }


class Passes:
    """Counts a model's forward passes and their CPU seconds, apart for those that only decode: one
    token a row."""

    def __init__(self, model: Any) -> None:
        self._sums = {
            name: dict.fromkeys(("passes", "rows", "tokens", "seconds"), 0.0)
            for name in ("decode", "prompt")
        }
        self._start = 0.0
        model.register_forward_pre_hook(lambda *_: self._begin())
        model.register_forward_hook(self._end, with_kwargs=True)

    def _begin(self) -> None:
        self._start = time.thread_time()

    def _end(self, model: Any, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
        tokens, rows = kwargs["input_ids"].numel(), output.logits.shape[:-1].numel()
        sums = self._sums["decode" if tokens == rows else "prompt"]
        for name, value in (("passes", 1), ("rows", rows), ("tokens", tokens)):
            sums[name] += value
        sums["seconds"] += time.thread_time() - self._start

    def report(self, loop_seconds: float, cpu_seconds: float) -> dict[str, float]:
        """Where the CPU seconds went; `rows_per_pass` is over both kinds of passes."""
        decode, prompt = self._sums["decode"], self._sums["prompt"]
        passes = decode["passes"] + prompt["passes"]
        seconds = decode["seconds"] + prompt["seconds"]
        return {
            "decoding_passes": decode["passes"],
            "decoding_seconds": round(decode["seconds"], 2),
            "prompt_passes": prompt["passes"],
            "prompt_seconds": round(prompt["seconds"], 2),
            "tokens_per_prompt_pass": round(prompt["tokens"] / max(1, prompt["passes"]), 1),
            "rows_per_pass": round((decode["rows"] + prompt["rows"]) / max(1, passes), 1),
            "other_policy_seconds": round(cpu_seconds - loop_seconds - seconds, 2),
            "loop_seconds": round(loop_seconds, 2),
        }


def main() -> None:
    arguments = _arguments()
    folder = RunFolder.open(arguments.run)
    if folder.config.threads:
        import torch

        torch.set_num_threads(folder.config.threads)
    compared = setups(arguments.tasks, arguments.replicas)
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in compared}
    for _ in range(arguments.repeats):
        for name, setup in compared.items():
            measured[name].append(explore_once(folder, setup, arguments.tasks))
    report = {"tasks": arguments.tasks, "repeats": arguments.repeats, **_report(measured)}
    if arguments.same:
        one, many = (
            explore_once(folder, Setup(number, 128), arguments.tasks)["rows"] for number in (1, 64)
        )
        report["same_pairs_between_concurrency_1_and_64"] = {
            "pairs": len(one),
            "share": same_share(one, many),
        }
    print(json.dumps(report, indent=2))


def explore_once(folder: RunFolder, setup: Setup, count: int) -> dict[str, Any]:
    """Explore the first `count` train tasks with the folder's SFT policy. Returns what it took and,
    as `rows`, the pairs."""
    config = folder.config
    benchmark = open_benchmark(config.environment.name, config.environment.options)
    tasks = benchmark.tasks(config.environment.train_split)[:count]
    plugin = STRATEGIES.find(config.explore.strategy)
    known = StrategyContext({}, benchmark.reward_range, benchmark.success_reward)
    strategy = plugin.make(parse_options(config.explore, plugin, "explore"), known)
    params = SamplingParams(
        config.policy.temperature, config.policy.top_p, config.policy.max_new_tokens
    )
    limits = Limits(config.environment.max_steps or benchmark.max_steps, 60.0, 2)
    used = benchmark if setup.snapshots else UnforkableBenchmark(benchmark)
    policy, passes = _open(folder, setup)
    children_before = children_cpu_seconds()
    with (
        tempfile.TemporaryDirectory() as scratch,
        Journal(Path(scratch) / "journal.jsonl") as journal,
    ):
        context = ExplorationContext(
            used, policy, policy, journal, params, params, limits, config.seed
        )
        wall, processor, thread = time.perf_counter(), time.process_time(), time.thread_time()
        with Progress(str(setup), count, "tasks") as progress:
            trees: list[Tree] = []
            asyncio.run(
                explorer.explore(
                    tasks, strategy, context, setup.concurrency, progress, trees.append
                )
            )
        seconds, loop_seconds = time.perf_counter() - wall, time.thread_time() - thread
        cpu_seconds = time.process_time() - processor + children_cpu_seconds() - children_before
        summary = explorer.summarise(trees)
        rows = [to_row(pair) for tree in trees for pair in credit_of(strategy).rows(tree)]
        pairs = [(row["prompt"], row["chosen"], row["rejected"]) for row in rows]
    asyncio.run(policy.close())
    usage = summary.usage
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "pairs": len(pairs),
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
        "rows": {json.dumps(pair) for pair in pairs},
    }


def _open(folder: RunFolder, setup: Setup) -> tuple[Policy, Passes | None]:
    """The SFT policy, and the counter of its passes, if these are in this process."""
    config, checkpoint = folder.config, folder.checkpoint("sft")
    names = ("max_batch", "prefix_cache_tokens", "shared_prefixes", "packed_passes")
    settings = {name: getattr(setup, name) for name in names}
    if setup.replicas > 1:
        replicated = ReplicatedPolicy(
            config.model, checkpoint, "sft", setup.replicas, config.threads, settings
        )
        return replicated, None
    model, tokenizer = load_model(config.model, checkpoint, train=False)
    return TransformersPolicy(model, tokenizer, "sft", **settings), Passes(model)


def children_cpu_seconds() -> float:
    """CPU seconds so far of the processes that this one has started and that are still running."""
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
        same = [
            same_share(one["rows"], other["rows"]) for one, other in zip(slow, runs, strict=True)
        ]
        report[name] = {
            **_first(first),
            "seconds": spread([run["seconds"] for run in runs]),
            "cpu_seconds": spread([run["cpu_seconds"] for run in runs]),
            "pairs_per_hour": spread([3600 * run["pairs"] / run["seconds"] for run in runs]),
            **{f"times_fewer_{key}": spread(values) for key, values in ratios.items()},
            "share_of_same_pairs": spread(same),
        }
    return report


def _first(run: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value for key, value in run.items() if key not in ("seconds", "cpu_seconds", "rows")
    }


def same_share(one: set[str], other: set[str]) -> float:
    """The share of the first one's pairs that the other has, too."""
    return len(one & other) / max(1, len(one))


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
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
        "--replicas", type=int, default=2, help="processes with the model, in the last setup"
    )
    parser.add_argument(
        "--same", action="store_true", help="also compare the pairs of 1 and 64 tasks in flight"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
