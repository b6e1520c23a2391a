"""Conversations from the rows that a user gives: experts' episodes, and the sides of pairs.

Whatever a row says is carried out or refused, with its place and key; nothing is left out without a
word. Knows nothing of files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from rro.errors import DataError
from rro.jsonl import strict_json
from rro.tool_calls import is_name, tool_calls, tools_text
from rro.types import Message, Source, ToolCall

ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "tool": "tool",
}
FLAGS = ("loss", "train", "weight")
"""Keys of a message, or of a row, that say whether it is trained on."""
NOTES = frozenset(
    (
        *("id", "idx", "index", "task_id", "prompt_id", "game_file", "split", "dataset", "source"),
        *("policy", "reward", "score", "score_chosen", "score_rejected"),
        *("metadata", "meta", "info", "comment"),
    )
)
"""Keys of a row that say where it comes from and change nothing that is trained."""


def conversation(row: Any, place: str, source: Source) -> tuple[Message, ...]:
    """The messages of one row, {"messages": [{"role", "content"}]} or {"conversations": [{"from",
    "value"}]}; assistant messages are of `source`, or of what "sources" says. A "system" text comes
    first; the first message has the row's "tools". Messages with "loss" or "train" false or
    "weight" 0, and all of a row with such a key, are the environment's, so they carry no loss.
    Raises DataError that names `place` and key."""
    if not isinstance(row, Mapping):
        raise DataError(f"{place}: a row must be an object with 'messages' or 'conversations'")
    lists = [key for key in ("messages", "conversations") if _says(row, key)]
    if len(lists) > 1:
        raise DataError(f"{place}: both 'messages' and 'conversations' are given: keep one")
    if not lists:
        raise DataError(f"{place}: neither 'messages' nor 'conversations' in it")
    check_keys(row, {*lists, "system", "sources", "tools", *FLAGS}, place)
    found = messages(row[lists[0]], f"{place}: {lists[0]}", source, row.get("sources"))
    if _says(row, "system"):
        if found[0].role == "system":
            raise DataError(f"{place}: both 'system' and a system message are given: keep one")
        found = (Message("system", _text(row["system"], f"{place}: 'system'")), *found)
    found = with_tools(found, row, place)
    if _trained(row, place) is False:
        found = tuple(_without_loss(message) for message in found)
    return found


def with_tools(
    found: tuple[Message, ...], row: Mapping[str, Any], place: str
) -> tuple[Message, ...]:
    """The messages, the first one with the schemas of a row's "tools": a list, or its JSON."""
    if not _says(row, "tools"):
        return found
    tools = row["tools"]
    try:
        tools = strict_json(tools) if isinstance(tools, str) else tools
        if not isinstance(tools, list):
            raise ValueError("they must be a list of schemas")
        return replace(found[0], tools=tools_text(tools)), *found[1:]
    except ValueError as error:
        raise DataError(f"{place}: 'tools': {error}") from None


def messages(
    turns: Any, place: str, source: Source, sources: Sequence[str] | None = None
) -> tuple[Message, ...]:
    """The messages of a list. `sources`, which rro writes, run parallel to it; without them, a list
    that looks like a slip (a message twice, a late system message) is refused."""
    if not isinstance(turns, list) or not turns:
        raise DataError(f"{place}: must be a list of messages, and not an empty one")
    found = _linked(
        [
            _message(turn, f"{place}, message {number}", source)
            for number, turn in enumerate(turns, 1)
        ],
        place,
    )
    if sources is None:
        _check_order(found, place)
        return found
    known = [kind.value for kind in Source]
    fits = isinstance(sources, list) and len(sources) == len(found)
    if not fits or any(kind not in known for kind in sources):
        raise DataError(
            f"{place}: its sources must be a list of {', '.join(sorted(known))}, one a message"
        )
    for number, (message, kind) in enumerate(zip(found, sources, strict=True), 1):
        if message.role != "assistant" and kind != Source.ENVIRONMENT:
            raise DataError(f"{place}, message {number}: a {message.role}'s cannot be {kind}'s")
    return tuple(
        replace(message, source=Source(kind)) for message, kind in zip(found, sources, strict=True)
    )


def check_keys(row: Mapping[str, Any], known: Iterable[str], place: str) -> None:
    """Raises DataError for the first key of a row that is neither known nor a note nor empty."""
    for key in row:
        if _says(row, key) and key not in known and key not in NOTES:
            raise DataError(
                f"{place}: rro does not know what to do with {key!r}: remove it, or put it under "
                "'metadata' if it changes nothing"
            )


def _says(row: Mapping[str, Any], key: str) -> bool:
    """Whether a key has a value that can mean something; columns of a table are often empty."""
    return row.get(key) is not None and row[key] not in ("", [], {})


