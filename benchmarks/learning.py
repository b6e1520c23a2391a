"""Which way of learning makes most of the tokens that a policy generates: rewards after equal
numbers of them, over seeds.

    python -m benchmarks.learning OUT --methods gigpo,rising --seeds 5-9 --tokens 60000
    python -m benchmarks.learning OUT --reduced

Every trial starts from one SFT policy of its place, made first. A trial is a run folder, so what
was killed goes on where it stopped; trials run in processes of their own. Trials with `--validate`
are measured on goals that no test task shares: settings (`--set KEY=VALUE`) are chosen there.
`python -m benchmarks.learning_table FOLDER` compares the finished trials. The reduced form takes
minutes: exact credit, none and two of ours in the rooms (benchmarks/rooms.py), with the comparison
in OUT/learning.json and OUT/learning.png."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Place:
    """Where trials learn: a recipe, the overrides of all trials, the split or slice of train goals
    for choosing settings, the tasks and episodes a task of a round where a method does not say, and
    the credit that knows the place's values."""

    recipe: str
    trials: tuple[str, ...]
    validation: str = "train[-200:]"
    tasks: int = 4
    episodes: int = 8
    known: str = "benchmarks.learning_controls:KnownValues"


EPISODES = ("evaluate.tasks=200", "evaluate.episodes=2")
HELD_BACK = ("environment.train_split=train[:-200]",)
GIGPO = ("method=gigpo", "optimise.policy_gradient.learning_rate=3e-4")
PLACES = {
    "long-shop": Place("recipes/long-shop.toml", EPISODES),
    "webshop-1k": Place("recipes/webshop-1k-tiny.toml", (*EPISODES, *HELD_BACK)),
    "quickstart": Place("recipes/quickstart.toml", (*GIGPO, *EPISODES, *HELD_BACK)),
    "rooms": Place(
        "benchmarks/rooms.toml",
        ("evaluate.episodes=1",),
        validation="validation",
        tasks=2,
        episodes=16,
        known="benchmarks.rooms:KnownValues",
    ),
}

# Rounds of about 32 episodes, so that trials end near their tokens.
GROUPS = (
    "explore.strategy=group",
    "explore.tasks={tasks}",
    "explore.options.episodes={episodes}",
    "optimise.learner=policy_gradient",
    "rounds.count=1000",
    "rounds.evaluate_every=1000",
)
IMITATE = ("optimise.policy_gradient.imitate=0.3", "closing.successes=1")
NO_ADVANTAGES = ("optimise.policy_gradient.advantages=false",)
RISING = (
    "credit.name=tree_advantages",
    "credit.options.leave_one_out=false",
    "credit.options.shrink=0",
)
BATCH = ("optimise.policy_gradient.scale=batch",)
FORKS = ("explore.options.episodes=6", "explore.options.waves=2", "explore.options.forks=4")
FOUR = ("explore.tasks=8", "explore.options.episodes=4")
ONE = ("explore.tasks=32", "explore.options.episodes=1")
SOLVE = ("explore.options.until=success", "explore.tasks=20")
UNTIL = ("explore.options.until=disagree", "explore.tasks=10")
PAIRS = (
    "explore.tasks=1000",
    "optimise.learner=dpo",
    "rounds.count=3",
    "rounds.evaluate_every=3",
    "explore.budget.generated_tokens={third}",
    "closing.successes=1",
)
METHODS: dict[str, tuple[str, ...]] = {
    "grpo": (*GROUPS, "credit.name=group_advantages", *IMITATE),
    "gigpo": (*GROUPS, "credit.name=anchor_advantages", *IMITATE),
    "gigpo-4": (*GROUPS, *FOUR, "credit.name=anchor_advantages", *IMITATE),
    "rising-4": (*GROUPS, *FOUR, *RISING, *BATCH, *IMITATE),
    "rising": (*GROUPS, *RISING, *BATCH, *IMITATE),
    "rising-forks": (*GROUPS, *RISING, *BATCH, *FORKS, *IMITATE),
    "gigpo-forks": (*GROUPS, "credit.name=anchor_advantages", *FORKS, *IMITATE),
    # Groups that end with the first two outcomes that disagree: as many tokens go to more tasks.
    "until": (*GROUPS, *UNTIL, *RISING, *BATCH, *IMITATE),
    "solve": (*GROUPS, *SOLVE, *RISING, *BATCH, *IMITATE),
    # Up to the first success, with no advantages: only successes are imitated.
    "first-success": (*GROUPS, *SOLVE, *NO_ADVANTAGES, *IMITATE),
    "gigpo-until": (*GROUPS, *UNTIL, "credit.name=anchor_advantages", *IMITATE),
    # Pairs and DPO in three rounds, with the same pass over its successes at the end.
    "dpo": (*PAIRS, "explore.strategy=adaptive", "credit.name=credible_pairs"),
    "dpo-rro": (*PAIRS, "explore.strategy=rro", "credit.name=pairs"),
    # Credit alone, no imitation: from the place's known values, none within an episode, that of
    # anchors, and that of steps; then imitation of one episode a task.
    "known": (*GROUPS, "credit.name={known}", *BATCH),
    "episodes": (*GROUPS, "credit.name=group_advantages", *BATCH),
    "anchors": (*GROUPS, "credit.name=anchor_advantages", *BATCH),
    "steps": (*GROUPS, *RISING, *BATCH),
    "tree": (*GROUPS, "credit.name=tree_advantages", *BATCH),
    "tree-forks": (*GROUPS, "credit.name=tree_advantages", *BATCH, *FORKS),
    "successes": (*GROUPS, *ONE, *NO_ADVANTAGES, *IMITATE),
}


