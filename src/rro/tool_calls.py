"""Calls of tools as a model or a server wrote them, made into `ToolCall`s that are safe to keep:
their names and ids can hold no control token, their arguments are any text.

Knows neither the markup of a model family nor what a tool does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rro.jsonl import storable
from rro.seeds import derive_seed
from rro.types import Message, ToolCall

UNNAMED = "invalid"
"""The name of a call whose own name is none: no tool has it."""
LARGEST_ID = 64
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
# Mistral's templates take ids of nine letters and digits alone.
_ID_LENGTH = 9


def is_name(value: Any) -> bool:
    """Whether this can be the name of a tool."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def tool_calls(calls: Iterable[tuple[Any, Any, Any]]) -> tuple[ToolCall, ...]:
    """Calls from (name, arguments, id) as they were read; arguments are JSON text or its value. An
    id that is missing, odd or used twice is replaced by one that depends on the call alone."""
    made: list[ToolCall] = []
    for number, (name, arguments, id_) in enumerate(calls):
        text = arguments if isinstance(arguments, str) else _written(arguments)
        if not is_name(name):
            name, text = UNNAMED, f"{name}: {text}"
        if not is_name(id_) or any(call.id == id_ for call in made):
            id_ = _call_id(name, text, number)
        made.append(ToolCall(name, text, id_))
    return tuple(made)


def _written(arguments: Any) -> str:
    try:
        return "{}" if arguments is None else json.dumps(arguments, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return storable(repr(type(arguments)))


def _call_id(name: str, arguments: str, number: int) -> str:
    value, digits = derive_seed("tool call", name, storable(arguments), number), ""
    for _ in range(_ID_LENGTH):
        value, rest = divmod(value, len(_DIGITS))
        digits += _DIGITS[rest]
    return digits


def schema_name(schema: Any) -> str:
    """The name in a tool's schema. Raises ValueError for one without, or without a form that all
    templates know."""
    function = schema.get("function") if isinstance(schema, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not is_name(name):
        raise ValueError(
            'a tool must be {"type": "function", "function": {"name": ..., "description": ..., '
            '"parameters": ...}}, and its name of letters, digits, "_", "-" and "."'
        )
    return str(name)


def tools_text(schemas: Sequence[Any]) -> str:
    """The form in which `Message.tools` holds schemas; "" for none. Raises ValueError for what is
    no schema, and for a name that is used twice."""
    names = [schema_name(schema) for schema in schemas]
    if len(set(names)) < len(names):
        raise ValueError(f"two tools have the same name: {', '.join(names)}")
    return json.dumps(list(schemas), ensure_ascii=False) if names else ""


def tools_of(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The schemas of the tools that a conversation offers."""
    text = messages[0].tools if messages else ""
    schemas: list[dict[str, Any]] = json.loads(text) if text else []
    return schemas
