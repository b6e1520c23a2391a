"""Recipe keys of earlier versions. For one minor version, renamed ones keep working and removed
ones are left out, each with a warning."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from rro.config.origins import Origins, Path

log = logging.getLogger(__name__)

# Old key to new key. Renamed options of a plug-in stand in its options model (`old_names`).
OLD_KEYS = {
    "iterations": "rounds.count",
    "explore.rising": "explore.rro.rising",
    "explore.start": "explore.rro.start",
    "explore.siblings": "credit.siblings",
    "explore.margin": "credit.margin",
    "explore.sides": "credit.expert_pairs.sides",
}

# Plug-in to the options that it had once and that no longer decide anything.
REMOVED_OPTIONS = {
    "explore.adaptive": (
        "max_draws",
        "most",
        "step_calls",
        "prior",
        "dispersion",
        "weigh",
        "race",
        "recycle",
    ),
    "credit.credible_pairs": ("prior", "dispersion"),
}


def replace_old_keys(tree: dict[str, Any], origins: Origins, *, warn: bool = True) -> None:
    """Move the values of old keys in a recipe's tree to their new keys, and take out removed
    options. A value under the new key wins."""
    for path in _removed(tree):
        if _pop(tree, path) is not None and warn:
            key = ".".join(path)
            log.warning("%s: %s decides nothing any more: remove it", origins.of(path), key)
    for old, new in OLD_KEYS.items():
        old_path, new_path = tuple(old.split(".")), tuple(new.split("."))
        value = _pop(tree, old_path)
        if value is None or not _set_default(tree, new_path, value):
            continue
        if warn:
            place = origins.of(old_path)
            log.warning(
                "%s: %s is now %s; the old key goes in the next minor version", place, old, new
            )
        origins.move(old_path, new_path)


def _removed(tree: dict[str, Any]) -> Iterator[Path]:
    """Where removed options may stand: in the plug-in's own table, or among the options of the one
    that the section chooses."""
    for plugin, options in REMOVED_OPTIONS.items():
        table, name = plugin.split(".")
        section = tree.get(table, {})
        chosen = isinstance(section, dict) and name in (
            section.get("strategy"),
            section.get("name"),
        )
        for option in options:
            yield (table, name, option)
            if chosen:
                yield (table, "options", option)


def _pop(tree: dict[str, Any], path: Path) -> Any:
    *parents, leaf = path
    for parent in parents:
        tree = tree.get(parent, {})
        if not isinstance(tree, dict):
            return None
    return tree.pop(leaf, None)


def _set_default(tree: dict[str, Any], path: Path, value: Any) -> bool:
    """Whether there was a table to set it in."""
    *parents, leaf = path
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            return False
    tree.setdefault(leaf, value)
    return True
