"""The table, curves and JSON of `benchmarks.results`.

A figure is the mean over seeds of the means over test tasks; its interval is over seeds and tasks
(rro.evaluation.statistics). Differences to the first method are paired by seed and task. Costs are
those of learning: all rounds and the closing pass."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from benchmarks.learning_table import MODES, curve
from rro.errors import RroError
from rro.evaluation.results import LearningCost, RewardScale, kept_scale, learning_cost
from rro.evaluation.statistics import FEWEST_TASKS, Values, crossed_difference, crossed_mean
from rro.files import write_file
from rro.report.table_forms import Cell, Column, Table, markdown
from rro.runs.journal import Journal

if TYPE_CHECKING:
    from benchmarks.results import Comparison, Trial

_COSTS = tuple(LearningCost.__dataclass_fields__)


@dataclass(frozen=True)
class Finished:
    """What a trial came to. `rewards`: by (policy, mode), the policy "last" or "closing", then by
    task. `played`: after each round, the tokens generated so far and the mean outcome of that
    round's episodes from the start, which its policy before the round played. `evaluated`: the
    tokens generated until each evaluated policy, and its mean reward by mode."""

    seed: int
    rewards: Mapping[tuple[str, str], Values]
    scale: RewardScale
    cost: LearningCost
    played: Sequence[tuple[int, float]]
    evaluated: Sequence[tuple[int, str, float]]

    def successes(self, policy: str, mode: str) -> Values:
        """By task, 1 for each success."""
        return {
            task: [float(value >= self.scale.success) for value in values]
            for task, values in self.rewards[policy, mode].items()
        }


def finished(folder: Path) -> Finished:
    """Read a trial's run folder. Raises RroError where its results are damaged."""
    file = folder / "results.json"
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        raise RroError(f"{file} is damaged: delete it, and the same command writes it") from None
    rows, stages = results["evaluations"], results["stages"]
    labels = list(dict.fromkeys(row["label"] for row in rows))
    closing = next((label for label in labels if label.endswith("-closing")), None)
    last = next((label for label in reversed(labels) if label != closing), None)
    names = {closing: "closing", last: "last"}
    spent = [stages[name]["usage"] for name in stages if name.startswith("explore-")]
    tokens = [usage["generated_tokens"] for usage in spent]
    with Journal(folder / "journal.jsonl", read_only=True) as journal:
        scale = kept_scale(journal)
    return Finished(
        int(results["seed"]),
        {
            (names[row["label"]], row["mode"]): row["rewards"]
            for row in rows
            if row["label"] in names
        },
        replace(scale, success=results["success_reward"]),
        learning_cost(stages),
        curve(folder, tokens),
        [
            (sum(tokens[: _round(row["label"], len(tokens))]), row["mode"], row["reward"]["mean"])
            for row in rows
        ],
    )


def _round(label: str, rounds: int) -> int:
    """The round that a label names: a policy before the first has none, the closing pass all."""
    number = label.rpartition("-")[2]
    if number == "closing":
        return rounds
    return int(number) if number.isdecimal() else 0


Found = Mapping[tuple[str, str], Sequence[Finished]]


def rows_of(found: Found, first: str) -> list[dict[str, Any]]:
    """A row for each environment, method and policy."""
    rows = []
    for (environment, method), trials in found.items():
        base = [] if method == first else found.get((environment, first), [])
        for policy in ("last", "closing"):
            if all((policy, MODES[0]) in trial.rewards for trial in trials):
                names = {"environment": environment, "method": method, "policy": policy}
                rows.append(names | _figures(trials, base, policy))
    return rows


