"""How every command is declared: a sentence, an example, and what it takes; and how a recipe and
its overrides are read from the command line."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

Parsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Function = Callable[[argparse.Namespace], int | None]
OVERRIDE = "key.sub=value"

NO_RECIPE = Path(os.devnull)
"""A recipe that sets nothing."""


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


def split_words(words: Sequence[str]) -> tuple[Path | None, list[str]]:
    """An optional recipe, as a file, and overrides. Raises UsageError for an unknown recipe."""
    from rro.config.packaged import find_recipe

    if words and ("=" not in words[0] or Path(words[0]).exists()):
        return find_recipe(words[0]), list(words[1:])
    return None, list(words)
