"""Recipes from TOML files and overrides, checked, and back to TOML."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from rro.config.old_keys import replace_old_keys
from rro.config.sections import Config, PluginSection
from rro.errors import UsageError
from rro.plugins import Plugin, did_you_mean, search_in


def load_config(path: Path, overrides: Sequence[str] = (), *, check: bool = True) -> Config:
    """Read a recipe and apply `key.sub=value` overrides (TOML values; bare words are strings).

    Raises UsageError that names the file and the key for anything unknown or ill-typed."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such recipe") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: {error}") from error
    for override in overrides:
        _apply(tree, override)
    tree["modules"] = [
        str((path.parent / folder).resolve()) for folder in tree.get("modules", ["."])
    ]
    config = parse_config(tree, str(path))
    if check:
        check_plugins(config, str(path))
    return config


def check_plugins(config: Config, where: str) -> None:
    """Check the names and options of all plug-ins that a recipe names, before anything is written.
    Imports those with options and those that are chosen. Raises UsageError for an unknown name, and
    for options that do not fit."""
    search_in(config.modules)
    for table in type(config).model_fields:
        section = getattr(config, table)
        if isinstance(section, PluginSection):
            chosen = getattr(section, section.choice)
            for name in dict.fromkeys(
                [*([chosen] if chosen else []), *(section.model_extra or {})]
            ):
                _check_plugin(section, table, name, where)


def _check_plugin(section: PluginSection, table: str, name: str, where: str) -> None:
    known = section.door.names()
    if ":" not in name and name not in known:
        raise UsageError(
            f"{where}: {table}.{section.choice}: unknown {section.door.kind} {name!r}: {did_you_mean(name, known)}, "
            "or module:attribute of your own"
        )
    if name != getattr(section, section.choice):
        section = section.model_copy(update={"options": {}})
    parse_options(section, section.door.find(name), table)


def parse_config(tree: dict[str, Any], where: str) -> Config:
    """Check a tree of plain values; `where` names it in the error."""
    replace_old_keys(tree, where)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise UsageError(f"{where}: {_sentence(error)}") from None


def parse_options(
    section: PluginSection, plugin: Plugin, table: str, defaults: Mapping[str, Any] | None = None
) -> BaseModel:
    """The options that a section of a recipe, called `table`, sets for a plug-in; `defaults` stand
    below them. Raises UsageError for unknown or ill-typed ones."""
    try:
        return plugin.options({**(defaults or {}), **section.options_of(plugin)})
    except ValidationError as error:
        where = f"{plugin.kind} {plugin.name}"
        raise UsageError(
            f"{where}: {_sentence(error, plugin.options_model, f'{table}.options')}"
        ) from None


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(f"{override!r} is not an override: write key.sub=value")
    *parents, leaf = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise UsageError(f"override {override!r}: {parent} is a value, not a section")
    tree[leaf] = _value(text)


def _value(text: str) -> Any:
    if text == "none":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _sentence(error: ValidationError, model: type[BaseModel] = Config, table: str = "") -> str:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    if first["type"] == "unknown_key":
        path.append(first["ctx"]["key"])
    key = ".".join([*([table] if table else []), *path])
    if first["type"] == "secret":  # the value must not be printed
        return f"{key}: {first['msg']}"
    if first["type"] not in ("extra_forbidden", "unknown_key"):
        return f"{key}: {first['msg'].lower()} (got {first['input']!r})"
    known = _known_keys(model, path[:-1])
    close = difflib.get_close_matches(path[-1], known, 1)
    hint = f"did you mean {close[0]}?" if close else f"known keys are {', '.join(known)}"
    return f"unknown key {key}: {hint}"


def _known_keys(model: Any, parents: Sequence[str]) -> list[str]:
    section = model
    for part in parents:
        section = section.model_fields[part].annotation
        choices = getattr(section, "__args__", [section])
        section = next((choice for choice in choices if hasattr(choice, "model_fields")), section)
    return list(getattr(section, "model_fields", ()))


def dump_toml(config: Config) -> str:
    """The configuration as TOML; absent keys mean None. Round-trips through `load_config`."""
    import tomli_w

    return tomli_w.dumps(_without_none(config.model_dump(mode="json")))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value
