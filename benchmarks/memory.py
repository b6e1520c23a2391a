"""What an exploration keeps in memory: `python -m benchmarks.memory [--tasks 100 1000 10000]
[--strategy rro] [--out FILE]`.

Explores that many tasks (decision trees, a scripted policy, the real sampler, engine and journal),
then resumes the finished journal, then makes its pairs and summary: each in a process of its own.
Prints the resident memory in MiB before the work (all is imported, the tasks are listed), and above
that its peak during the work and what is left after it; and milliseconds of processor time per
task. `--trace N` adds the N lines of code that hold most at the end of the exploration."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.trees import SHAPES, Forest, TreeWalk
from rro import plugins
from rro.environments.base import Benchmark, Environment
from rro.episodes.loop import Limits
from rro.exploration import explorer
from rro.exploration.records import read_trees
from rro.exploration.sampler import ExplorationContext
from rro.exploration.strategies.adaptive import AdaptiveExploration
from rro.exploration.strategies.base import Strategy
from rro.exploration.strategies.rising import RisingExploration
from rro.exploration.tree import Tree
from rro.learning.credit.base import CreditContext
from rro.learning.pairs import to_row, write_pairs
from rro.runs.journal import Journal
from rro.runs.progress import Progress
from rro.types import Message, SamplingParams, Task

SHALLOW = next(shape for shape in SHAPES if shape.name == "shallow")
TREES = 8  # that all tasks share: the benchmark itself must not grow with their number
STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "rro": lambda: RisingExploration(3, 3),
    "adaptive": lambda: AdaptiveExploration(),
}
WORK = ("explore", "resume", "pairs")


class Grove(Benchmark):
    """Any number of tasks on a few trees."""

    def __init__(self, tasks: int) -> None:
        self.name, self.forest, self._count = "grove", Forest(SHALLOW, TREES, seed=0), tasks
        self.max_steps = self.forest.max_steps

    def tasks(self, split: str = "train") -> Sequence[Task]:
        return [Task(str(number)) for number in range(self._count)]

    def make(self) -> Environment:
        return Walk(self.forest.trees)


class Walk(TreeWalk):
    def reset(self, task: Task, seed: int = 0) -> Sequence[Message]:
        return super().reset(Task(f"tree-{int(task.id) % TREES}"), seed)


class Watch:
    """This process's resident memory above what it was at the start, in MiB; looks every 20 ms."""

    def __init__(self) -> None:
        self._process, self._ended = psutil.Process(), threading.Event()
        gc.collect()
        self.start = self._resident()
        self._peak = self.start
        threading.Thread(target=self._look, daemon=True).start()

    def _resident(self) -> float:
        return float(self._process.memory_info().rss) / 2**20

    def _look(self) -> None:
        while not self._ended.wait(0.02):
            self._peak = max(self._peak, self._resident())

    def figures(self) -> dict[str, float]:
        """Call once, at the end."""
        gc.collect()
        self._ended.set()
        left = self._resident()
        figures = {
            "start": self.start,
            "peak": max(self._peak, left) - self.start,
            "left": left - self.start,
        }
        return {name: round(value, 1) for name, value in figures.items()}


def measure(work: str, tasks: int, strategy: str, folder: Path, trace: int) -> dict[str, Any]:
    """Do one kind of work in this process."""
    grove = Grove(tasks)
    listed = grove.tasks()
    if trace:
        tracemalloc.start()
    watch, begun = Watch(), time.process_time()
    with Journal(folder / "journal.jsonl") as journal:
        if work == "pairs":
            _pairs(journal, STRATEGIES[strategy](), listed, folder)
        else:
            _explore(grove, listed, journal, STRATEGIES[strategy]())
        seconds = time.process_time() - begun
        found: dict[str, Any] = watch.figures()
    if trace:
        found["held"] = [
            str(held) for held in tracemalloc.take_snapshot().statistics("lineno")[:trace]
        ]
    return {**found, "cpu_ms_per_task": round(1000 * seconds / tasks, 2)}


def _explore(grove: Grove, tasks: Sequence[Task], journal: Journal, strategy: Strategy) -> None:
    policy, params = grove.forest.policy(), SamplingParams()
    context = ExplorationContext(
        grove, policy, policy, journal, params, params, Limits(grove.max_steps), seed=0, iteration=1
    )
    with Progress("explore", len(tasks), "tasks", log_every=1e9) as progress:
        failed = asyncio.run(explorer.explore(tasks, strategy, context, 32, progress))
    assert not failed, failed


def _pairs(journal: Journal, strategy: Strategy, tasks: Sequence[Task], folder: Path) -> None:
    def trees() -> Iterator[Tree]:
        return read_trees(journal, ((f"1/{task.id}", task) for task in tasks))

    plugin = plugins.CREDITS.find(strategy.credit)
    credit = plugin.make(plugin.options({}), CreditContext(strategy=strategy.name))
    rows = (to_row(pair) for tree in trees() for pair in credit.rows(tree))
    assert write_pairs(rows, folder / "pairs.jsonl")
    assert explorer.summarise(trees()).tasks == len(tasks)


def in_processes(tasks: int, strategy: str, trace: int) -> dict[str, Any]:
    """All of the work, each kind in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        found = {work: _in_process(work, tasks, strategy, Path(folder), trace) for work in WORK}
        journal = Path(folder) / "journal.jsonl"
        with journal.open("rb") as lines:
            records = sum(1 for _ in lines)
        return {
            "tasks": tasks,
            "records": records,
            "journal_mib": round(journal.stat().st_size / 2**20, 1),
            **found,
        }


def _in_process(work: str, tasks: int, strategy: str, folder: Path, trace: int) -> dict[str, Any]:
    options = [
        "--tasks",
        str(tasks),
        "--strategy",
        strategy,
        "--trace",
        str(trace if work == "explore" else 0),
    ]
    command = [
        sys.executable,
        "-m",
        "benchmarks.memory",
        "--work",
        work,
        "--folder",
        str(folder),
        *options,
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@contextmanager
def _everything_imported() -> Iterator[None]:
    """What writing pairs imports is no growth."""
    import datasets  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    logging.disable(logging.WARNING)
    yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--strategy", choices=sorted(STRATEGIES), default="rro")
    parser.add_argument("--trace", type=int, default=0, metavar="N")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", choices=WORK, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        with _everything_imported():
            print(
                json.dumps(
                    measure(
                        options.work,
                        *options.tasks,
                        options.strategy,
                        options.folder,
                        options.trace,
                    )
                )
            )
        return
    found = []
    for tasks in options.tasks:
        found.append(in_processes(tasks, options.strategy, options.trace))
        print(json.dumps(found[-1]), flush=True)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
