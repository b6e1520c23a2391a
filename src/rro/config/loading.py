"""Recipes from TOML files and overrides, checked, and back to TOML."""

from __future__ import annotations

import copy
import functools
import logging
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from rro.config.old_keys import replace_old_keys
from rro.config.origins import Origins, key_lines
from rro.config.packaged import find_method
from rro.config.plugin_options import option_problems, plugin_problems
from rro.config.problems import Problem, problems_of, refuse
from rro.config.sections import Config
from rro.config.tables import PluginSection
from rro.config.wording import model_in
from rro.errors import UsageError, reason_of
from rro.plugins import Plugin

log = logging.getLogger(__name__)

# What makes a method: an override of one leaves another method.
_PARTS = ("explore.strategy", "credit.name", "optimise.learner")
# Levels of tables and lists in a recipe; letters of an override in an error.
_DEEPEST, _LONGEST = 30, 40


def load_config(path: Path, overrides: Sequence[str] = (), *, check: bool = True) -> Config:
    """Read a recipe and apply `key.sub=value` overrides (TOML values; bare words are strings).

    With `check`, the names and options of all plug-ins are checked too, which imports those that
    are chosen or have options; without it, as for a run folder, old keys are taken silently.
    Raises UsageError that names every problem: the file and line or the override, the key, and the
    fix."""
    tree, origins = _read(path)
    problems = list[Problem]()
    if check:
        try:
            tree = _with_method(tree, overrides)
        except UsageError as error:
            problems.append(Problem(("method",), f"method: {error}"))
    for override in overrides:
        problems += _apply(tree, override.strip(), origins)
    for place in _resolve_modules(tree, path.parent):
        if check and not place.is_dir():
            problems.append(Problem(("modules",), f"modules: {place} is no folder"))
    replace_old_keys(tree, origins, warn=check)
    return _checked(tree, origins, problems, plugins=check)


def parse_config(tree: dict[str, Any], where: str) -> Config:
    """Check a tree of plain values, apart from the options of plug-ins; `where` names it in the
    error."""
    origins = Origins(where)
    replace_old_keys(tree, origins)
    return _checked(tree, origins, [], plugins=False)


def check_plugins(config: Config, where: str) -> None:
    """Check the names and options of all plug-ins that a recipe names. Imports those with options
    and those that are chosen. Raises UsageError for an unknown name, and for options that do not
    fit."""
    refuse(plugin_problems(config), Origins(where))


def parse_options(
    section: PluginSection, plugin: Plugin, table: str, defaults: Mapping[str, Any] | None = None
) -> BaseModel:
    """The options that a section of a recipe, called `table`, sets for a plug-in; `defaults` stand
    below them. Raises UsageError for unknown or ill-typed ones."""
    values = {**(defaults or {}), **section.options_of(plugin)}
    try:
        return plugin.options(values)
    except ValidationError as error:
        problems = option_problems(error, section, plugin, table, values)
        refuse(problems, Origins(f"{plugin.kind} {plugin.name}"))
        raise


def dump_toml(config: Config) -> str:
    """The configuration as TOML; absent keys mean None. Round-trips through `load_config`."""
    import tomli_w

    return tomli_w.dumps(_without_none(config.model_dump(mode="json")))


def _read(path: Path) -> tuple[dict[str, Any], Origins]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        return _plain_toml(text, str(path)), Origins(str(path), key_lines(text))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such recipe") from None
    except tomllib.TOMLDecodeError as error:
        line = re.search(r" \(at line (\d+), column \d+\)$", str(error))
        where = f"{path}:{line[1]}" if line else str(path)
        reason = str(error).partition(" (at ")[0]
        raise UsageError(f"{where}: not TOML: {reason}; texts stand in quotes") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not a text in UTF-8: save it as one") from None
    except IsADirectoryError:
        raise UsageError(f"{path} is a folder: name a recipe's file") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {reason_of(error)}") from None


def _plain_toml(text: str, where: str) -> dict[str, Any]:
    """The tree of a TOML text. Raises TOMLDecodeError, and UsageError where it is nested more
    deeply than a recipe can be, or has an integer beyond TOML's 64 bits; `where` names it."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        raise UsageError(f"{where}: nested too deeply: leave brackets out") from None
    except ValueError:  # Python reads no integers of thousands of digits
        raise UsageError(f"{where}: an integer is too large: 64 bits are the most") from None
    rest = [(value, 0) for value in tree.values()]
    while rest:
        value, depth = rest.pop()
        if depth > _DEEPEST:
            raise UsageError(f"{where}: nested too deeply: leave brackets or points out")
        if isinstance(value, int) and abs(value) >= 2**63:
            raise UsageError(f"{where}: an integer is too large: 64 bits are the most")
        if isinstance(value, dict | list):
            parts = value.values() if isinstance(value, dict) else value
            rest += [(part, depth + 1) for part in parts]
    return tree


def _with_method(tree: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A recipe's tree with the settings of the method that it, or an override, names: below the
    recipe's own in the first case, above them in the second."""
    named = [text.strip() for text in overrides if _key_of(text) == "method"]
    if len(set(named)) > 1:
        raise UsageError(f"{' and '.join(dict.fromkeys(named))}: a run has one method")
    name = _value(named[0].partition("=")[2].strip(), named[0]) if named else tree.get("method")
    if not isinstance(name, str):
        return tree
    method = tomllib.loads(find_method(name).read_text(encoding="utf-8"))
    if not named:
        return _merged(method, tree)
    for override in overrides:
        _tell_replaced(name, method, override.strip())
    return _merged(tree, method)


