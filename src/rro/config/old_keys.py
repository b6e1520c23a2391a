"""Recipe keys of earlier versions: they keep working for one minor version, with a warning that
names the new key."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger(__name__)

# Old key to new key. Renamed options of a plug-in stand in its options model (`old_names`).
OLD_KEYS = {
    "explore.rising": "explore.rro.rising",
    "explore.start": "explore.rro.start",
    "explore.siblings": "credit.siblings",
    "explore.margin": "credit.margin",
    "explore.sides": "credit.expert_pairs.sides",
}


def replace_old_keys(tree: dict[str, Any], where: str) -> None:
    """Move the values of old keys in a recipe's tree to their new keys. A value under the new key
    wins."""
    for old, new in OLD_KEYS.items():
        found = _pop(tree, old.split("."))
        if found is not None:
            log.warning(
                "%s: %s is now %s; the old key goes in the next minor version", where, old, new
            )
            _set_default(tree, new.split("."), found)


def _pop(tree: dict[str, Any], path: list[str]) -> Any:
    *parents, leaf = path
    for parent in parents:
        tree = tree.get(parent, {})
        if not isinstance(tree, dict):
            return None
    return tree.pop(leaf, None)


def _set_default(tree: dict[str, Any], path: list[str], value: Any) -> None:
    *parents, leaf = path
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree.setdefault(leaf, value)
