"""The commands about recipes: recipes (list, show) and config."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rro.cli.commands import NO_RECIPE, Parsers, add_command, split_words
from rro.errors import UsageError

if TYPE_CHECKING:
    from rro.config import Config


def add_commands(commands: Parsers) -> None:
    """Add recipes and config to the command line."""
    _add_recipes(commands)
    config = add_command(
        commands,
        "config",
        _config,
        "print every setting of a recipe with its value, type and meaning",
        "rro config quickstart explore.strategy=rro > mine.toml",
    )
    config.add_argument(
        "words",
        nargs="*",
        metavar="recipe",
        help="a file or a name (default: none, every setting at its default), and overrides",
    )
    other = config.add_mutually_exclusive_group()
    other.add_argument("--schema", action="store_true", help="a JSON schema, for editors, instead")
    other.add_argument("--page", action="store_true", help="the reference page in Markdown instead")


def _add_recipes(commands: Parsers) -> None:
    recipes = add_command(
        commands,
        "recipes",
        _list,
        "the recipes and methods that come with rro (list), or one recipe (show NAME)",
        "rro recipes show quickstart > mine.toml",
    )
    actions = recipes.add_subparsers(metavar="ACTION")
    add_command(actions, "list", _list, "list them", "rro recipes list")
    show = add_command(
        actions, "show", _show, "print a recipe's file", "rro recipes show quickstart > mine.toml"
    )
    show.add_argument("recipe", metavar="NAME", help="as rro recipes lists it")


def _list(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from rro.config.packaged import description, packaged_methods, packaged_recipes

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for name, file in packaged_recipes().items():
        table.add_row(name, description(file))
    for name, file in packaged_methods().items():
        table.add_row(f"method={name}", description(file))
    Console().print(table, markup=False, highlight=False)


def _show(options: argparse.Namespace) -> None:
    from rro.config.packaged import find_method, find_recipe

    key, equals, method = options.recipe.partition("=")
    file = find_method(method) if equals and key == "method" else find_recipe(options.recipe)
    sys.stdout.write(file.read_text(encoding="utf-8"))


def _config(options: argparse.Namespace) -> None:
    from rro.config.listing import as_page, as_toml
    from rro.config.schema import json_schema

    if (options.schema or options.page) and options.words:
        raise UsageError("--schema and --page are about every recipe: name none")
    if options.schema:
        text = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    elif options.page:
        text = as_page()
    else:
        text = as_toml(*_listed(options.words))
    sys.stdout.write(text)


def _listed(words: Sequence[str]) -> tuple[Config, str]:
    """The configuration to list, and the comment above it. rro's own recipes have no modules
    beside them."""
    from rro.config import load_config
    from rro.config.listing import TEMPLATE
    from rro.config.packaged import packaged_recipes

    recipe, overrides = split_words(words)
    config = load_config(recipe or NO_RECIPE, overrides)
    if recipe is None or recipe.resolve() in packaged_recipes().values():
        config = config.model_copy(update={"modules": []})
    return config, f"rro config {' '.join(words)}".strip() + f": {TEMPLATE}"
