"""Checks the plug-ins that a recipe names, and the options that it sets for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from pydantic import ValidationError

from rro.config.origins import Path
from rro.config.problems import Problem, problems_of
from rro.config.sections import Config
from rro.config.tables import PluginSection
from rro.errors import UsageError
from rro.plugins import Plugin, search_in


def plugin_problems(config: Config) -> Iterator[Problem]:
    """What is wrong with the names and options of all plug-ins that a recipe names. Imports those
    with options and those that are chosen."""
    search_in(config.modules)
    for table, section in plugin_sections(config):
        chosen = getattr(section, section.choice)
        names = [*([chosen] if chosen else []), *(section.model_extra or {})]
        for name in dict.fromkeys(names):
            yield from _problems(section, table, name)


def plugin_sections(config: Config) -> Iterator[tuple[str, PluginSection]]:
    """The sections that choose a plug-in, by their names."""
    for table in type(config).model_fields:
        section = getattr(config, table)
        if isinstance(section, PluginSection):
            yield table, section


def option_problems(
    error: ValidationError,
    section: PluginSection,
    plugin: Plugin,
    table: str,
    values: Mapping[str, Any],
) -> list[Problem]:
    """The problems of a plug-in's options, under the keys that the recipe sets them by."""
    old_names = getattr(plugin.factory, "old_names", {})
    values = {old_names.get(name, name): value for name, value in values.items()}
    written = partial(_written_as, section, plugin, table)
    return problems_of(error, plugin.options_model, values, written)


def _problems(section: PluginSection, table: str, name: str) -> Iterator[Problem]:
    chosen = (table, section.choice)
    if name != getattr(section, section.choice):
        section = section.model_copy(update={"options": {}})
    try:
        plugin = section.door.find(name)
        values = section.options_of(plugin)
        plugin.options(values)
    except UsageError as error:
        sentence = str(error).removeprefix(f"{section.door.kind} {name}: ")
        yield Problem(chosen, f"{'.'.join(chosen)}: {sentence}")
    except ValidationError as error:
        yield from option_problems(error, section, plugin, table, values)


def _written_as(section: PluginSection, plugin: Plugin, table: str, path: Path) -> Path:
    """The key by which a recipe sets an option: in `[SECTION.options]`, in the plug-in's own table
    or, where plug-ins share it, in the section itself."""
    own = (section.model_extra or {}).get(plugin.name, {})
    old_names = getattr(plugin.factory, "old_names", {})
    name = path[0] if path else ""
    names = [name, *(old for old, new in old_names.items() if new == name)]
    for key in names:
        if key in section.options:
            return (table, "options", key, *path[1:])
        if key in own:
            return (table, plugin.name, key, *path[1:])
    if name in section.shared and getattr(section, name) is not None:
        return (table, *path)
    return (table, "options", *path)
