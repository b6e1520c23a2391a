"""Small runs to look at: real explorations of trees whose pages are long, with evaluations, in run
folders."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

from fakes import (
    TREE,
    ForkableTreeEnvironment,
    TreeBenchmark,
    explore,
    finished_trees,
    make_context,
    pairs_of,
)

from rro.config import Config, parse_config
from rro.evaluation.evaluate import evaluate
from rro.exploration.strategies.group import Group
from rro.exploration.strategies.rising import RisingExploration
from rro.jsonl import storable
from rro.learning.pairs import to_row, write_pairs
from rro.policies.scripted import ScriptedPolicy
from rro.report.gather import Gatherer
from rro.report.pack import unpack
from rro.runs.folder import RunFolder
from rro.runs.journal import Journal
from rro.runs.progress import Progress
from rro.types import SamplingParams

WORDS = (
    "quiet",
    "sturdy",
    "folding",
    "rustic",
    "glossy",
    "vintage",
    "woven",
    "tent",
    "quilt",
    "lantern",
    "kettle",
    "mirror",
)


class Wordy(ForkableTreeEnvironment):
    """Its observations begin with a page of words that no other task or place has."""

    length = 0

    def show(self) -> str:
        page = " ".join(random.Random(f"{self.task} {self.path}").choices(WORDS, k=self.length))
        return f"{page}at {'/'.join(self.path)}: go {' '.join(self.here())}"


class Long(Wordy):
    length = 180


def speaker(messages, rng) -> str:
    """Takes each action equally often, wherever in the observation they stand."""
    return rng.choice(messages[-1].content.rpartition(": go ")[2].split())


def make_run(
    folder: Path,
    trees,
    *,
    environment=Wordy,
    strategy=None,
    evaluated=("sft", "rro-1"),
    name="toy",
    seed=0,
) -> RunFolder:
    """A finished run: explored once, both policies evaluated (they are the same one, at two
    temperatures)."""
    config: Config = parse_config(
        {"name": name, "seed": seed, "evaluate": {"bootstrap": 200}}, "toy"
    )
    run, benchmark = RunFolder.create(config, folder), TreeBenchmark(trees, environment)
    with Journal(run.journal) as journal:
        context = make_context(
            benchmark, ScriptedPolicy(speaker, f"{name}/sft"), journal, iteration=1, seed=seed
        )
        strategy = strategy or RisingExploration(3, 4)
        assert explore(strategy, context) == []
        trees = finished_trees(journal, "1/").values()
        rows = [to_row(pair) for tree in trees for pair in pairs_of(strategy, tree, 1)]
        pairs = write_pairs(rows, run.pairs(1))
        journal.append("stage", "explore-1", {"seconds": 2.5, "pairs": pairs, "failed_tasks": 0})
        for label in evaluated:
            _evaluate(benchmark, journal, label, context)
    return run


def steps_in_report(folder: Path, benchmark, policy, strategy, **changes) -> list[dict]:
    """Explores a benchmark's train tasks in a new run; returns every step that the run's report
    shows, those of nodes first, then those of rollouts and episodes."""
    run = RunFolder.create(parse_config({"name": "toy"}, "toy"), folder)
    with Journal(run.journal) as journal:
        context = make_context(benchmark, policy, journal, iteration=1, **changes)
        assert explore(strategy, context) == []
        journal.append("stage", "explore-1", {"seconds": 1.0, "pairs": 0, "failed_tasks": 0})
    head, chunks = gathered(run.path)
    nodes, played = [], []
    for _, tree, text in trees(head, chunks):
        assert tree["finished"]
        for node in tree["nodes"]:
            nodes += [(node["step"], text)] if "step" in node else []
            for run in (*node["rollouts"], *node.get("episodes", ())):
                played += [(step, text) for step in run["steps"]]
        for run in tree["episodes"]:
            played += [(step, text) for step in run["steps"]]
    return [_shown(step, text) for step, text in (*nodes, *played)]


def _shown(step, text) -> dict:
    action, observation, invalid, *_, info = step
    said = {} if info is None else json.loads(text(info))
    seen = {"action": text(action), "observation": text(observation), "invalid": bool(invalid)}
    return {**seen, "info": said}


def make_rounds(folder: Path, trees, count: int = 4, **config) -> RunFolder:
    """A run of several rounds of a group of episodes with forks, each trained with figures of its
    own; the last round taught nothing."""
    tree = {"name": "rounds", "explore": {"strategy": "group"}, "rounds": {"count": count}}
    run = RunFolder.create(parse_config(tree | config, "toy"), folder)
    benchmark = TreeBenchmark(trees)
    with Journal(run.journal) as journal:
        for number in range(1, count + 1):
            policy = ScriptedPolicy(speaker, f"rounds/{number}")
            context = make_context(benchmark, policy, journal, iteration=number)
            assert explore(Group(episodes=4, waves=1), context) == []
            journal.append("stage", f"explore-{number}", {"seconds": 1.0})
            metrics = {"loss": 1 / number, "entropy": 2.0, "clipped": 0.001 * number, "step": 2}
            trained = (
                {"skipped": True}
                if number == count
                else {"training": {"metrics": metrics, "steps": 2}}
            )
            journal.append("stage", f"optimise-{number}", {"seconds": 1.0, **trained})
        for label in ("sft", f"group-{count}"):
            _evaluate(benchmark, journal, label, context)
    return run


def _evaluate(benchmark, journal, label, context) -> None:
    tasks = benchmark.tasks("test")
    with Progress("evaluate", len(tasks), "episodes") as progress:
        asyncio.run(
            evaluate(
                tasks, benchmark, ScriptedPolicy(speaker, label), journal, label=label,
                mode="sampled", episodes=1, params=SamplingParams(), limits=context.limits,
                seed=len(label), concurrency=8, progress=progress,
            )
        )  # fmt: skip


HOSTILE = (
    "</script><script>window.owned = 1</script>",
    "<img src=x onerror=window.owned=1>",
    "<!-- <script>",
    "]]> \u2028 \u2029 \\u003c/script\\u003e",
    "javascript:window.owned=1",
    "@SCRIPT@ @DATA@ ${window.owned=1} {{constructor.constructor('window.owned=1')()}}",
    "\x00\x1b[2J\ud800\u202e&lt;b&gt;&amp;",
    "'\"><svg onload=window.owned=1>",
)


def hostile_trees():
    """Tasks, actions and observations that try to be more than text. An action has no space: the
    toy's policy splits there."""
    actions = {text.replace(" ", "_"): reward / 10 for reward, text in enumerate(HOSTILE)}
    ids = [storable(f"{text} #{number}") for number, text in enumerate(HOSTILE)]
    return {task: {**actions, "deeper": dict(actions)} for task in ids}


FOREST = {f"task/{number}": TREE for number in range(12)}


def gathered(*folders):
    """The head, and the chunks decoded."""
    with Gatherer(folders) as gatherer:
        head, chunks = gatherer.whole()
    return head, [unpack(chunk) for chunk in chunks]


def trees(head, chunks):
    """(entry of the list, tree, text of a number) of each task."""
    for entry in head["tasks"]:
        chunk = chunks[int(entry["chunk"])]
        yield entry, chunk["tasks"][entry["place"]], chunk["strings"].__getitem__
