"""The command line. Parses, calls one function a command, and turns errors into one sentence and an
exit code.

Nothing heavy is imported before a command needs it: `rro --help` answers at once.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rro import __version__
from rro.errors import RroError, UsageError
from rro.plugins import COMMANDS, DATA_SETS
from rro.processes import rank, wait_for_all, world_size

if TYPE_CHECKING:
    from rro.config import BudgetConfig
    from rro.pipeline.run import Run
    from rro.runs.folder import RunFolder

_STAGES = {
    "sft": "stage 1: fine-tune on expert trajectories",
    "explore": "stage 2: rising exploration, giving preference pairs",
    "optimise": "stage 3: DPO of the pairs (alias: optimize)",
    "evaluate": "measure the SFT policy and that of each iteration on held-out tasks",
}


_GUESTS_BRING = {"data", "verify"}  # commands that benchmarks add to


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 failed, 2 wrong use, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser(guests=not _GUESTS_BRING.isdisjoint(words)).parse_args(words)
    _set_up(options.verbose)
    try:
        return options.command(options) or 0
    except RroError as error:
        print(f"rro: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(
            "\nrro: interrupted; what was finished is kept: rro run --resume RUN continues",
            file=sys.stderr,
        )
        return 130
    except OSError as error:
        if options.verbose:
            raise
        print(
            f"rro: {error.filename or 'input/output'}: {error.strerror or error}", file=sys.stderr
        )
        return 1


def _parser(guests: bool) -> argparse.ArgumentParser:
    """`guests`: whether benchmarks add their own commands, which imports them."""
    parser = argparse.ArgumentParser(
        prog="rro", description="Reward Rising Optimization: train LLM agents step by step."
    )
    parser.add_argument("--version", action="version", version=f"rro {__version__}")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="more log lines, and tracebacks"
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _run_commands(commands)
    _data_commands(commands, guests)
    return parser


def _run_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    quickstart = _command(
        commands,
        "quickstart",
        _quickstart,
        "the whole path on a generated shop, in minutes on a CPU",
    )
    quickstart.add_argument("overrides", nargs="*", metavar="key.sub=value")
    quickstart.add_argument("--seed", type=int, default=0)
    quickstart.add_argument("--out", type=Path, help="run folder (default: runs/NAME-TIME)")
    run = _command(commands, "run", _run, "every stage of a recipe, in order")
    run.add_argument("recipe", nargs="?", type=Path)
    run.add_argument("overrides", nargs="*", metavar="key.sub=value")
    run.add_argument("--out", type=Path, help="run folder (default: runs/NAME-TIME)")
    run.add_argument(
        "--resume", type=Path, metavar="RUN", help="continue a run folder; takes nothing else"
    )
    for name, text in _STAGES.items():
        stage = _command(
            commands, name, _stage, text, aliases=["optimize"] if name == "optimise" else []
        )
        stage.set_defaults(stage=name)
        stage.add_argument(
            "target", type=Path, help="a run folder, or a recipe that starts a new one"
        )
        stage.add_argument("overrides", nargs="*", metavar="key.sub=value")
        stage.add_argument(
            "--out", type=Path, help="run folder of a new run (default: runs/NAME-TIME)"
        )
        if name in ("explore", "optimise"):
            stage.add_argument("--iteration", type=int, default=1)
        if name == "explore":
            stage.add_argument(
                "--budget", action="append", default=[], metavar="LIMIT=N",
                help="begin nothing new beyond: policy_calls, generated_tokens, tokens, seconds or cost (repeatable)",
            )  # fmt: skip
    compare = _command(
        commands, "compare", _compare, "runs side by side, with paired differences to the first"
    )
    compare.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    _report_commands(commands)


def _report_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    report = _command(
        commands, "report", _report, "a page to look at: overview, trees, pairs; opens from disk"
    )
    report.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    report.add_argument(
        "--out", type=Path, metavar="FILE|FOLDER", help="where to (default: RUN/report.html)"
    )
    report.add_argument(
        "--plots", type=Path, metavar="FOLDER", help="also write plots and tables there, for papers"
    )
    view = _command(
        commands, "view", _view, "the same page while a run goes on, served to this machine alone"
    )
    view.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    view.add_argument("--port", type=int, default=0, help="default: any that is free")


def _data_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], guests: bool
) -> None:
    play = _command(commands, "play", _play, "play an episode yourself")
    play.add_argument(
        "recipe",
        nargs="*",
        help="whose environment to play (default: the quickstart's), and overrides",
    )
    play.add_argument("--split", default="train")
    play.add_argument("--task", help="a task id (default: the first of the split)")
    data = _command(commands, "data", None, "benchmark data")
    actions = data.add_subparsers(required=True, metavar="ACTION")
    fetch = _command(actions, "fetch", _fetch, "get a benchmark's data")
    fetch.add_argument(
        "name", help=f"one of {', '.join(DATA_SETS.names())}" if guests else "a data set"
    )
    fetch.add_argument(
        "--from", dest="source", type=Path, metavar="FOLDER", help="copy from there, no download"
    )
    fetch.add_argument("--to", dest="target", type=Path, metavar="FOLDER")
    load = _command(actions, "load", None, "load a benchmark's databases into a server")
    verify = _command(commands, "verify", None, "replay recorded episodes and compare")
    groups = {
        "load": load.add_subparsers(required=True, metavar="BENCHMARK"),
        "verify": verify.add_subparsers(required=True, metavar="BENCHMARK"),
    }
    for name in COMMANDS.names() if guests else ():
        COMMANDS.find(name).factory(groups)


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    function: Callable[[argparse.Namespace], int | None] | None,
    text: str,
    aliases: Sequence[str] = (),
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text, aliases=aliases)
    if function is not None:
        parser.set_defaults(command=function)
    return parser


def _quickstart(options: argparse.Namespace) -> None:
    _start_and_run(
        packaged_recipe("quickstart"), [f"seed={options.seed}", *options.overrides], options.out
    )


def _run(options: argparse.Namespace) -> None:
    from rro.runs.folder import RunFolder

    if options.resume is not None:
        if options.recipe is not None or options.out is not None:
            raise UsageError("--resume takes nothing else: the run folder knows its configuration")
        _run_all(RunFolder.open(options.resume))
    elif options.recipe is None:
        raise UsageError("which recipe? rro run FILE, or rro run --resume RUN")
    else:
        _start_and_run(options.recipe, options.overrides, options.out)


def _start_and_run(recipe: Path, overrides: Sequence[str], out: Path | None) -> None:
    _run_all(_new_run(recipe, overrides, out))


def _run_all(folder: RunFolder) -> None:
    from rro.pipeline import stages as pipeline
    from rro.pipeline.run import open_run
    from rro.report.tables import print_results

    with open_run(folder) as run:
        print_results(pipeline.run_all(run))
    print(f"run folder: {folder.path}")


def _new_run(recipe: Path, overrides: Sequence[str], out: Path | None) -> RunFolder:
    from rro.config import load_config
    from rro.runs.folder import RunFolder

    if world_size() > 1 and out is None:
        raise UsageError("several processes need one run folder: name it with --out")
    config = load_config(recipe, overrides)
    path = out or Path("runs") / f"{config.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if rank() > 0:
        wait_for_all()
        return RunFolder.open(path)
    folder = RunFolder.create(config, path)
    wait_for_all()
    print(f"run folder: {folder.path}", file=sys.stderr)
    return folder


def _stage(options: argparse.Namespace) -> None:
    from rro.pipeline import stages as pipeline
    from rro.pipeline.run import open_run
    from rro.report.tables import print_results
    from rro.runs.folder import RunFolder

    if options.target.is_dir():
        if options.overrides or options.out:
            raise UsageError(
                f"{options.target} is a run: it knows its configuration, so give neither settings nor --out"
            )
        folder = RunFolder.open(options.target)
    else:
        folder = _new_run(options.target, options.overrides, options.out)
    stages: dict[str, Callable[[Run], None]] = {
        "sft": pipeline.sft,
        "explore": lambda run: pipeline.explore(run, options.iteration, _budget(options.budget)),
        "optimise": lambda run: pipeline.optimise(run, options.iteration),
        "evaluate": lambda run: print_results(pipeline.evaluate_run(run)),
    }
    with open_run(folder) as run:
        stages[options.stage](run)
    if rank() == 0:
        print(f"run folder: {folder.path}")


def _budget(limits: Sequence[str]) -> BudgetConfig | None:
    """The limits of --budget; None: those of the recipe."""
    from rro.config import parse_config

    if not limits:
        return None
    pairs = [limit.partition("=") for limit in limits]
    tree = {"explore": {"budget": {name: value.replace("_", "") for name, _, value in pairs}}}
    return parse_config(tree, "--budget").explore.budget


def _compare(options: argparse.Namespace) -> None:
    from rro.evaluation.compare import compare
    from rro.evaluation.results import load_results
    from rro.report.tables import print_comparison

    runs = [load_results(run) for run in options.runs]
    print_comparison(runs, compare(runs))


def _report(options: argparse.Namespace) -> None:
    from rro.report.gather import Gatherer
    from rro.report.page import write_report
    from rro.report.plots import require_matplotlib, write_plots
    from rro.report.tables import write_tables

    if options.plots:
        require_matplotlib()
    with Gatherer(options.runs) as gatherer:
        head, chunks = gatherer.whole()
    print(write_report(head, chunks, options.out or options.runs[0] / "report.html"))
    if options.plots:
        write_plots(head, options.plots)
        write_tables(head, options.plots)
        print(options.plots)


def _view(options: argparse.Namespace) -> None:
    from rro.report.viewer import serve

    serve(
        options.runs, options.port, lambda address: print(f"{address} (Ctrl-C ends it)", flush=True)
    )


def _play(options: argparse.Namespace) -> None:
    from rro.config import load_config
    from rro.environments.registry import open_environment
    from rro.episodes.loop import Limits
    from rro.episodes.play import play

    named = [word for word in options.recipe[:1] if "=" not in word]
    config = load_config(
        Path(named[0]) if named else packaged_recipe("quickstart"), options.recipe[len(named) :]
    )
    benchmark = open_environment(config.environment)
    tasks = {task.id: task for task in benchmark.tasks(options.split)}
    if options.task is not None and options.task not in tasks:
        raise UsageError(
            f"the split {options.split} has no task {options.task!r}; its first is {next(iter(tasks))}"
        )
    task = tasks[options.task or next(iter(tasks))]
    try:
        play(
            benchmark,
            task,
            Limits(config.environment.max_steps or benchmark.max_steps),
            config.seed,
        )
    except EOFError:
        print("\nended by the player")


def _fetch(options: argparse.Namespace) -> None:
    from rro.environments.data_sets import fetch

    print(fetch(options.name, options.source, options.target))


def packaged_recipe(name: str) -> Path:
    """A recipe that comes with the package: beside it when installed, in the repository when
    not."""
    package = Path(__file__).parents[1]
    for folder in (package / "recipes", package.parents[1] / "recipes"):
        if (folder / f"{name}.toml").is_file():
            return folder / f"{name}.toml"
    raise RroError(f"the recipe {name} is missing from this installation of rro; install it again")


def _set_up(verbose: bool) -> None:
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("rro").setLevel(logging.DEBUG if verbose else logging.INFO)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


if __name__ == "__main__":
    sys.exit(main())
