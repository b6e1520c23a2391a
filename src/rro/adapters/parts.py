"""What several adapters share: their packages, functions that a recipe names, and text for actions
and observations.

Knows none of the packages."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rro.environments.info import listed
from rro.errors import UsageError
from rro.plugins import Door

_FUNCTIONS = Door("function", "rro.functions")
_PREFIX = "Action:"
_WORD = re.compile(r"[^\W_]+")


def required(module: str, extra: str) -> Any:
    """The module of another package. Raises UsageError that names rro's extra which has it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise UsageError(
            f"{package} cannot be imported ({error}): pip install 'rro[{extra}]'"
        ) from error


def function(name: str | None) -> Callable[..., Any] | None:
    """The function called `module:attribute`; None for none. Raises UsageError."""
    return None if name is None else _FUNCTIONS.find(name).factory


def slug(text: str) -> str:
    """`text` as a part of a task's id: letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-")


def command(text: str) -> str:
    """The action in a message: the line after its last "Action:", or all of it."""
    _, prefix, rest = text.rpartition(_PREFIX)
    return rest.strip().partition("\n")[0].strip() if prefix else text.strip()


def named(text: str, names: Sequence[str]) -> int | None:
    """Which of `names` an action is, as its index: the one that it equals, else the only one that
    it has among its words. None where that is not clear."""
    words = _words(text)
    found = [index for index, name in enumerate(names) if _words(name) == words]
    found = found or [index for index, name in enumerate(names) if _words(name) in words]
    return found[0] if len(found) == 1 else None


def _words(text: str) -> str:
    """Lower case, a space around every word."""
    return f" {' '.join(_WORD.findall(text.casefold()))} "


def as_text(observation: Any) -> str:
    """An observation as text: a string as it is, else JSON where that is possible."""
    if isinstance(observation, str):
        return observation
    return json.dumps(observation, default=listed, ensure_ascii=False)


def only_text(observation: Mapping[str, Any]) -> str:
    """The one text among the fields of an observation, or all fields as JSON."""
    texts = [value for value in observation.values() if isinstance(value, str)]
    return texts[0] if len(texts) == 1 else as_text(observation)


@dataclass(frozen=True)
class Copied:
    """A snapshot by copying: `inner` is a copy that is only ever copied again. Two are equal where
    the same actions of the same task led to them (`path`)."""

    path: tuple[Any, ...]
    inner: Any = field(compare=False, repr=False)
