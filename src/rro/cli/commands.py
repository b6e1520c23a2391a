"""How every command is declared: a sentence, an example, and what it takes; and how a recipe and
its overrides are read from the command line."""

from __future__ import annotations

import argparse
import logging
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

Parsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
log = logging.getLogger(__name__)

Function = Callable[[argparse.Namespace], int | None]

# Seconds of a time limit: about thirty years.
_LONGEST = 1e9

NO_RECIPE = Path(os.devnull)
"""A recipe that sets nothing."""


class CommandParser(argparse.ArgumentParser):
    """Takes settings before, between and after options, as `rro run NAME --out X seed=1`; argparse
    by itself stops at the first option that stands between them. A command that has commands of its
    own takes none."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._mixes = True

    def add_subparsers(self, **options: Any) -> Any:
        """As argparse does."""
        self._mixes = False
        return super().add_subparsers(**options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does."""
        if not self._mixes:
            return super().parse_known_args(args, namespace)
        # What follows parses twice, each time by this method.
        self._mixes = False
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixes = True


def add_command(
    commands: Parsers,
    name: str,
    function: Function | None,
    text: str,
    example: str,
    aliases: Sequence[str] = (),
) -> argparse.ArgumentParser:
    """Declare the command `name`, described by `text`, which calls `function`; None: it has
    commands of its own."""
    parser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=f"example: {example}",
        aliases=aliases,
    )
    if function is not None:
        parser.set_defaults(command=function)
    return parser


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Let a command take settings that change its recipe's."""
    text = "a setting in place of the recipe's, e.g. explore.tasks=20 (rro config lists them)"
    parser.add_argument("overrides", nargs="*", default=[], metavar="key.sub=value", help=text)


def folder_named(text: str) -> Path:
    """A folder that an option names: not an empty text, which would be the working directory."""
    if not text:
        raise argparse.ArgumentTypeError("name a folder")
    return Path(text)


def round_number(text: str) -> int:
    """A round that an option names, counted from 1."""
    if not text.isdecimal() or not int(text[:9]):
        raise argparse.ArgumentTypeError("rounds are counted from 1")
    return int(text[:9])


def time_limit(text: str) -> float:
    """Seconds that an option names: above 0, and within what a timer can hold."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < _LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds


def begin(doing: str, *targets: object) -> None:
    """Tell what a command does first, before the imports that take it seconds."""
    log.info("%s %s ...", doing, ", ".join(map(str, targets)))


def split_environment(words: Sequence[str]) -> tuple[Path, list[str]]:
    """What to open the environment of: a recipe (default: the quickstart), as a file, and
    overrides. The first of `words` may be the name of an environment instead of a recipe, or
    `module:attribute`; it then has its default options."""
    from rro.config.packaged import find_recipe
    from rro.plugins import ENVIRONMENTS

    first = words[0] if words else ""
    named = first in ENVIRONMENTS.names() or (":" in first and "=" not in first)
    if named and not Path(first).exists():
        return NO_RECIPE, [f"environment.name={first}", *words[1:]]
    recipe, overrides = split_words(words)
    own = any(word.startswith("environment.name=") for word in overrides)
    return recipe or (NO_RECIPE if own else find_recipe("quickstart")), overrides


def split_words(words: Sequence[str]) -> tuple[Path | None, list[str]]:
    """An optional recipe, as a file, and overrides. Raises UsageError for an unknown recipe."""
    from rro.config.packaged import find_recipe

    if words and ("=" not in words[0] or Path(words[0]).exists()):
        return find_recipe(words[0]), list(words[1:])
    return None, list(words)