def _message(turn: Any, place: str, source: Source) -> Message:
    if not isinstance(turn, Mapping):
        raise DataError(f"{place}: must be an object with role and content (or from and value)")
    role = _only(turn, ("role", "from"), place)
    calls = _says(turn, "tool_calls") and ROLES.get(str(role)) == "assistant"
    content = "" if calls and not _says(turn, "content") else _only(turn, _CONTENT, place)
    own: tuple[str, ...] = ("tool_calls",) if calls else ()
    if ROLES.get(str(role)) == "assistant":
        own += _THOUGHTS
    elif role == "tool":
        own = ("name", "tool_call_id")
    for key in turn:
        if key not in ("role", "from", *_CONTENT, *FLAGS, *own) and _says(turn, key):
            raise DataError(f"{place}: rro cannot train {key!r}: remove it, or leave the row out")
    if not isinstance(role, str) or role not in ROLES:
        raise DataError(f"{place}: the role {role!r} is unknown: use one of {', '.join(ROLES)}")
    text, trained = _text(content, place), _trained(turn, place)
    if ROLES[role] != "assistant":
        if trained:
            raise DataError(f"{place}: loss is on assistant messages alone, not on a {role}'s")
        names = {key: _text(turn[key], place) for key in own if _says(turn, key)}
        return Message(ROLES[role], text, **names)  # type: ignore[arg-type]
    thoughts = [_text(turn[key], place) for key in _THOUGHTS if _says(turn, key)]
    said = Message("assistant", text, Source.ENVIRONMENT if trained is False else source)
    said = replace(said, thought=thoughts[0]) if thoughts else said
    return replace(said, tool_calls=_calls(turn["tool_calls"], place)) if calls else said


_CONTENT = ("content", "value")
_THOUGHTS = ("reasoning_content", "thinking")


def _calls(given: Any, place: str) -> tuple[ToolCall, ...]:
    """The tool calls of a message: objects with name and arguments, or with those in "function".
    What an expert calls must be a call."""
    found = []
    for call in given if isinstance(given, list) else [given]:
        function = call.get("function", call) if isinstance(call, Mapping) else None
        name = function.get("name") if isinstance(function, Mapping) else None
        if function is None or not is_name(name):
            raise DataError(
                f"{place}: 'tool_calls' must be a list of "
                '{"type": "function", "function": {"name": ..., "arguments": {...}}}'
            )
        found.append((name, function.get("arguments"), call.get("id")))
    calls = tool_calls(found)
    for made in calls:
        if made.values() is None:
            raise DataError(f"{place}: the arguments of {made.name} are not a JSON object")
    return calls


def _linked(found: Sequence[Message], place: str) -> tuple[Message, ...]:
    """The messages, each tool's result with the name and id of its call: that with its id, else the
    next one. Raises DataError for a result without a call."""
    linked, open_calls = list[Message](), list[ToolCall]()
    for number, message in enumerate(found, 1):
        if message.role != "tool":
            open_calls = list(message.tool_calls)
            linked.append(message)
            continue
        if not open_calls:
            raise DataError(f"{place}, message {number}: is the result of no tool call")
        same = [call for call in open_calls if call.id == message.tool_call_id]
        call = (same or open_calls)[0]
        open_calls.remove(call)
        linked.append(replace(message, name=call.name, tool_call_id=call.id))
    return tuple(linked)


def _only(turn: Mapping[str, Any], names: tuple[str, str], place: str) -> Any:
    given = [name for name in names if name in turn]
    if len(given) == 2 and turn[given[0]] != turn[given[1]]:
        given = [name for name in given if turn[name] is not None]
    if len(given) == 2 and turn[given[0]] != turn[given[1]]:
        raise DataError(f"{place}: both {names[0]!r} and {names[1]!r} are given: keep one")
    if not given:
        raise DataError(f"{place}: a turn needs role and content (or from and value)")
    return turn[given[0]]


def _text(content: Any, place: str) -> str:
    """A text, or the texts of a list of parts."""
    if isinstance(content, list) and content:
        parts = [_part(part, f"{place}, part {number}") for number, part in enumerate(content, 1)]
        content = "".join(parts)
    if not isinstance(content, str):
        kind = "null" if content is None else type(content).__name__
        raise DataError(f"{place}: its content is {kind}, and must be text")
    try:
        content.encode()
    except UnicodeEncodeError:
        raise DataError(f"{place}: its content has half a character (a lone surrogate)") from None
    return content


def _part(part: Any, place: str) -> Any:
    fits = isinstance(part, Mapping) and isinstance(part.get("text"), str)
    if not fits or part.get("type") != "text" or any(_says(part, k) for k in {*part} - _PART):
        raise DataError(f'{place}: must be {{"type": "text", "text": ...}} and nothing else')
    return part["text"]


_PART = {"type", "text"}


def _trained(row: Mapping[str, Any], place: str) -> bool | None:
    """What the flags of a message or a row say; None without any."""
    given = {key: row[key] for key in FLAGS if row.get(key) is not None}
    for key, value in given.items():
        if not isinstance(value, int | float) or value not in (0, 1):
            raise DataError(f"{place}: {key!r} is {value!r}, and rro knows false, true, 0 and 1")
    if len({bool(value) for value in given.values()}) > 1:
        raise DataError(f"{place}: {' and '.join(given)} contradict each other")
    return bool(next(iter(given.values()))) if given else None


def _without_loss(message: Message) -> Message:
    return replace(message, source=Source.ENVIRONMENT)


def _check_order(found: Sequence[Message], place: str) -> None:
    """Raises DataError where a message, or the whole list, stands twice, or a system message is not
    the first."""
    if any(message.role == "system" for message in found[1:]):
        raise DataError(f"{place}: a system message must be the first")
    chat = [(message.role, message.text, message.tool_call_id) for message in found]
    for number, (before, after) in enumerate(pairwise(chat), 2):
        if before == after:
            raise DataError(f"{place}, message {number}: is the one before it once more")
    for size in range(2, len(chat) // 2 + 1):
        if len(chat) % size == 0 and chat == chat[:size] * (len(chat) // size):
            raise DataError(f"{place}: the list of messages stands in it {len(chat) // size} times")
