"""Records of `rro.types` to and from plain JSON values: the one place that says how they look in
journals, files and between processes.

A message has three forms: the chat row {"role", "content"} that templates, TRL and servers take
(`Message.chat`; rro.chat_rows reads those of users), the full row with source and token ids
(`to_plain`, `from_plain`), and a tuple for pickles between processes (`pack_message`,
`unpack_message`). Knows nothing of where the values go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar

from rro.types import Message, Source, ToolCall, Usage

T = TypeVar("T")

PackedMessage = tuple[Any, ...]


def to_plain(record: Any) -> dict[str, Any]:
    """A dataclass as JSON-ready values (tuples become lists), without its empty sparse fields."""
    kind: Any = type(record)
    return {
        name: _plain(value)
        for name, sparse in _names(kind)
        if (value := getattr(record, name)) or not sparse
    }


def _plain(value: Any) -> Any:
    # dataclasses.asdict copies every leaf, which took a tenth of an exploration's own time.
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return to_plain(value) if is_dataclass(value) else value


@cache
def _names(kind: type[Any]) -> tuple[tuple[str, bool], ...]:
    """The fields, and whether each is left out where it is empty."""
    return tuple((field.name, bool(field.metadata.get("sparse"))) for field in fields(kind))


def from_plain(kind: type[T], value: Any) -> T:
    """The dataclass again, checked; keys that it does not have are ignored. Raises
    pydantic.ValidationError (a ValueError) where `value` does not fit."""
    return _adapter(kind).validate_python(value)  # type: ignore


@cache
def _adapter(kind: type[Any]) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def first_problem(error: ValueError) -> str:
    """What `from_plain` found first, in a clause: the key and what is wrong with its value."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error)
    problem = error.errors(include_url=False, include_context=False)[0]
    key = ".".join(map(str, problem["loc"]))
    return f"{key}: {problem['msg'].lower()} (it is {str(problem['input'])[:60]!r})"


def usage_of(record: Mapping[str, Any]) -> Usage:
    """The cost that a record states under "usage"."""
    return from_plain(Usage, record["usage"])


def total_usage(records: Iterable[Mapping[str, Any]]) -> Usage:
    """The cost of all records together."""
    return sum(map(usage_of, records), Usage())


def pack_message(message: Message) -> PackedMessage:
    """A message as a plain tuple, which pickles several times faster than the record."""
    plain = message.role, message.content, message.source.value, message.token_ids
    names = message.tool_call_id, message.name, message.tools, message.thought
    if not (message.tool_calls or any(names)):
        return plain
    calls = tuple((call.name, call.arguments, call.id) for call in message.tool_calls)
    return (*plain, calls, *names)


def unpack_message(packed: PackedMessage) -> Message:
    """The message again."""
    role, content, source, token_ids, *rest = packed
    if not rest:
        return Message(role, content, Source(source), token_ids)
    calls, *names = rest
    calls = tuple(ToolCall(*call) for call in calls)
    return Message(role, content, Source(source), token_ids, calls, *names)
