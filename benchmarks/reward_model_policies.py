"""What a policy gains by a process reward model, at equal generated tokens, over seeds.

    python -m benchmarks.reward_model_policies FOLDER --seeds 0 1 410

From one SFT policy of each seed (or of all, `--sft-seed`) an earlier exploration is made with
rollouts alone, and process reward models are trained on it. Then each arm explores other tasks
until it has generated as many tokens: with rollouts, with a model, or with both. DPO and evaluation
on the test tasks follow. Two accounts: the labels are there already, and each arm learns from its
own pairs; or they are paid for, and each arm learns from the pairs of the earlier exploration, too.
Nothing is chosen by these figures. Every run is a run folder; what was killed goes on with the same
command. `table.md` and `table.json` are written at the end, and by `--table` of what is there."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.command import exit_code, start
from rro.config import Config, dump_toml, load_config
from rro.config.packaged import find_recipe
from rro.errors import RroError, UsageError
from rro.evaluation.statistics import Values, crossed_difference, crossed_mean
from rro.files import write_file
from rro.pipeline.check import new_run
from rro.pipeline.evaluation import evaluate_run
from rro.pipeline.reward_model import Labels, train_reward_model
from rro.pipeline.rounds import labels_to_evaluate
from rro.pipeline.run import open_run
from rro.pipeline.stages import NothingToLearn, explore, learn
from rro.pipeline.trial import shared_start
from rro.report.table_forms import Cell, Column, Table, markdown
from rro.runs.folder import RunFolder, stage_records
from rro.runs.journal import Journal

log = logging.getLogger(__name__)
TASKS = 300
"""Train tasks of the earlier exploration, at most; the arms explore those after them."""
SETTINGS = (
    "policy.replicas=1",
    "explore.concurrency=8",  # what is in flight when the tokens are spent is lost
    "evaluate.tasks=192",
    "evaluate.episodes=2",
    "evaluate.greedy=false",
)
"""Of all runs."""


SEEDS = range(410, 415)


@dataclass(frozen=True)
class Arm:
    """A way to estimate actions: settings of its exploration, and the labels of its model."""

    strategy: str
    settings: tuple[str, ...]
    labels: Labels | None = None


def _arms(strategy: str, kinds: Sequence[Labels]) -> Iterator[tuple[str, Arm]]:
    yield f"{strategy}-3", Arm(strategy, ("explore.rollouts=3",))
    yield f"{strategy}-1", Arm(strategy, ("explore.rollouts=1",))
    for kind in kinds:
        alone = ("explore.rollouts=3", "explore.pricing=prm")
        yield f"{strategy}-prm-{kind}", Arm(strategy, alone, kind)
        mixed = ("explore.rollouts=1", "explore.pricing=mixed")
        yield f"{strategy}-mixed-{kind}", Arm(strategy, mixed, kind)


ARMS = dict([*_arms("rro", ("mc", "td")), *_arms("fixed", ("mc",))])
PAID = ("rro-3", "rro-1", "rro-prm-mc", "rro-mixed-mc")
"""Those that are compared with the labels paid for, too."""


@dataclass(frozen=True)
class Comparison:
    """Where the runs are, what each exploration may generate, and the settings of all of them."""

    out: Path
    tokens: int
    settings: tuple[str, ...]
    recipe: str = "quickstart"
    sft_seed: int | None = None

    def config(self, seed: int, *settings: str) -> Config:
        """The recipe of a seed with these settings."""
        words = [*SETTINGS, *self.settings, *settings]
        return load_config(find_recipe(self.recipe), [*words, f"seed={seed}"])

    def exploring(self, seed: int, arm: Arm, start: Path, tasks: str) -> Config:
        """The recipe of an exploration from `start` on these train tasks."""
        words = [f"model.name={start}", "experts.episodes=none", "explore.tasks=none"]
        words += ["method=rro", f"explore.strategy={arm.strategy}"]
        words += [f"environment.train_split=train{tasks}"]
        words += [f"explore.budget.generated_tokens={self.tokens}", *arm.settings]
        if arm.labels is not None:
            words.append(f"explore.reward_model={self.model(seed, arm.labels)}")
        return self.config(seed, *words)

    def folder(self, seed: int, name: str) -> Path:
        """A run folder."""
        return self.out / f"seed-{seed}" / name

    def model(self, seed: int, labels: Labels) -> Path:
        """The process reward model of a seed with these labels."""
        return self.out / f"seed-{seed}" / f"model-{labels}"


def run_seed(comparison: Comparison, seed: int, names: Sequence[str]) -> None:
    """All runs of a seed that have no results yet."""
    for name in names:  # what is wrong is told before an hour of SFT
        comparison.exploring(seed, ARMS[name], Path("model"), f"[{TASKS}:]")
    start = shared_start(comparison.config(seed), comparison.out / "sft", comparison.sft_seed)
    earlier = comparison.folder(seed, "earlier")
    config = comparison.exploring(seed, ARMS["rro-3"], start, f"[:{TASKS}]")
    with open_run(*_opened(config, earlier)) as run:
        explore(run, 1)
        for kind in ("mc", "td"):
            if not comparison.model(seed, kind).exists():
                train_reward_model(run, 1, kind, output=comparison.model(seed, kind))
    configs = {n: comparison.exploring(seed, ARMS[n], start, f"[{TASKS}:]") for n in names}
    for name, config in configs.items():
        _learn(config, comparison.folder(seed, name), first=name == names[0])
    for name in (name for name in configs if name in PAID):
        joined = comparison.folder(seed, f"{name}-joined")
        if not (joined / "config.toml").exists():
            _join(configs[name], joined, earlier, comparison.folder(seed, name))
        _learn(configs[name], joined)


def _opened(config: Config, path: Path) -> tuple[RunFolder, Any]:
    if (path / "config.toml").exists():
        _ensure_same(config, path)
        return RunFolder.open(path), None
    return new_run(config, path, "explore")


def _ensure_same(config: Config, path: Path) -> None:
    """Raises UsageError where a run was made with other settings: figures do not mix."""
    if dump_toml(RunFolder.open(path).config) != dump_toml(config):
        raise UsageError(f"{path} was made with other settings: name another folder")


def _learn(config: Config, path: Path, first: bool = False) -> None:
    """Explore, train and evaluate; the policy that all start from with the first run alone."""
    if (path / "results.json").exists():
        return _ensure_same(config, path)
    with open_run(*_opened(config, path)) as run:
        try:
            learn(run)
        except NothingToLearn as error:
            log.warning("%s: measured as it started: %s", path.name, error)
        labels = labels_to_evaluate(run)
        evaluate_run(run, labels if first else labels[-1:])
    print(f"{path.parent.name} {path.name}: done", flush=True)


def _join(config: Config, path: Path, earlier: Path, own: Path) -> None:
    """A run that has explored what `own` has, and whose pairs are those of both."""
    path.mkdir(parents=True, exist_ok=True)
    with (own / "journal.jsonl").open(encoding="utf-8") as lines:
        kept = [line for line in lines if not _is_later(json.loads(line))]
    write_file(path / "journal.jsonl", "".join(kept))
    pairs = [RunFolder.open(run).pairs(1).read_text(encoding="utf-8") for run in (earlier, own)]
    write_file(RunFolder(path, config).pairs(1), "".join(pairs))
    RunFolder.create(config, path)


def _is_later(record: Mapping[str, Any]) -> bool:
    """Whether a journal's record is of what follows the exploration."""
    kind, key = record["kind"], record["key"]
    return kind == "evaluation" or (kind == "stage" and not key.startswith("explore"))


