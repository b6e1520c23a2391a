"""Records of `rro.types` to and from plain JSON values. One place for how they look in journals and
files."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


def to_plain(record: Any) -> dict[str, Any]:
    """A dataclass as JSON-ready values (tuples become lists on the way out)."""
    kind: Any = type(record)
    return {name: _plain(getattr(record, name)) for name in _names(kind)}


def _plain(value: Any) -> Any:
    # dataclasses.asdict copies every leaf, which took a tenth of an exploration's own time.
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return to_plain(value) if is_dataclass(value) else value


@cache
def _names(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def from_plain(kind: type[T], value: Any) -> T:
    """The dataclass again, checked. Raises pydantic.ValidationError where `value` does not fit."""
    return _adapter(kind).validate_python(value)  # type: ignore


@cache
def _adapter(kind: type[Any]) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
