"""The commands about benchmarks: play, serve-env, data and verify. Benchmarks add their own to the
last two, found through the door `rro.plugins.COMMANDS`."""

from __future__ import annotations

import argparse
from pathlib import Path

from rro.cli.commands import Parsers, add_command, begin, split_environment
from rro.errors import UsageError
from rro.plugins import COMMANDS, DATA_SETS, SERVERS


def add_commands(commands: Parsers, guests: bool) -> None:
    """Add play, data and verify to the command line. `guests`: whether benchmarks add their own
    commands, which imports them."""
    _add_play(commands)
    _add_serve(commands)
    load = _add_data(commands, guests)
    verify = add_command(
        commands,
        "verify",
        None,
        "replay recorded episodes and compare",
        "rro verify BENCHMARK --help",
    )
    groups = {
        "load": load.add_subparsers(required=True, metavar="BENCHMARK"),
        "verify": verify.add_subparsers(required=True, metavar="BENCHMARK"),
    }
    for name in COMMANDS.names() if guests else ():
        COMMANDS.find(name).factory(groups)


def _add_play(commands: Parsers) -> None:
    play = add_command(
        commands,
        "play",
        _play,
        "play an episode yourself",
        "rro play quickstart --split test",
    )
    play.add_argument(
        "words",
        nargs="*",
        metavar="recipe",
        help="whose environment to play (default: the quickstart's), or the name of an "
        "environment; and overrides",
    )
    play.add_argument("--split", default="train", help="default: train")
    play.add_argument("--task", help="a task id (default: the first of the split)")


def _add_serve(commands: Parsers) -> None:
    serve = add_command(
        commands,
        "serve-env",
        _serve,
        "serve an environment to other programs, as an OpenEnv server",
        "rro serve-env quickstart --port 8000",
    )
    serve.add_argument(
        "words",
        nargs="*",
        metavar="recipe",
        help="whose environment to serve (default: the quickstart's), or the name of an "
        "environment; and overrides",
    )
    serve.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, this machine alone")
    serve.add_argument("--port", type=int, default=8000, help="default: 8000; 0: any free one")
    serve.add_argument("--sessions", type=int, default=64, help="episodes at once (default: 64)")


def _add_data(commands: Parsers, guests: bool) -> argparse.ArgumentParser:
    """Returns the parser of `data load`."""
    data = add_command(commands, "data", None, "benchmark data: fetch, load", "rro data fetch NAME")
    actions = data.add_subparsers(required=True, metavar="ACTION")
    fetch = add_command(
        actions,
        "fetch",
        _fetch,
        "get a benchmark's data",
        "rro data fetch NAME --to data/NAME",
    )
    names = f"one of {', '.join(DATA_SETS.names())}" if guests else "a data set"
    fetch.add_argument("name", help=names)
    fetch.add_argument(
        "--from", dest="source", type=Path, metavar="FOLDER", help="copy from there, no download"
    )
    fetch.add_argument(
        "--to", dest="target", type=Path, metavar="FOLDER", help="default: where rro looks for it"
    )
    return add_command(
        actions,
        "load",
        None,
        "load a benchmark's databases into a server",
        "rro data load BENCHMARK --help",
    )


def _play(options: argparse.Namespace) -> None:
    begin("opening", *options.words[:1] or ["quickstart"])

    from rro.config import load_config
    from rro.environments.registry import open_environment
    from rro.environments.splits import tasks_of
    from rro.episodes.loop import Limits
    from rro.episodes.play import PlayerLeft, play

    config = load_config(*split_environment(options.words))
    benchmark = open_environment(config.environment)
    tasks = {task.id: task for task in tasks_of(benchmark, options.split)}
    if not tasks:
        raise UsageError(f"the split {options.split} has no tasks")
    if options.task is not None and options.task not in tasks:
        raise UsageError(
            f"the split {options.split} has no task {options.task!r}; "
            f"its first is {next(iter(tasks))}"
        )
    task = tasks[options.task or next(iter(tasks))]
    limits = Limits(config.environment.max_steps or benchmark.max_steps)
    try:
        play(benchmark, task, limits, config.seed)
    except PlayerLeft:
        print("\nended by the player")


def _serve(options: argparse.Namespace) -> None:
    from rro.config import load_config
    from rro.environments.registry import open_environment

    if options.sessions < 1 or not 0 <= options.port < 1 << 16:
        raise UsageError("--sessions is at least 1, --port from 0 to 65535")
    config = load_config(*split_environment(options.words))
    server = SERVERS.find("openenv").factory
    benchmark = open_environment(config.environment)
    server(benchmark, host=options.host, port=options.port, sessions=options.sessions)


def _fetch(options: argparse.Namespace) -> None:
    begin("fetching", options.name)

    from rro.environments.data_sets import fetch

    print(fetch(options.name, options.source, options.target))
