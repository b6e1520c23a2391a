"""Whole runs of a model with some thousand parameters, each in a forked process: it takes a second
or two, and can be killed at any moment."""

from __future__ import annotations

import json
from pathlib import Path

import forked
from forked import Forked

from rro.environments.base import Environment, TaskList
from rro.policies.scripted import ScriptedPolicy
from rro.seeds import derive_seed
from rro.types import Message, Source, StepResult, Task

RECIPE = """
name = "small"
seed = 3
threads = 1
[environment]
name = "small_runs:open_letters"
[model]
device = "cpu"
[model.tiny]
hidden_size = 16
intermediate_size = 16
layers = 1
heads = 2
kv_heads = 2
vocabulary = 280
context = 128
[policy]
max_new_tokens = 3
[experts]
episodes = 8
[sft]
epochs = 1
batch_size = 4
micro_batch = 4
save_steps = 1
[explore]
tasks = 6
concurrency = 6
[dpo]
epochs = 1
batch_size = 8
micro_batch = 8
save_steps = 1
[evaluate]
tasks = 3
episodes = 2
greedy = false
bootstrap = 100
"""
# Each with the settings that it needs beyond its name.
STRATEGIES = {
    "rro": ["explore.rollouts=2", "explore.candidates=2"],
    "adaptive": [],
    # Greedily, a model that has learned nothing says nothing.
    "ipr": [
        "explore.rollouts=2",
        "explore.ipr.play_on=true",
        "explore.proposal_temperature=1.0",
        "dpo.sft_weight=1.0",
        "dpo.sft_loss=sum",
    ],
    "eto": ["credit.outcome_pairs.directions=both", "dpo.reference=previous"],
    "rft": [],
    "fixed": ["explore.rollouts=2", "explore.candidates=2"],
    "replicas": ["explore.strategy=rro", "explore.rollouts=2", "policy.replicas=2"],
}


class Letters(Environment):
    """Two turns. Any text is an action, and what it is worth depends on all that was said: so a
    model that has learned nothing gives pairs."""

    def reset(self, task, seed=0):
        self.said = (task.id,)
        return [Message("user", f"say something, {task.id}")]

    def step(self, action):
        self.said += (action.content,)
        worth, done = derive_seed(*self.said) % 3 / 2, len(self.said) == 3
        return StepResult("end" if done else f"go on {worth}", worth if done else 0.0, done)

    def snapshot(self):
        return self.said

    def restore(self, snapshot):
        self.said = snapshot


def open_letters():
    """A benchmark of Letters."""
    tasks = [Task(f"letter-{number}") for number in range(20)]

    def expert(task, noise, seed):
        return ScriptedPolicy(lambda messages, rng: "ab"[rng.randrange(2)], "e", Source.EXPERT)

    return TaskList("letters", Letters, {"train": tasks, "test": tasks[10:]}, 3, expert=expert)


def recipe(folder: Path, strategy: str) -> Path:
    """The recipe of a small run with that strategy."""
    file = folder / f"{strategy}.toml"
    file.write_text(RECIPE)
    return file


def start(*arguments: object) -> Forked:
    """`rro` with these arguments; `said` has what it prints."""
    return forked.start(*arguments, search=[Path(__file__).parent])


def new_run(folder: Path, strategy: str, out: Path) -> Forked:
    """A new run with one of STRATEGIES."""
    chosen = [] if strategy == "replicas" else [f"explore.strategy={strategy}"]
    settings = [*chosen, *STRATEGIES[strategy]]
    return start("run", recipe(folder, strategy), *settings, "--out", out)


def finish(process: Forked) -> int:
    """Wait for the end; returns the exit code."""
    return process.ended(300).returncode


def said(process: Forked) -> str:
    """What an ended process printed."""
    ended = process.ended()
    return ended.stdout + ended.stderr


def outcome(run: Path) -> object:
    """What must not depend on interruptions: all but times, and what failed attempts cost."""
    if not (run / "results.json").exists():
        return sorted(path.name for path in run.glob("pairs-*.jsonl"))
    results = json.loads((run / "results.json").read_text())
    stages = {
        name: {key: stage.get(key) for key in ("tasks", "steps", "pairs", "rising", "failed_tasks")}
        for name, stage in results["stages"].items()
    }
    rewards = [(row["label"], row["mode"], row["rewards"]) for row in results["evaluations"]]
    pairs = [path.read_text() for path in sorted(run.glob("pairs-*.jsonl"))]
    return stages, rewards, pairs


def keys(run: Path) -> list[tuple[str, str]]:
    """Kind and key of every record of the journal."""
    lines = (run / "journal.jsonl").read_text().splitlines()
    return [(record["kind"], record["key"]) for record in map(json.loads, lines)]