def rows_of(comparison: Comparison, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """A row for each arm and account, of the seeds that have it."""
    rows = []
    for strategy, paid in (("rro", False), ("rro", True), ("fixed", False)):
        names = PAID if paid else [n for n, arm in ARMS.items() if arm.strategy == strategy]
        trials = {name: _trials(comparison, seeds, name, paid) for name in names}
        for name, found in trials.items():
            if found:
                base = {} if name == names[0] else trials[names[0]]
                rows.append(
                    {"arm": name, "labels": "paid" if paid else "there"} | _figures(found, base)
                )
    return rows


@dataclass(frozen=True)
class Trial:
    """Rewards by task of a policy and of the one that it started from (None: not measured), and
    what was explored for it."""

    rewards: Values
    start: Values | None
    explored: Sequence[Mapping[str, Any]]
    pairs: int


def _trials(
    comparison: Comparison, seeds: Sequence[int], name: str, paid: bool
) -> dict[int, Trial]:
    found = {}
    for seed in seeds:
        folder = comparison.folder(seed, f"{name}-joined" if paid else name)
        if not (folder / "results.json").exists():
            continue
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        rewards = {row["label"]: row["rewards"] for row in results["evaluations"]}
        explored = [results["stages"]["explore-1"]]
        if paid:
            with _journal(comparison.folder(seed, "earlier")) as journal:
                explored.append(stage_records(journal)["explore-1"])
        pairs = results["stages"].get("optimise-1", {"pairs": 0})["pairs"]
        last = results["evaluations"][-1]["label"]
        found[seed] = Trial(rewards[last], rewards.get("base"), explored, pairs)
    return found


def _journal(folder: Path) -> Journal:
    return Journal(RunFolder.open(folder).journal, read_only=True)


def _figures(trials: Mapping[int, Trial], base: Mapping[int, Trial]) -> dict[str, Any]:
    own = {seed: trial.rewards for seed, trial in trials.items()}
    starts = {s: trial.start for s, trial in trials.items() if trial.start is not None}
    row: dict[str, Any] = {"seeds": len(trials), "reward": crossed_mean(own).plain()}
    if starts:
        row["start"] = crossed_mean(starts).plain()
    if own.keys() & base.keys():
        other = {seed: trial.rewards for seed, trial in base.items()}
        row["difference"] = crossed_difference(own, other).plain()
    row["pairs"] = fmean(trial.pairs for trial in trials.values())
    row["tasks"] = fmean(sum(each["tasks"] for each in t.explored) for t in trials.values())
    for name in ("generated_tokens", "prompt_tokens", "policy_calls"):
        row[name] = fmean(sum(e["usage"][name] for e in t.explored) for t in trials.values())
    return row


def write(comparison: Comparison, seeds: Sequence[int]) -> Path:
    """Write table.md and table.json; returns the first. Raises RroError where nothing is done."""
    rows = rows_of(comparison, seeds)
    if not rows:
        raise RroError(f"{comparison.out}: no run is finished")
    intervals = ("reward", "difference", "start")
    names = ("seeds", "tasks", "pairs", "generated_tokens", "prompt_tokens", "policy_calls")
    columns = (
        *(Column(name, "key") for name in ("arm", "labels")),
        *(Column(name, "interval") for name in intervals),
        *map(Column, names),
    )
    cells: list[list[Cell]] = [[row.get(column.name) for column in columns] for row in rows]
    models = {
        f"{seed} {kind}": json.loads((path / "process_rewards.json").read_text())["measured"]
        for seed in seeds
        for kind in ("mc", "td")
        if (path := comparison.model(seed, kind)).exists()
    }
    write_file(
        comparison.out / "table.json", json.dumps({"rows": rows, "models": models}, indent=1)
    )
    file = comparison.out / "table.md"
    write_file(file, markdown(Table("table", "Process reward models", columns, cells)))
    return file


def _seeds(out: Path) -> list[int]:
    """The seeds that a folder has runs of."""
    return sorted(int(path.name.removeprefix("seed-")) for path in out.glob("seed-*"))


def main(words: Sequence[str] | None = None) -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder of the runs")
    parser.add_argument("--seeds", nargs="+", type=int, help="default: 410 to 414, or all there")
    parser.add_argument("--tokens", type=int, default=20_000, help="of each exploration")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of all runs")
    parser.add_argument("--recipe", default="quickstart", help="of the SFT policy and all runs")
    parser.add_argument(
        "--sft-seed", type=int, help="seed of one SFT policy for all (default: each its own)"
    )
    parser.add_argument("--table", action="store_true", help="run nothing")
    options = parser.parse_args(words)
    comparison = Comparison(
        options.out, options.tokens, tuple(options.set), options.recipe, options.sft_seed
    )

    def work() -> None:
        seeds = options.seeds or (_seeds(options.out) if options.table else SEEDS)
        for seed in () if options.table else seeds:
            run_seed(comparison, seed, options.arms)
        print(write(comparison, seeds))

    return exit_code("benchmarks.reward_model_policies", work)


if __name__ == "__main__":
    start(main)
