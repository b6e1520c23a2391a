"""The command sweep: settings chosen on the validation tasks."""

from __future__ import annotations

import argparse
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from rro.cli.commands import Parsers, add_command, begin, folder_named
from rro.cli.runs import RECIPE, default_folder
from rro.cli.stops import add_stop, resumable, stoppable
from rro.errors import RroError, UsageError, counted, printable

if TYPE_CHECKING:
    from rro.pipeline.sweep import Report

_WIDEST = 60


def add_commands(commands: Parsers) -> None:
    """Add sweep to the command line."""
    sweep = add_command(
        commands,
        "sweep",
        stoppable(_sweep),
        "choose settings by trials on the validation tasks",
        "rro sweep quickstart dpo.epochs=1,2,4 dpo.learning_rate=log:5e-5:5e-4 --trials 12",
    )
    sweep.add_argument("recipe", nargs="?", help=RECIPE)
    sweep.add_argument(
        "settings",
        nargs="*",
        metavar="key=a,b,c",
        help="values to try; key=log:LOW:HIGH, key=uniform:LOW:HIGH, key=int:LOW:HIGH; key=value "
        "is the same in all trials",
    )
    sweep.add_argument("--trials", type=int, metavar="N", help="in all (default: 20)")
    sweep.add_argument(
        "--metric",
        help="validation.reward (default) or validation.success; .greedy after it for greedy",
    )
    sweep.add_argument("--seed", type=int, help="of the proposals (default: 0)")
    sweep.add_argument(
        "--out", type=folder_named, metavar="FOLDER", help="default: runs/sweep-NAME-TIME"
    )
    add_stop(sweep)
    sweep.add_argument(
        "--resume",
        type=Path,
        metavar="FOLDER",
        help="continue a sweep; takes only --trials, --stop-after",
    )


def _sweep(options: argparse.Namespace) -> None:
    if options.resume is None and options.recipe is None:
        raise UsageError("which recipe? rro sweep RECIPE key=a,b,c, or rro sweep --resume FOLDER")
    begin("checking", options.resume or options.recipe)

    from rro.config.packaged import find_recipe
    from rro.pipeline.sweep import Sweep, read_sweep, run_sweep

    if options.resume is not None:
        others = (options.recipe, options.out, options.metric, options.seed)
        if any(other is not None for other in others):
            raise UsageError(
                "--resume takes only --trials and --stop-after: the folder knows the rest"
            )
        folder, (sweep, trials) = options.resume, read_sweep(options.resume)
    else:
        recipe = find_recipe(options.recipe)
        folder = options.out or default_folder(f"sweep-{recipe.stem}")
        if (folder / "journal.jsonl").exists():
            raise UsageError(
                f"{folder} is in use: continue a sweep with --resume {folder}, or choose another "
                "--out"
            )
        metric = options.metric or "validation.reward"
        sweep, trials = Sweep(recipe, tuple(options.settings), metric, options.seed or 0), 20
    trials = trials if options.trials is None else options.trials
    go_on = f"rro sweep --resume {shlex.quote(str(folder))} --trials {trials}"
    with resumable(go_on):
        report = run_sweep(sweep, folder, trials)
    _show(report)


def _show(report: Report) -> None:
    from rro.pipeline.sweep_space import as_text
    from rro.report.table_forms import Cell, Column, Table, terminal

    swept = [dimension.key for dimension in report.space.dimensions]
    rows: list[list[Cell]] = [
        [
            str(trial.number),
            trial.metric or "failed",
            *(as_text(trial.values[key]) for key in swept),
            round(trial.seconds),
        ]
        for trial in report.ranked
    ]
    names = [key.rpartition(".")[2] if _is_clear(key, swept) else key for key in swept]
    columns = (
        Column("trial", "key"),
        Column(report.metric.removeprefix("validation."), "interval"),
        *(Column(name) for name in names),
        Column("seconds"),
    )
    title = f"{report.folder}: {counted(len(report.trials), 'trials')}, validation tasks"
    width = min(_WIDEST, shutil.get_terminal_size().columns)
    print(terminal(Table("sweep", title, columns, rows), width))
    if report.best is None:
        raise RroError("every trial failed: see the warnings above")
    settings = shlex.join(report.space.overrides(report.best.values))
    trial = shlex.quote(str(report.trial_folder(report.best.number)))
    print(printable(f"\nbest settings:\n{settings}"))
    print(printable(f"on the test tasks: rro evaluate {trial}"))


def _is_clear(key: str, keys: list[str]) -> bool:
    last = key.rpartition(".")[2]
    return sum(other.rpartition(".")[2] == last for other in keys) == 1
