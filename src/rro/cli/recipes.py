"""The commands about recipes: recipes (list, show)."""

from __future__ import annotations

import argparse
import sys

from rro.cli.commands import Parsers, add_command


def add_commands(commands: Parsers) -> None:
    """Add recipes to the command line."""
    recipes = add_command(
        commands,
        "recipes",
        _list,
        "the recipes that come with rro; rro recipes show NAME prints one",
        "rro recipes show quickstart > mine.toml",
    )
    actions = recipes.add_subparsers(metavar="ACTION")
    show = add_command(
        actions, "show", _show, "print a recipe's file", "rro recipes show quickstart > mine.toml"
    )
    show.add_argument("recipe", metavar="NAME", help="as rro recipes lists it")


def _list(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from rro.config.packaged import description, packaged_recipes

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for name, file in packaged_recipes().items():
        table.add_row(name, description(file))
    Console().print(table, markup=False, highlight=False)


def _show(options: argparse.Namespace) -> None:
    from rro.config.packaged import find_recipe

    sys.stdout.write(find_recipe(options.recipe).read_text(encoding="utf-8"))
