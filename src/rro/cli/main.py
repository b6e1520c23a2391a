"""The command line. Parses, calls one function a command, and turns errors into one sentence and
an exit code.

Nothing heavy is imported before a command needs it: `rro --help` answers at once.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rro import __version__
from rro.cli import checks, data, recipes, reports, runs, serving, sweeps, upkeep
from rro.cli.commands import CommandParser
from rro.errors import PluginError, RroError, as_interrupt, describe, place_of, printable
from rro.stopping import interruptions_last

# Commands that benchmarks add to.
_BENCHMARK_COMMANDS = {"data", "verify"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 failed, 2 wrong use, 75 stopped by a
    scheduler, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options = _parser(guests=not _BENCHMARK_COMMANDS.isdisjoint(words)).parse_args(words)
        _set_up(options.verbose)
    except KeyboardInterrupt:
        return _failed("interrupted", 130)
    except AttributeError as error:
        # argparse, interrupted, fails as it tidies up.
        if isinstance(error.__context__, KeyboardInterrupt):
            return _failed("interrupted", 130)
        raise
    with _quiet_loops():
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    try:
        with as_interrupt(), interruptions_last():
            return options.command(options) or 0
    except RroError as error:
        return _failed(str(error), error.exit_code)
    except KeyboardInterrupt as stop:
        print(file=sys.stderr)
        return _failed(": ".join(filter(None, ("interrupted", str(stop)))), 130)
    except PluginError as error:
        return _failed(f"{describe(error)}{place_of(error)}", 1)
    except (SystemExit, GeneratorExit) as error:
        # Of somebody's code: a command itself ends by returning.
        return _failed(f"the run was ended by {describe(error)}{place_of(error)}", 1)
    except OSError as error:
        if options.verbose:
            raise
        return _failed(f"{error.filename or 'input/output'}: {error.strerror or error}", 1)


class _Printable(logging.Formatter):
    """Log lines may quote what a policy or an environment said."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


@contextmanager
def _quiet_loops() -> Iterator[None]:
    """An event loop that Ctrl-C left half made cannot be deleted without an error, which Python
    would print."""
    hook = sys.unraisablehook

    def quiet(unraisable: Any) -> None:
        if getattr(unraisable.object, "__qualname__", "") != "BaseEventLoop.__del__":
            hook(unraisable)

    sys.unraisablehook = quiet
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "unclosed event loop", ResourceWarning)
            yield
    finally:
        sys.unraisablehook = hook


def _failed(sentence: str, code: int) -> int:
    print(f"rro: {printable(sentence)}", file=sys.stderr)
    return code


def _parser(guests: bool) -> argparse.ArgumentParser:
    """`guests`: whether benchmarks add their own commands, which imports them."""
    parser = CommandParser(
        prog="rro",
        description="Reward Rising Optimization: train LLM agents step by step.",
        epilog="example: rro quickstart; rro COMMAND --help describes a command",
    )
    parser.add_argument("--version", action="version", version=f"rro {__version__}")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="more log lines, and tracebacks"
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    runs.add_commands(commands)
    checks.add_commands(commands)
    sweeps.add_commands(commands)
    recipes.add_commands(commands)
    reports.add_commands(commands)
    upkeep.add_commands(commands)
    data.add_commands(commands, guests)
    serving.add_commands(commands)
    return parser


def _set_up(verbose: bool) -> None:
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Printable("%(message)s"))
    logging.getLogger("rro").setLevel(logging.DEBUG if verbose else logging.INFO)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


if __name__ == "__main__":
    sys.exit(main())
