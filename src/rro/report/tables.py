"""The tables of one run or several: which columns they have, and where they go. The terminal's
tables and the files for papers are the same tables.

Computes no figure: runs are mappings as results.json or the report's head has them."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rro.errors import UsageError
from rro.evaluation.figures import Difference
from rro.evaluation.statistics import FEWEST_TASKS
from rro.files import write_file
from rro.report.table_forms import Cell, Column, Table, comma_separated, markdown, terminal
from rro.types import StopReason

Run = Mapping[str, Any]


def print_results(results: Run) -> None:
    """The closing tables of a run: rewards by policy, gains over the first policy, and what the
    stages took."""
    split = "" if results.get("split", "test") == "test" else f", {results['split']} tasks"
    title = f"{results['name']} (seed {results['seed']}){split}, {_intervals([results])}"
    alone = [{**results, "name": "", "strategy": ""}]
    _print([rewards(alone, title), differences(alone), _exploration_cost(alone), _stages(results)])


def print_comparison(runs: Sequence[Run], between: Sequence[tuple[int, Difference]]) -> None:
    """The last policy of each run, its difference to that of the first run (`between`, see
    rro.evaluation.compare), and what exploration took."""
    last = [{**run, "evaluations": _last_policy(run), "differences": []} for run in runs]
    rows = [{"run": number, **difference.plain()} for number, difference in between]
    title = f"last policy of each run, {_intervals(last)}"
    _print([rewards(last, title), differences(last, rows), _exploration_cost(runs)])


def write_tables(head: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write every table of a report that has rows, as Markdown and as CSV; returns the files.
    Raises UsageError where `folder` cannot be written."""
    runs, written = head["runs"], []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for table in (rewards(runs), differences(runs, head["between"]), explorations(head)):
            if table.rows:
                for suffix, text in (("md", markdown(table)), ("csv", comma_separated(table))):
                    written.append(folder / f"{table.name}.{suffix}")
                    write_file(written[-1], text)
    except OSError as error:
        raise UsageError(
            f"{error.filename or folder}: cannot write the tables: {error.strerror}"
        ) from None
    return written


# Why an episode ends before the agent submits, or does what else ends it.
_CUT_OFF = (StopReason.STEP_LIMIT.value, StopReason.CONTEXT.value)


def rewards(runs: Sequence[Run], title: str = "reward by policy") -> Table:
    """Every evaluated policy of every run."""
    columns = (
        *_keys("run", "strategy", "policy", "mode"),
        Column("reward", "interval"),
        Column("success", "interval"),
        *_numbers("steps", "invalid_actions", "episodes", "failed"),
        Column("cut_off"),
    )
    rows = [
        [
            run["name"],
            run["strategy"],
            row["label"],
            row["mode"],
            *(row[column.name] for column in columns[4:-1]),
            sum(row["stops"].get(reason, 0) for reason in _CUT_OFF),
        ]
        for run in runs
        for row in run["evaluations"]
    ]
    return Table("rewards", title, columns, rows)


def differences(runs: Sequence[Run], between: Sequence[Mapping[str, Any]] = ()) -> Table:
    """Within each run against its first policy, then each run against the first run: its row in
    `between` has the run's place in `runs`."""
    columns = (
        *_keys("run", "strategy", "policy", "against", "mode"),
        Column("difference", "interval"),
        *_numbers("tasks", "tasks_left_out"),
    )
    rows = [(run, row["against"], row) for run in runs for row in run["differences"]]
    rows += [(runs[row["run"]], runs[0]["name"], row) for row in between]
    cells = [
        [run["name"], run["strategy"], row["label"], against, row["mode"], row]
        + [row[count] for count in ("n", "left_out")]
        for run, against, row in rows
    ]
    return Table("differences", "difference in reward, paired by task", columns, cells)