@functools.cache
def _told(sentence: str) -> None:
    """A warning that is printed once, however often a recipe is read."""
    log.warning(sentence)


def _tell_replaced(name: str, method: Mapping[str, Any], override: str) -> None:
    """An override stands above the method beside it: say so where it replaces one of its parts."""
    key = _key_of(override)
    section, _, part = key.partition(".")
    own = method.get(section, {}).get(part) if key in _PARTS else None
    if own is not None and _value(override.partition("=")[2].strip(), override) != own:
        _told(
            f"{override} stands above method={name}, which has {key}={own}; the method's other "
            "settings and its label stay"
        )


def _key_of(override: str) -> str:
    return override.partition("=")[0].strip()


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both trees in one; where both set a value, that of `above`."""
    merged = dict(below)
    for key, value in above.items():
        known = merged.get(key)
        if isinstance(known, Mapping) and isinstance(value, Mapping):
            merged[key] = _merged(known, value)
        else:
            merged[key] = value
    return merged


def _resolve_modules(tree: dict[str, Any], folder: Path) -> list[Path]:
    """Folders of modules are relative to the recipe's; by default it is the only one."""
    folders = tree.get("modules", ["."])
    if not isinstance(folders, list) or not all(isinstance(item, str) for item in folders):
        return []
    places = [(folder / item).resolve() for item in folders]
    tree["modules"] = list(map(str, places))
    return places


def _checked(
    tree: dict[str, Any], origins: Origins, problems: list[Problem], *, plugins: bool
) -> Config:
    """The tree as a configuration. Raises UsageError that tells `problems` and all others."""
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        problems = [*problems, *problems_of(error, Config, tree)]
        config = _valid_part(tree, problems)
    refuse([*problems, *(plugin_problems(config) if plugins else ())], origins)
    return config


def _valid_part(tree: Mapping[str, Any], problems: list[Problem]) -> Config:
    """The configuration without the settings that are wrong, so that the rest can be checked.
    Problems that only this brings to light are added."""
    tree = copy.deepcopy(dict(tree))
    for problem in problems:
        _remove(tree, problem.path)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        more = problems_of(error, Config, tree)
        new = [problem for problem in more if problem not in problems]
        problems.extend(new)
        return _valid_part(tree, problems) if new else Config()


def _remove(tree: Any, path: tuple[str, ...]) -> None:
    for part in path[:-1]:
        tree = tree.get(part, {}) if isinstance(tree, dict) else {}
    if path and isinstance(tree, dict):
        tree.pop(path[-1], None)


def _apply(tree: dict[str, Any], override: str, origins: Origins) -> list[Problem]:
    """Set what an override says; a problem if it does not say anything."""
    key, equals, text = override.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not equals or not all(path):
        return [_misplaced(override, "sets nothing: write key.sub=value", origins)]
    for depth, parent in enumerate(path[:-1], 1):
        value = tree.setdefault(parent, {})
        if not isinstance(value, dict):
            return [_misplaced(override, _no_section(path, depth, value), origins)]
        tree = value
    tree[path[-1]] = _value(text, override, _is_option(path))
    origins.override(path, override)
    return []


def _no_section(path: tuple[str, ...], depth: int, value: Any) -> str:
    """Why nothing can be set in what the first `depth` parts of `path` name, and the fix."""
    key = ".".join(path[:depth])
    sentence = f"{key} is a value, not a section"
    if key == "sft" and value in (None, "none"):
        own = ".".join(("optimise", *path))
        return f'{sentence}: leave sft = "none" out, or set {own} for the learner sft'
    return f"{sentence}: set {key} itself"


def _misplaced(override: str, sentence: str, origins: Origins) -> Problem:
    """The problem of an override that reaches no setting: it stands for itself."""
    origins.override((override,), override)
    return Problem((override,), sentence)


def _is_option(path: tuple[str, ...]) -> bool:
    """Whether an option of a plug-in is set: only the plug-in can say what "none" is there."""
    field = Config.model_fields.get(path[0])
    section = model_in(field.annotation) if field else None
    if section is None or not issubclass(section, PluginSection) or len(path) < 3:
        return False
    return path[1] == "options" or path[1] not in section.model_fields


def _value(text: str, override: str, word: bool = False) -> Any:
    if text.strip() == "none":
        return "none" if word else None
    try:
        return _plain_toml(f"value = {text}", f"{override[:_LONGEST]} ...")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value
