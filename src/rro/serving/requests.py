"""Requests of OpenAI's chat API as messages and sampling parameters.

What a client leaves out has a default; what rro cannot carry out is refused with a sentence, never
ignored. Knows neither conversations nor HTTP."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rro.errors import UsageError
from rro.jsonl import storable
from rro.tool_calls import tool_calls, tools_text
from rro.types import Message, SamplingParams, ToolCall

MOST_MESSAGES = 1000
LARGEST = 2**63 - 1
_ROLES = {"system": "system", "developer": "system", "user": "user"}
# Settings that change nothing where they have one of these values.
_ONLY: Mapping[str, tuple[Any, ...]] = {
    "tool_choice": ("auto", "none"),
    "response_format": ({"type": "text"},),
    "logprobs": (False,),
    "presence_penalty": (0, 0.0),
    "frequency_penalty": (0, 0.0),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "functions": ([],),
    "function_call": ("auto", "none"),
    "top_logprobs": (0,),
    "prediction": (),
    "min_tokens": (0,),
    "echo": (False,),
    "best_of": (1,),
}
# What decides which tokens may be drawn: theirs where a server draws as the client says.
_DRAWING: Mapping[str, tuple[Any, ...]] = {
    "top_k": (0, -1),
    "min_p": (0, 0.0),
    "repetition_penalty": (1, 1.0),
}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A call: the messages (the first with the tools' schemas), how many answers, how they are
    drawn, the client's `seed` and `user`, and whether and how it wants a stream."""

    messages: tuple[Message, ...]
    n: int
    params: SamplingParams
    seed: int | None
    user: str
    stream: bool
    stream_usage: bool


def read_request(
    body: Any, defaults: SamplingParams, most_answers: int, obey: bool = False
) -> ChatRequest:
    """A request's body. Temperature and top_p are those of `defaults` unless `obey`; its limit of
    tokens is never exceeded. Raises UsageError for what is wrong or cannot be carried out."""
    if not isinstance(body, Mapping):
        raise UsageError("the body must be a JSON object")
    for key, values in ({**_ONLY, **_DRAWING} if obey else _ONLY).items():
        if body.get(key) is not None and body[key] not in values:
            raise UsageError(f"{key} {reprlib.repr(body[key])} is not supported: leave it out")
    n = _number(body, "n", 1, int)
    if not 1 <= n <= most_answers:
        raise UsageError(f"n is {n}: at least 1, at most {most_answers}")
    stream_options = body.get("stream_options") or {}
    if not isinstance(stream_options, Mapping):
        raise UsageError("stream_options must be an object")
    return ChatRequest(
        messages=_with_tools(read_messages(body.get("messages")), body),
        n=n,
        params=_params(body, defaults, obey),
        seed=_number(body, "seed", None, int),
        user=storable(str(body.get("user") or "")),
        stream=bool(body.get("stream")),
        stream_usage=bool(stream_options.get("include_usage")),
    )


def _params(body: Mapping[str, Any], defaults: SamplingParams, obey: bool) -> SamplingParams:
    stop = body.get("stop") or []
    stop = [stop] if isinstance(stop, str) else stop
    if (
        not isinstance(stop, list)
        or len(stop) > 16
        or not all(isinstance(text, str) and text for text in stop)
    ):
        raise UsageError("stop must be a text, or at most 16 of them")
    limits = [
        _number(body, key, defaults.max_new_tokens, int)
        for key in ("max_tokens", "max_completion_tokens")
    ]
    longest = min(defaults.max_new_tokens, *limits)
    if longest < 1:
        raise UsageError("max_tokens must be at least 1")
    temperature = _number(body, "temperature", defaults.temperature, float)
    top_p = _number(body, "top_p", defaults.top_p, float)
    if not 0 <= temperature <= 10 or not 0 < top_p <= 1:
        raise UsageError("temperature must be from 0 to 10, top_p above 0 and at most 1")
    params = replace(defaults, max_new_tokens=longest, stop=tuple(stop), logprobs=True)
    return replace(params, temperature=temperature, top_p=top_p) if obey else params


def _number(body: Mapping[str, Any], key: str, default: Any, kind: type[Any]) -> Any:
    value = body.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        raise UsageError(f"{key} must be a {'whole ' if kind is int else ''}number")
    if abs(value) > LARGEST:
        raise UsageError(f"{key} is too large")
    return kind(value)


def _with_tools(messages: tuple[Message, ...], body: Mapping[str, Any]) -> tuple[Message, ...]:
    tools = body.get("tools") or []
    if not isinstance(tools, list):
        raise UsageError("tools must be a list")
    if not tools or body.get("tool_choice") == "none":
        return messages
    try:
        return replace(messages[0], tools=tools_text(tools)), *messages[1:]
    except (ValueError, RecursionError) as error:
        raise UsageError(f"tools: {error}") from None


def read_messages(turns: Any) -> tuple[Message, ...]:
    """The messages of a request. Raises UsageError that names the message."""
    if not isinstance(turns, list) or not 0 < len(turns) <= MOST_MESSAGES:
        raise UsageError(f"messages must be a list of 1 to {MOST_MESSAGES} messages")
    found, calls = list[Message](), dict[str, str]()
    for number, turn in enumerate(turns, 1):
        message = _message(turn, f"message {number}", calls)
        calls |= {call.id: call.name for call in message.tool_calls}
        found.append(message)
    if found[-1].role == "assistant":
        raise UsageError("the last message is the assistant's: there is nothing to answer")
    return tuple(found)


def _message(turn: Any, place: str, calls: Mapping[str, str]) -> Message:
    if not isinstance(turn, Mapping):
        raise UsageError(f"{place}: must be an object with role and content")
    role, text = turn.get("role"), _text(turn.get("content"), place)
    if not isinstance(role, str):
        raise UsageError(f"{place}: its role must be a text")
    if role in _ROLES:
        return Message(_ROLES[role], text)  # type: ignore[arg-type]
    if role == "assistant":
        return Message("assistant", text, tool_calls=_calls(turn.get("tool_calls"), place))
    if role == "tool":
        id_ = str(turn.get("tool_call_id") or "")
        if id_ not in calls:
            raise UsageError(f"{place}: no tool was called with the id {id_[:80]!r}")
        return Message("tool", text, tool_call_id=id_, name=calls[id_])
    raise UsageError(f"{place}: the role {role[:80]!r} is unknown")


def _text(content: Any, place: str) -> str:
    texts = list[str]()
    parts = content if isinstance(content, list) else [] if content is None else [content]
    for part in parts:
        whole = isinstance(part, Mapping) and part.get("type") == "text"
        text = part.get("text") if whole else part
        if not isinstance(text, str):
            raise UsageError(f"{place}: its content must be text, or parts of the type text")
        texts.append(text)
    return "".join(texts)


def _calls(given: Any, place: str) -> tuple[ToolCall, ...]:
    rows = []
    for call in given if isinstance(given, list) else [given] if given else []:
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping):
            raise UsageError(f'{place}: each of tool_calls must have a "function"')
        rows.append((function.get("name"), function.get("arguments"), call.get("id")))
    return tool_calls(rows)
