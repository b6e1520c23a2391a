"""Results as tables on the terminal. Knows results.json's form, not how it came about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.table import Table

from rro.evaluation.figures import Difference

Results = Mapping[str, Any]


def print_results(results: Results) -> None:
    """The closing table of a run: policies with intervals, their paired difference, and what
    exploration cost."""
    Console(width=116, soft_wrap=True).print(
        Group(_policies(results), _exploration(results)), markup=False
    )


def print_comparison(
    runs: Sequence[Results], differences: Sequence[tuple[int, Difference]]
) -> None:
    """One row a run, its last policy; `differences` are against the first run, on the tasks that
    both evaluated."""
    table = Table(title="last policy of each run", title_justify="left")
    for name in (
        "run",
        "policy",
        "mode",
        "reward",
        "success",
        "policy calls",
        "pairs",
        "minus first run",
    ):
        table.add_column(name, justify="left" if name in ("run", "policy", "mode") else "right")
    paired = {(number, row.mode): row.plain() for number, row in differences}
    for number, run in enumerate(runs):
        explored = _explored(run)
        for evaluation in _last_policy(run):
            table.add_row(
                run["name"],
                evaluation["label"],
                evaluation["mode"],
                interval(evaluation["reward"]),
                interval(evaluation["success"]),
                str(sum(stage["usage"]["policy_calls"] for stage in explored)),
                str(sum(stage["pairs"] for stage in explored)),
                interval(paired[number, evaluation["mode"]])
                if (number, evaluation["mode"]) in paired
                else "",
            )
    Console(width=140, soft_wrap=True).print(table, markup=False)


def interval(value: Mapping[str, Any]) -> str:
    """'0.512 [0.470, 0.553]'; an unbounded end is written as '?'."""
    low, high = ("?" if value[end] is None else f"{value[end]:.3f}" for end in ("low", "high"))
    return f"{value['mean']:.3f} [{low}, {high}]"


def _policies(results: Results) -> Table:
    table = Table(
        title=f"{results['name']} (seed {results['seed']}), 95 % intervals by task",
        title_justify="left",
    )
    table.add_column("policy", no_wrap=True)
    table.add_column("mode")
    for name in ("mean reward", "success", "steps", "invalid", "episodes"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in results["evaluations"]:
        episodes = str(row["episodes"]) + (f" ({row['failed']} failed)" if row["failed"] else "")
        table.add_row(
            row["label"],
            row["mode"],
            interval(row["reward"]),
            interval(row["success"]),
            f"{row['steps']:.1f}",
            f"{row['invalid_actions']:.2f}",
            episodes,
        )
    for row in results["differences"]:
        table.add_section()
        tasks = f"{row['n']} tasks" + (f" ({row['left_out']} left out)" if row["left_out"] else "")
        table.add_row(
            f"{row['label']} - {row['against']}", row["mode"], interval(row), "", "", "", tasks
        )
    return table


def _exploration(results: Results) -> Table:
    table = Table(title="what it took", title_justify="left")
    table.add_column("stage", no_wrap=True)
    for name in (
        "pairs",
        "candidates/step",
        "policy calls",
        "generated tokens",
        "prompt tokens",
        "seconds",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for name, stage in results["stages"].items():
        usage = stage.get("usage", {})
        table.add_row(
            name,
            str(stage.get("pairs", "")),
            f"{stage['candidates_per_step']:.2f}" if stage.get("candidates_per_step") else "",
            _count(usage.get("policy_calls")),
            _count(usage.get("generated_tokens")),
            _count(usage.get("prompt_tokens")),
            f"{stage['seconds']:.0f}",
        )
    return table


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _explored(results: Results) -> list[Mapping[str, Any]]:
    return [stage for name, stage in results["stages"].items() if name.startswith("explore-")]


def _last_policy(results: Results) -> list[Mapping[str, Any]]:
    last = results["evaluations"][-1]["label"]
    return [row for row in results["evaluations"] if row["label"] == last]
