"""Tool calls in the text that a model writes: one reader for each family of markup.

A call is read leniently where its meaning is plain (white space, a missing end), and what cannot be
read becomes a call without a name, which no environment carries out. Every reader is linear in the
text. Knows text, neither tokens nor templates."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

Call = tuple[Any, Any, Any]
"""Name, arguments (JSON text or its value) and id, as they were read."""
Reader = Callable[[str, Sequence[Mapping[str, Any]]], tuple[str, list[Call]]]
"""From text and schemas of the tools to the text beside the calls, and the calls."""

_DECODER = json.JSONDecoder()
_BREAK = re.compile(r"[\s;,]*")
_FUNCTION = re.compile(r"<function=([^>\n]*)>")
_PARAMETER = re.compile(r"<parameter=([^>\n]*)>")
_NAMED = re.compile(r"\s*([A-Za-z0-9_.-]+)\s*(?:\[CALL_ID\]([A-Za-z0-9]*))?(?:\[ARGS\])?\s*(?=\{)")


def read_hermes(text: str, tools: Sequence[Mapping[str, Any]]) -> tuple[str, list[Call]]:
    """`<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, of Hermes and Qwen."""
    return _blocks(text, lambda block: [_object(_value(block)[0], block)])


def read_qwen_xml(text: str, tools: Sequence[Mapping[str, Any]]) -> tuple[str, list[Call]]:
    """`<tool_call><function=NAME><parameter=NAME>value</parameter></function></tool_call>`, of
    Qwen3-Coder and Qwen3.5."""
    return _blocks(text, lambda block: [_xml_call(block, tools)])


def read_mistral(text: str, tools: Sequence[Mapping[str, Any]]) -> tuple[str, list[Call]]:
    """`[TOOL_CALLS]` and a JSON list of calls, or `name[ARGS]{...}`."""
    content, mark, rest = text.partition("[TOOL_CALLS]")
    calls: list[Call] = []
    for part in rest.split("[TOOL_CALLS]") if mark else ():
        named = _NAMED.match(part)
        value, end = _value(part[named.end() :] if named else part)
        if named and end:
            calls.append((named[1], value, named[2]))
        elif isinstance(value, list) and value:
            calls += [_object(each, part) for each in value]
        else:
            calls.append(_object(value, part))
    return content.strip(), calls


def read_llama(text: str, tools: Sequence[Mapping[str, Any]]) -> tuple[str, list[Call]]:
    """`{"name": ..., "parameters": {...}}`, of Llama 3; several are separated by `;`."""
    text = text.replace("<|python_tag|>", "")
    start = text.find('{"')
    content, calls = (text, []) if start < 0 else (text[:start], list[Call]())
    while 0 <= start < len(text):
        value, length = _value(text[start:])
        if not length or not isinstance(value, dict):
            calls.append((None, text[start:], None))
            break
        calls.append(_object(value, text[start : start + length]))
        end = start + length
        broken = _BREAK.match(text, end)
        start = broken.end() if broken else end
    return content.strip(), calls


def _blocks(text: str, read: Callable[[str], list[Call]]) -> tuple[str, list[Call]]:
    """The blocks between `<tool_call>` and its end, or the next block's start."""
    content, *blocks = text.split("<tool_call>")
    calls, beside = list[Call](), [content]
    for block in blocks:
        inside, _, after = block.rpartition("</tool_call>")
        calls += read(inside or after)
        beside += [after] if inside else []
    return "".join(beside).strip(), calls


def _value(text: str) -> tuple[Any, int]:
    """The JSON value that a text begins with, and where it ends; 0 where it is none."""
    start = len(text) - len(text.lstrip())
    try:
        return _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None, 0


def _object(value: Any, text: str) -> Call:
    """The call that a JSON object describes; without a name if it describes none."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None, text, None
    arguments = value.get("arguments", value.get("parameters"))
    return value["name"], arguments, value.get("id")


def _xml_call(block: str, tools: Sequence[Mapping[str, Any]]) -> Call:
    named = _FUNCTION.search(block)
    if named is None:
        return None, block, None
    name, arguments = named[1].strip(), dict[str, Any]()
    kinds = _kinds(tools, name)
    starts = list(_PARAMETER.finditer(block, named.end()))
    ends = [*(start.start() for start in starts[1:]), len(block)]
    for start, end in zip(starts, ends, strict=False):
        inside, closed, rest = block[start.end() : end].rpartition("</parameter>")
        value = inside if closed else rest
        value = value.removeprefix("\n").removesuffix("\n")
        arguments[start[1].strip()] = _typed(value, kinds.get(start[1].strip()))
    return name, arguments, None


def _kinds(tools: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    """The types of a tool's arguments by name."""
    functions = [tool.get("function", tool) for tool in tools]
    found: Mapping[str, Any] = next((tool for tool in functions if tool.get("name") == name), {})
    properties = found.get("parameters", {}).get("properties", {})
    return {key: value.get("type") for key, value in properties.items()}


def _typed(text: str, kind: Any) -> Any:
    """A text as its schema's type, or the text."""
    if kind in (None, "string"):
        return text
    value, end = _value(text)
    return value if end and not text[end:].strip() else text


READERS: tuple[tuple[str, Reader], ...] = (
    ("<function=", read_qwen_xml),
    ("<tool_call>", read_hermes),
    ("[TOOL_CALLS]", read_mistral),
    ('"parameters":', read_llama),
)
"""A text that a template writes for a call, and the reader of its family; the first that fits."""


def read_calls(
    tokenizer: Any, sample: str, written: str, tools: Sequence[dict[str, Any]]
) -> tuple[str, list[Call]]:
    """The text beside the calls in what a model wrote, and the calls: by the tokenizer's own
    `response_template` where it has one, else by the reader of the family that `sample`, a call as
    the template writes it, is of. Without either, all is text."""
    if getattr(tokenizer, "response_template", None):
        # It raises for some of the texts that a model may write.
        with suppress(Exception):
            parsed = tokenizer.parse_response(written, prefix="", tools=list(tools))
            functions = [call.get("function", call) for call in parsed.get("tool_calls") or ()]
            calls = [(each["name"], each["arguments"], each.get("id")) for each in functions]
            return str(parsed.get("content") or "").strip(), calls
    reader = next((reader for mark, reader in READERS if mark in sample), None)
    return reader(written, tools) if reader is not None else (written, [])
