"""Records of `rro.types` to and from plain JSON values. One place for how they look in journals and files."""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


def to_plain(record: Any) -> dict[str, Any]:
    """A dataclass as JSON-ready values (tuples become lists on the way out)."""
    return asdict(record)


def from_plain(kind: type[T], value: Any) -> T:
    """The dataclass again, checked. Raises pydantic.ValidationError where `value` does not fit."""
    return _adapter(kind).validate_python(value)  # type: ignore


@cache
def _adapter(kind: type[Any]) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
