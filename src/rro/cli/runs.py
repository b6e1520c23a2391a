"""The commands that make runs: quickstart, run, and each stage by itself; and export, which writes
what a run's trees teach."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rro.cli.commands import (
    NO_RECIPE,
    Parsers,
    add_command,
    add_overrides,
    begin,
    folder_named,
    round_number,
)
from rro.cli.stops import add_stop, resumable, stoppable
from rro.errors import UsageError, printable
from rro.processes import rank, wait_for_all, world_size

if TYPE_CHECKING:
    from rro.config import BudgetConfig
    from rro.environments.base import Benchmark
    from rro.pipeline.run import Run
    from rro.runs.folder import RunFolder

# Each stage with its description and an example.
_STAGES = {
    "sft": ("stage 1: fine-tune on expert trajectories", "rro sft quickstart --out runs/one"),
    "explore": (
        "stage 2: rising exploration, giving preference pairs",
        "rro explore runs/one --budget policy_calls=5000",
    ),
    "optimise": (
        "stage 3: train on the pairs, or on what else the credit gives",
        "rro optimise runs/one",
    ),
    "evaluate": (
        "measure the SFT policy and that of each iteration on held-out tasks",
        "rro evaluate runs/one",
    ),
}
_EXPORTS = ("labels", "pairs", "trajectories", "traces", "hub")
RECIPE = "a file, or the name of one of rro's recipes (rro recipes)"
_NEW_RUN = "run folder of a new run (default: runs/NAME-TIME)"


def add_commands(commands: Parsers) -> None:
    """Add quickstart, run and the stages to the command line."""
    _add_quickstart(commands)
    _add_run(commands)
    for name in _STAGES:
        _add_stage(commands, name)
    _add_export(commands)


def _add_export(commands: Parsers) -> None:
    export = add_command(
        commands,
        "export",
        _export,
        "write what a credit gives on a run's trees, or all that was explored, for other programs",
        "rro export runs/one --as labels",
    )
    export.add_argument("run", metavar="RUN", type=Path, help="a run folder that has explored")
    export.add_argument("credit", nargs="?", help="a credit by name (default: the run's own)")
    export.add_argument(
        "options", nargs="*", default=[], metavar="option=value", help="of that credit"
    )
    export.add_argument(
        "--as",
        dest="kind",
        choices=_EXPORTS,
        help="all that was explored, as: step labels, preference pairs, trajectories with tokens, "
        "conversations for trace viewers, or a data set and a model of the Hub with their cards",
    )
    export.add_argument("--iteration", type=round_number, help="which round (default: all)")
    export.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="JSON lines (default: RUN/CREDIT.jsonl, or RUN/exports/KIND.jsonl), of hub a folder",
    )
    export.add_argument(
        "--push", metavar="OWNER/NAME", help="of hub: send it there; without, nothing is sent"
    )
    export.add_argument("--public", action="store_true", help="of hub: not private")
    export.add_argument(
        "--license", default="", help="of hub: the licence that you give it, e.g. apache-2.0"
    )
    _add_trust(export)


def _add_quickstart(commands: Parsers) -> None:
    quickstart = add_command(
        commands,
        "quickstart",
        stoppable(_quickstart),
        "the whole path on a generated shop or generated databases, in minutes on a CPU",
        "rro quickstart --seed 1 method=rro explore.tasks=150",
    )
    quickstart.add_argument(
        "benchmark",
        nargs="?",
        help="whose quickstart (default: a shop; rro recipes lists quickstart-NAME)",
    )
    add_overrides(quickstart)
    quickstart.add_argument("--seed", type=int, default=0, help="default: 0")
    quickstart.add_argument("--out", type=folder_named, metavar="FOLDER", help=_NEW_RUN)
    add_stop(quickstart)


def _add_run(commands: Parsers) -> None:
    run = add_command(
        commands,
        "run",
        stoppable(_run),
        "every stage of a recipe, in order",
        "rro run quickstart method=rro --out runs/one",
    )
    run.add_argument("recipe", nargs="?", help=RECIPE)
    add_overrides(run)
    run.add_argument("--out", type=folder_named, metavar="FOLDER", help=_NEW_RUN)
    run.add_argument(
        "--resume", type=Path, metavar="RUN", help="continue a run folder; takes nothing else"
    )
    add_stop(run)
    _add_trust(run)


def _add_trust(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--trust-run-folder",
        action="store_true",
        help="run the code that a run folder of somebody else names",
    )


def _add_stage(commands: Parsers, name: str) -> None:
    text, example = _STAGES[name]
    aliases = ["optimize"] if name == "optimise" else []
    stage = add_command(commands, name, stoppable(_stage), text, example, aliases)
    stage.set_defaults(stage=name)
    stage.add_argument("target", help=f"a run folder, or a recipe that starts a new one: {RECIPE}")
    add_overrides(stage)
    stage.add_argument("--out", type=folder_named, metavar="FOLDER", help=_NEW_RUN)
    add_stop(stage)
    _add_trust(stage)
    if name == "evaluate":
        stage.add_argument(
            "--validation", action="store_true", help="on the validation tasks, not the test tasks"
        )
    if name in ("explore", "optimise"):
        stage.add_argument(
            "--iteration", type=round_number, default=1, help="which round (default: 1)"
        )
    if name == "explore":
        stage.add_argument(
            "--tasks",
            type=int,
            metavar="N",
            help="extend an exploration that is done to N tasks; takes a run folder",
        )
        stage.add_argument(
            "--budget",
            action="append",
            default=[],
            metavar="LIMIT=N",
            help="begin nothing new beyond: policy_calls, generated_tokens, tokens, seconds or "
            "cost (repeatable)",
        )


def parse_budget(limits: Sequence[str]) -> BudgetConfig | None:
    """The limits of --budget, each `LIMIT=N`; None: those of the recipe. Raises UsageError for an
    unknown limit or a value that is no number."""
    from rro.config import parse_config

    if not limits:
        return None
    pairs = [limit.partition("=") for limit in limits]
    tree = {"explore": {"budget": {name: value.replace("_", "") for name, _, value in pairs}}}
    return parse_config(tree, "--budget").explore.budget


def _quickstart(options: argparse.Namespace) -> None:
    overrides, recipe = options.overrides, "quickstart"
    if options.benchmark is not None and "=" in options.benchmark:
        overrides = [options.benchmark, *overrides]
    elif options.benchmark is not None:
        recipe = f"quickstart-{options.benchmark}"
    _run_all(options, *_new_run(recipe, [f"seed={options.seed}", *overrides], options.out))


def _run(options: argparse.Namespace) -> None:
    if options.resume is not None:
        if options.recipe is not None or options.out is not None:
            raise UsageError("--resume takes nothing else: the run folder knows its configuration")
        _run_all(options, _open_folder(options.resume, options.trust_run_folder))
    elif options.recipe is None:
        raise UsageError("which recipe? rro run RECIPE, or rro run --resume RUN")
    else:
        _run_all(options, *_new_run(options.recipe, options.overrides, options.out))


def _run_all(
    options: argparse.Namespace, folder: RunFolder, benchmark: Benchmark | None = None
) -> None:
    from rro.pipeline import stages as pipeline
    from rro.pipeline.run import open_run
    from rro.report.tables import print_results

    with resumable(_go_on(folder)), open_run(folder, benchmark) as run:
        try:
            print_results(pipeline.run_all(run))
        except pipeline.NothingToLearn as error:
            if error.results:
                print_results(error.results)
            raise
    print(printable(f"run folder: {folder.path}"))


def _go_on(folder: RunFolder) -> str:
    return f"rro run --resume {shlex.quote(str(folder.path))}"


def _new_run(
    recipe: str, overrides: Sequence[str], out: Path | None, stage: str = "run"
) -> tuple[RunFolder, Benchmark | None]:
    """The folder of a new run, and its benchmark where this process has opened it."""
    if world_size() > 1 and out is None:
        raise UsageError("several processes need one run folder: name it with --out")
    begin("checking", recipe)

    from rro.config import load_config
    from rro.config.packaged import find_recipe
    from rro.pipeline.check import new_run
    from rro.runs.folder import RunFolder

    config = load_config(find_recipe(recipe), overrides)
    path = out or default_folder(config.name)
    if rank() > 0:
        wait_for_all()
        return replace(RunFolder.open(path), trusted=True), None
    folder, benchmark = new_run(config, path, stage)
    wait_for_all()
    print(printable(f"run folder: {folder.path}"), file=sys.stderr)
    return folder, benchmark


def _stage(options: argparse.Namespace) -> None:
    folder, benchmark = _target(options)

    from rro.pipeline import stages as pipeline
    from rro.pipeline.evaluation import evaluate_run
    from rro.pipeline.run import open_run
    from rro.report.tables import print_results

    stages: dict[str, Callable[[Run], None]] = {
        "sft": pipeline.sft,
        "explore": lambda run: pipeline.explore(
            run, options.iteration, parse_budget(options.budget), options.tasks
        ),
        "optimise": lambda run: pipeline.optimise(run, options.iteration),
        "evaluate": lambda run: print_results(
            evaluate_run(run, split="validation" if options.validation else "test")
        ),
    }
    with resumable(_go_on(folder)), open_run(folder, benchmark) as run:
        stages[options.stage](run)
    if rank() == 0:
        print(printable(f"run folder: {folder.path}"))


def default_folder(name: str) -> Path:
    """Where a new run goes that is not told where."""
    return Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def _export(options: argparse.Namespace) -> None:
    folder = _open_folder(options.run, options.trust_run_folder)

    from rro.config import load_config
    from rro.pipeline.export import export_as, export_rows
    from rro.pipeline.run import open_run

    hub = options.kind == "hub"
    if not hub and (options.push or options.public or options.license):
        raise UsageError("--push, --public and --license are for --as hub")
    if not hub and options.out is not None and options.out.is_dir():
        raise UsageError(f"--out {options.out} is a folder: name a file")
    if not hub and options.out is not None and options.out.suffix == ".parquet":
        raise UsageError(f"--out {options.out}: name the JSON lines; Parquet comes beside them")
    if "=" in (options.credit or ""):
        raise UsageError(f"{options.credit}: name the credit whose option it is before it")
    if options.credit is not None:
        words = [f"credit.options.{option}" for option in options.options]
        credit = load_config(NO_RECIPE, [f"credit.name={options.credit}", *words]).credit
        folder = replace(folder, config=folder.config.model_copy(update={"credit": credit}))
    with open_run(folder) as run:
        if hub:
            _export_hub(run, options)
        elif options.kind is None:
            print(export_rows(run, options.iteration, options.out))
        else:
            named, out = options.credit is not None, options.out
            print(export_as(run, options.kind, options.iteration, out, own_credit=named))


def _export_hub(run: Run, options: argparse.Namespace) -> None:
    from rro.pipeline.publishing import check_name, checked_licence, export_hub, push

    if options.credit is not None:
        raise UsageError("--as hub takes no credit: it has rows of every kind")
    if options.push is not None:
        check_name(options.push)
    licence = options.license and checked_licence(options.license)
    folder = export_hub(run, options.iteration, options.out, licence)
    for file in sorted(folder.glob("*/**/*.*")):
        if file.parent.name != "sessions":
            print(printable(f"{file.stat().st_size:12,} {file.relative_to(folder)}"))
    print(printable(str(folder)))
    if options.push is None:
        print("nothing was sent; --push OWNER/NAME sends it to the Hub")
        return
    for address in push(run, folder, options.push, public=options.public):
        print(printable(address))


def _target(options: argparse.Namespace) -> tuple[RunFolder, Benchmark | None]:
    """The run folder of a stage, an earlier run's or a new one; and a new one's benchmark."""
    if not Path(options.target).is_dir():
        return _new_run(options.target, options.overrides, options.out, options.stage)
    if options.overrides or options.out:
        raise UsageError(
            f"{options.target} is a run: it knows its configuration, so give neither settings nor "
            "--out"
        )
    return _open_folder(Path(options.target), options.trust_run_folder), None


def _open_folder(path: Path, trust: bool) -> RunFolder:
    begin("opening", path)

    from rro.runs.folder import RunFolder

    return RunFolder.open(path, trust=trust)
