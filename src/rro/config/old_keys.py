"""Recipe keys of earlier versions: they keep working for one minor version, with a warning that
names the new key."""

from __future__ import annotations

import logging
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


def replace_old_keys(tree: dict[str, Any], origins: Origins, *, warn: bool = True) -> None:
    """Move the values of old keys in a recipe's tree to their new keys. A value under the new key
    wins."""
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
