"""What a setting takes, in words: for error messages, `rro config` and the reference page."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

_SCALARS = {str: "text", Path: "a path", bool: "true or false", Any: "any value"}
_NUMBERS = {int: "a whole number", float: "a number"}
_PLURALS = {"text": "texts", "a path": "paths", "a whole number": "whole numbers"}


def expected(field: FieldInfo) -> str:
    """What a setting takes, e.g. "a whole number of at least 1"."""
    return in_words(field.annotation, field.metadata)


def in_words(annotation: Any, limits: Iterable[Any] = ()) -> str:
    """A type with its limits (annotated_types) in words; None is left out."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    limits = list(limits)
    if origin is typing.Annotated:
        return in_words(arguments[0], [*limits, *annotation.__metadata__])
    if origin in (typing.Union, types.UnionType):
        return _alternatives(arguments, limits)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if annotation in _NUMBERS:
        return _NUMBERS[annotation] + _range(limits)
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    return _container(annotation, origin or annotation, arguments)


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The model of a nested table, also where it may be None."""
    choices = typing.get_args(annotation) or (annotation,)
    models = [
        choice for choice in choices if isinstance(choice, type) and issubclass(choice, BaseModel)
    ]
    return models[0] if models else None


def _alternatives(arguments: Sequence[Any], limits: list[Any]) -> str:
    kinds = dict.fromkeys(
        in_words(argument, limits) for argument in arguments if argument is not type(None)
    )
    if "a path" in kinds:
        kinds.pop("text", None)
    return " or ".join(kinds)


def _container(annotation: Any, kind: Any, arguments: Sequence[Any]) -> str:
    if not isinstance(kind, type):
        return str(annotation)
    if issubclass(kind, Mapping | BaseModel) or is_dataclass(kind):
        return "a table"
    if issubclass(kind, Sequence | set | frozenset):
        item = in_words(arguments[0]) if arguments else "any value"
        return f"a list of {_PLURALS.get(item, item).removeprefix('one of ')}"
    return f"a {kind.__name__}"


def _range(limits: Iterable[Any]) -> str:
    """The limits of a number, e.g. " from 0 to 1"."""
    found: dict[str, float] = {}
    for limit in limits:
        nested = limit.metadata if isinstance(limit, FieldInfo) else [limit]
        found |= {
            name: getattr(one, name)
            for one in nested
            for name in ("ge", "gt", "le", "lt")
            if hasattr(one, name)
        }
    if found.keys() == {"ge", "le"}:
        return f" from {found['ge']} to {found['le']}"
    words = {"ge": "of at least", "gt": "above", "le": "at most", "lt": "below"}
    parts = [f"{words[name]} {found[name]}" for name in words if name in found]
    return f" {' and '.join(parts)}" if parts else ""