def _figures(trials: Sequence[Finished], base: Sequence[Finished], policy: str) -> dict[str, Any]:
    row: dict[str, Any] = {"seeds": len(trials)}
    for mode in MODES:
        if not all((policy, mode) in trial.rewards for trial in trials):
            continue
        own = {trial.seed: trial.rewards[policy, mode] for trial in trials}
        successes = {trial.seed: trial.successes(policy, mode) for trial in trials}
        possible = trials[0].scale.range
        row[f"{mode}_reward"] = crossed_mean(own).within(*possible).plain()
        row[f"{mode}_success"] = crossed_mean(successes).within(0.0, 1.0).plain()
        other = {
            trial.seed: trial.rewards[policy, mode]
            for trial in base
            if (policy, mode) in trial.rewards
        }
        if own.keys() & other.keys():
            row[f"{mode}_difference"] = crossed_difference(own, other).plain()
    costs = {name: fmean(getattr(trial.cost, name) for trial in trials) for name in _COSTS}
    return row | costs


def table_of(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """The rows as a table."""
    intervals = [f"{mode}_{name}" for mode in MODES for name in ("reward", "success", "difference")]
    columns = (
        *(Column(name, "key") for name in ("environment", "method", "policy")),
        Column("seeds"),
        *(Column(name, "interval") for name in intervals if any(name in row for row in rows)),
        *(Column(name) for name in _COSTS),
    )
    cells: list[list[Cell]] = [[_cell(row.get(each.name)) for each in columns] for row in rows]
    return Table("results", title, columns, cells)


def remarks(rows: Sequence[Mapping[str, Any]], first: str) -> str:
    """How the rows of a table are read: what they have of differences and intervals."""
    paired = any(f"{mode}_difference" in row for row in rows for mode in MODES)
    differences = f"Differences: minus {first}, paired by seed and task. " if paired else ""
    given = [value for row in rows for value in row.values() if isinstance(value, Mapping)]
    if any(value.get("low") is not None for value in given):
        return f"{differences}Intervals: 95 %, over seeds and tasks."
    return f"{differences}No intervals: they take two seeds and {FEWEST_TASKS} tasks."


def _cell(value: Any) -> Cell:
    return round(value) if isinstance(value, float) else value


def write(comparison: Comparison, trials: Sequence[Trial]) -> Path:
    """Write results.md, results.json and, with matplotlib, pictures; returns the first. Raises
    RroError where no trial is finished."""
    found: dict[tuple[str, str], list[Finished]] = {}
    missing = []
    for trial in trials:
        folder = comparison.folder(trial)
        if (folder / "results.json").exists():
            found.setdefault((trial.environment, trial.method), []).append(finished(folder))
        else:
            missing.append(f"{trial.environment} {trial.method} seed {trial.seed}")
    if not found:
        raise RroError("no trial is finished: see the logs beside the run folders")
    rows = rows_of(found, comparison.first)
    note = f"{remarks(rows, comparison.first)} Missing trials: {', '.join(missing) or 'none'}.\n"
    file = comparison.out / "results.md"
    write_file(file, f"{markdown(table_of(rows, comparison.file.stem))}\n{note}")
    curves = {
        environment: {
            method: [
                {"seed": each.seed, "played": each.played, "evaluated": each.evaluated}
                for each in found[environment, method]
            ]
            for there, method in found
            if there == environment
        }
        for environment in dict.fromkeys(environment for environment, _ in found)
    }
    settings = {f"{t.environment} {t.method}": comparison.settings(t)[:-1] for t in trials}
    plan = comparison.plan.model_dump(mode="json")
    whole = {"plan": plan, "settings": settings, "missing": missing, "rows": rows, "curves": curves}
    write_file(comparison.out / "results.json", json.dumps(whole, indent=1) + "\n")
    _plot(found, rows, comparison.out)
    return file


def _plot(found: Found, rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return
    from benchmarks.learning_plot import plot, plot_rewards

    for environment in dict.fromkeys(environment for environment, _ in found):
        curves = {
            method: [trial.played for trial in trials]
            for (there, method), trials in found.items()
            if there == environment and all(len(trial.played) > 1 for trial in trials)
        }
        if curves:
            plot(curves, out / f"curves-{environment}.png")
        here = [row for row in rows if row["environment"] == environment]
        rewards = [row.get(f"{mode}_reward", {}) for row in here for mode in MODES]
        if all(reward.get("low") is not None for reward in rewards):
            plot_rewards(here, out / f"rewards-{environment}.png")