REDUCED = {
    "place": "rooms",
    "methods": "known,episodes,anchors,tree",
    "seeds": [0, 1, 2],
    "tokens": 4000,
}


@dataclass(frozen=True)
class Trial:
    """One run: a method with settings of its own at a place, from one seed."""

    place: str
    method: str
    seed: int
    tokens: int
    validate: bool
    settings: tuple[str, ...] = ()

    def folder(self, out: Path) -> Path:
        """Its run folder, named after all that makes it."""
        pairs = [setting.partition("=") for setting in self.settings]
        settings = [f"{key.rpartition('.')[2]}={value}" for key, _, value in pairs]
        name = ",".join([self.method, *settings])
        split = "validation" if self.validate else "test"
        return out / self.place / f"{split}-{self.tokens}" / name / f"seed-{self.seed}"

    def overrides(self, base: Path) -> list[str]:
        """What it changes of its place's recipe."""
        place = PLACES[self.place]
        filled = {**asdict(place), "third": self.tokens // 3}
        split = [f"environment.test_split={place.validation}"] * self.validate
        return [
            *place.trials,
            *(setting.format(**filled) for setting in METHODS[self.method]),
            "policy.replicas=1",
            f"model.name={base / 'checkpoints' / 'sft'}",
            f"rounds.generated_tokens={self.tokens}",
            f"seed={self.seed}",
            *split,
            *self.settings,
        ]


def base_run(place: str, out: Path) -> Path:
    """The run folder whose SFT policy all trials of a place start from."""
    folder = out / place / "base"
    if not folder.exists():
        subprocess.run(_python("rro", "sft", PLACES[place].recipe, "--out", folder), check=True)
    subprocess.run(_python("rro", "sft", folder), check=True)
    return folder


def run_trial(trial: Trial, out: Path) -> None:
    """Learn, then evaluate the last policy, and that of the closing pass."""
    from rro.config import load_config
    from rro.pipeline.check import new_run
    from rro.pipeline.evaluation import evaluate_run
    from rro.pipeline.rounds import labels_to_evaluate
    from rro.pipeline.run import open_run
    from rro.pipeline.stages import learn
    from rro.runs.folder import RunFolder

    path = trial.folder(out)
    if path.exists():
        folder, benchmark = RunFolder.open(path), None
    else:
        recipe = ROOT / PLACES[trial.place].recipe
        config = load_config(recipe, trial.overrides(out.resolve() / trial.place / "base"))
        folder, benchmark = new_run(config, path)
    with open_run(folder, benchmark) as run:
        learn(run)
        evaluate_run(run, labels_to_evaluate(run)[1:])


def _python(*words: object) -> list[str]:
    return [sys.executable, "-m", *map(str, words)]


def _start(trial: Trial, out: Path) -> None:
    """One trial in a process of its own, unless it has results."""
    folder = trial.folder(out)
    if (folder / "results.json").exists():
        return
    begun, log = time.monotonic(), folder.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    words: list[object] = ["benchmarks.learning", out, "--place", trial.place, "--one"]
    words += ["--methods", trial.method, "--seeds", trial.seed, "--tokens", trial.tokens]
    words += ["--validate"] * trial.validate + ["--set", *trial.settings] * bool(trial.settings)
    with log.open("a", encoding="utf-8") as lines:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(_python(*words), stdout=lines, stderr=lines, env=environment)
    said = f"{time.monotonic() - begun:.0f} s" if done.returncode == 0 else f"failed, see {log}"
    print(f"{folder.relative_to(out)}: {said}", flush=True)


def _seeds(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def main(words: Sequence[str] | None = None) -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(prog="benchmarks.learning", description=__doc__)
    parser.add_argument("out", type=Path, help="folder of the trials")
    parser.add_argument("--place", choices=PLACES, default="long-shop")
    parser.add_argument("--methods", default="gigpo,rising", help=", ".join(METHODS))
    parser.add_argument("--seeds", type=_seeds, default=[0], metavar="N or N-M")
    parser.add_argument("--tokens", type=int, default=60_000, help="generated in a trial, about")
    parser.add_argument("--validate", action="store_true", help="measure on validation goals")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings")
    parser.add_argument("--workers", type=int, default=2, help="trials at a time")
    parser.add_argument("--reduced", action="store_true", help="the form that takes minutes")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.reduced:
        vars(options).update(REDUCED)
    trials = [
        Trial(options.place, method, seed, options.tokens, options.validate, tuple(options.set))
        for seed in options.seeds
        for method in options.methods.split(",")
    ]
    if options.one:
        run_trial(trials[0], options.out)
        return
    base_run(options.place, options.out)
    with ThreadPoolExecutor(options.workers) as pool:
        list(pool.map(lambda trial: _start(trial, options.out), trials))
    if options.reduced:
        compare(trials[0].folder(options.out).parent.parent, options.out)


def compare(folder: Path, out: Path) -> None:
    """Print the table of a folder of trials; write its figures and a plot to `out`."""
    from benchmarks.learning_table import main as table

    files = ["--json", str(out / "learning.json"), "--plot", str(out / "learning.png")]
    table([str(folder), "--first", "episodes", *files])


if __name__ == "__main__":
    main()
