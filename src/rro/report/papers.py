"""A report's figures as tables for papers: each as Markdown and as CSV. Markdown cells are escaped;
CSV has full precision."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rro.errors import UsageError
from rro.report.tables import interval
from rro.runs.folder import write_atomically

Cell = str | int | float | None


@dataclass(frozen=True)
class PaperTable:
    """A table by name: `columns`, the rows for reading (`shown`), and the same with plain numbers
    (`raw`) under `raw_columns`."""

    name: str
    columns: Sequence[str]
    shown: Sequence[Sequence[str]]
    raw_columns: Sequence[str]
    raw: Sequence[Sequence[Cell]]


def write_tables(head: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write every table that has rows; returns the files. Raises UsageError where `folder` cannot
    be written."""
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for table in (_rewards(head), _differences(head), _exploration(head)):
            if table.raw:
                written += [_markdown(table, folder), _csv(table, folder)]
    except OSError as error:
        raise UsageError(
            f"{error.filename or folder}: cannot write the tables: {error.strerror}"
        ) from None
    return written


def _rewards(head: Mapping[str, Any]) -> PaperTable:
    rows = [(run, row) for run in head["runs"] for row in run["evaluations"]]
    shown = [
        [
            *_names(run),
            row["label"],
            row["mode"],
            interval(row["reward"]),
            interval(row["success"]) if row["success"] else "",
            str(row["episodes"]),
        ]
        for run, row in rows
    ]
    raw = [
        [
            *_names(run),
            row["label"],
            row["mode"],
            *_ends(row["reward"]),
            *_ends(row["success"]),
            row["episodes"],
        ]
        for run, row in rows
    ]
    first = ["run", "strategy", "policy", "mode"]
    ends = [f"{what}{end}" for what in ("reward", "success") for end in ("", "_low", "_high")]
    return PaperTable(
        "rewards",
        [*first, "reward", "success", "episodes"],
        shown,
        [*first, *ends, "episodes"],
        raw,
    )


def _differences(head: Mapping[str, Any]) -> PaperTable:
    """Within each run against its first policy, then each run against the first run."""
    runs = head["runs"]
    rows = [(run, row["label"], row["against"], row) for run in runs for row in run["differences"]]
    rows += [(runs[row["run"]], row["label"], runs[0]["name"], row) for row in head["between"]]
    shown = [
        [*_names(run), a, b, row["mode"], interval(row), str(row["n"])] for run, a, b, row in rows
    ]
    raw = [
        [*_names(run), a, b, row["mode"], *_ends(row), row["n"], row["left_out"]]
        for run, a, b, row in rows
    ]
    first = ["run", "strategy", "policy", "against", "mode"]
    ends = ["difference", "difference_low", "difference_high", "tasks", "tasks_left_out"]
    return PaperTable("differences", [*first, "difference", "tasks"], shown, [*first, *ends], raw)


def _exploration(head: Mapping[str, Any]) -> PaperTable:
    first = ["run", "strategy", "exploration"]
    counts = ["tasks", "steps", "candidates", "rollouts", "pairs"]
    rising = ["rising_first_third", "rising_middle_third", "rising_last_third"]
    columns = [*first, *counts, "candidates_per_step", *rising, *head["usage"]]
    raw, shown = [], []
    for run in head["runs"]:
        for group in run["groups"]:
            drawn = sum(count * times for count, times in group["per_step"])
            steps = sum(times for _, times in group["per_step"])
            shares = [part / whole if whole else None for part, whole in group["rising"]]
            per_step = drawn / steps if steps else None
            raw.append(
                [
                    *_names(run),
                    group["name"],
                    *(group[n] for n in counts),
                    per_step,
                    *shares,
                    *group["usage"],
                ]
            )
            shown.append([_cell(value) for value in raw[-1]])
    return PaperTable(
        "exploration", [name.replace("_", " ") for name in columns], shown, columns, raw
    )


def _names(run: Mapping[str, Any]) -> list[str]:
    return [run["name"], run["strategy"]]


def _ends(value: Mapping[str, Any] | None) -> list[Cell]:
    return [None, None, None] if value is None else [value["mean"], value["low"], value["high"]]


def _cell(value: Cell) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else value


def _markdown(table: PaperTable, folder: Path) -> Path:
    lines = [table.columns, ["---"] * len(table.columns), *table.shown]
    text = "".join("| " + " | ".join(_escaped(cell) for cell in line) + " |\n" for line in lines)
    write_atomically(folder / f"{table.name}.md", text)
    return folder / f"{table.name}.md"


def _escaped(cell: str) -> str:
    """A cell that stays in its cell, and is text in any renderer."""
    for character in "\\|<>&`*[]":
        cell = cell.replace(character, f"\\{character}")
    return " ".join(cell.split())


def _csv(table: PaperTable, folder: Path) -> Path:
    path = folder / f"{table.name}.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table.raw_columns)
        writer.writerows(table.raw)
    return path