def explorations(head: Mapping[str, Any]) -> Table:
    """Every exploration of every run: what it gave and what it cost."""
    counts = ("tasks", "steps", "candidates", "rollouts", "pairs")
    thirds = ("rising_first_third", "rising_middle_third", "rising_last_third")
    columns = (
        *_keys("run", "strategy", "exploration"),
        *_numbers(*counts, "candidates_per_step", *thirds, *head["usage"]),
    )
    rows = []
    for run in head["runs"]:
        for group in run["groups"]:
            steps = sum(times for _, times in group["per_step"])
            drawn = sum(count * times for count, times in group["per_step"])
            shares = [rising / of if of else None for rising, of in group["rising"]]
            row: list[Cell] = [run["name"], run["strategy"], group["name"]]
            row += [group[name] for name in counts]
            rows.append([*row, drawn / steps if steps else None, *shares, *group["usage"]])
    return Table("exploration", "exploration", columns, rows)


def _stages(run: Run) -> Table:
    columns = (*_keys("stage"), *_costs("pairs", "seconds"))
    rows = [
        [name, stage.get("pairs") or None, round(stage["seconds"])]
        for name, stage in _rounds_together(run["stages"]).items()
    ]
    return Table("stages", "stages", columns, rows)


# More rounds than these have one row together for each kind of stage.
_ROWS_OF_ROUNDS = 6


def _rounds_together(stages: Mapping[str, Run]) -> dict[str, Run]:
    numbered = defaultdict[str, list[str]](list)
    for name in stages:
        kind, _, number = name.rpartition("-")
        numbered[kind if number.isdecimal() else name].append(name)
    found = dict[str, Run]()
    for kind, names in numbered.items():
        if len(names) > _ROWS_OF_ROUNDS:
            found[f"{kind}-1 to {len(names)}"] = _summed([stages[name] for name in names])
        else:
            found |= {name: stages[name] for name in names}
    return found


def _summed(stages: Sequence[Run]) -> dict[str, Any]:
    usages = [stage["usage"] for stage in stages if stage.get("usage")]
    usage = {cost: sum(each.get(cost) or 0 for each in usages) for cost in set().union(*usages)}
    pairs, seconds = (sum(stage.get(key) or 0 for stage in stages) for key in ("pairs", "seconds"))
    return {"usage": usage, "pairs": pairs, "seconds": seconds}


def _exploration_cost(runs: Sequence[Run]) -> Table:
    stages = [stage for run in runs for stage in run["stages"].values()]
    thinks = any((stage.get("usage") or {}).get("thought_tokens") for stage in stages)
    thoughts = ("thought_tokens",) if thinks else ()
    costs = ("policy_calls", "generated_tokens", *thoughts, "prompt_tokens", "cost")
    names = ("pairs", "candidates_per_step", *costs, "threshold_bias")
    columns = (*_keys("run", "stage"), *_costs(*names))
    rows: list[list[Cell]] = []
    for run in runs:
        for name, stage in _rounds_together(run["stages"]).items():
            if usage := stage.get("usage"):
                figures = [stage["pairs"] or None, stage.get("candidates_per_step") or None]
                spent = [usage.get(cost) or None for cost in costs]
                rows.append([run["name"], name, *figures, *spent, stage.get("threshold_bias")])
    return Table("cost", "what exploration took", columns, rows)


def _intervals(runs: Sequence[Run]) -> str:
    rewards = [row["reward"] for run in runs for row in run["evaluations"]]
    few = any(reward["n"] < FEWEST_TASKS for reward in rewards)
    return f"95 % intervals by task{f', none below {FEWEST_TASKS} tasks' if few else ''}"


def _keys(*names: str) -> list[Column]:
    return [Column(name, "key") for name in names]


def _numbers(*names: str) -> list[Column]:
    return [Column(name) for name in names]


def _costs(*names: str) -> list[Column]:
    return [Column(name, "cost") for name in names]


def _last_policy(run: Run) -> list[Mapping[str, Any]]:
    last = run["evaluations"][-1]["label"]
    return [row for row in run["evaluations"] if row["label"] == last]


def _print(tables: Sequence[Table]) -> None:
    width = shutil.get_terminal_size().columns
    print("\n\n".join(terminal(table, width) for table in tables if table.rows))
