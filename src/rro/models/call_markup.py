"""Tool calls in the text that a model writes: one reader for each family of markup.

A call is read leniently where its meaning is plain (white space, a missing end), and what cannot be
read becomes a call without a name, which no environment carries out. Every reader is linear in the
text. Knows text, neither tokens nor templates."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, ClassVar

Call = tuple[Any, Any, Any]
"""Name, arguments (JSON text or its value) and id, as they were read."""
Reader = Callable[[str, Sequence[Mapping[str, Any]]], tuple[str, list[Call]]]
"""From text and schemas of the tools to the text beside the calls, and the calls."""

_DECODER = json.JSONDecoder()
_BREAK = re.compile(r"[\s;,]*")
# None of these goes back over what it has read, so that a long text costs time in proportion.
_FUNCTION = re.compile(r"<function=([^<>\n]*+)>")
_PARAMETER = re.compile(r"<parameter=([^<>\n]*+)>")
_ARGUMENT = re.compile(
    r"<arg_key>((?:(?!</?arg_key>).)*+)</arg_key>\s*+<arg_value>(.*?)(?:</arg_value>|\Z)", re.DOTALL
)
_BARE, _MOST_BARE = re.compile(r'\{\s*"name"\s*:\s*"'), 16
_GIVEN = ("arguments", "parameters")
_FENCE = re.compile(r"```\w*\s*\Z")
_LOOSE = re.compile(r"\s*+\[?\s*+([\w.-]++)\((.*)\)\s*+\]?\s*+", re.DOTALL)
_KEYWORD = re.compile(r"(?:^|,)\s*+(\w++)=")
_KEY = re.compile(r"([{,]\s*+)([\w.-]++)\s*+:")
_TO = re.compile(r"to=functions\.([\w.-]++)(?:(?!to=functions\.)[^{])*?<\|message\|>")
_NAMED = re.compile(
    r"\s*+([A-Za-z0-9_.-]++)\s*+(?:\[CALL_ID\]([A-Za-z0-9]*+))?(?:\[ARGS\])?\s*+(?=\{)"
)


def read_hermes(text: str, tools: Sequence[Mapping[str, Any]]) -> tuple[str, list[Call]]:
    """`<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, of Hermes and Qwen; or, without
    any mark, `read_bare`."""
    if "<tool_call>" in text:
        return _blocks(text, lambda block: [_object(_value(block)[0], block)])
    return read_bare(text, tools)


def read_bare(text: str, tools: Sequence[Mapping[str, Any]]) -> tuple[str, list[Call]]:
    """JSON that calls one of the tools, in a fence or not, as small models write it."""
    called = [tool.get("function", tool).get("name") for tool in tools]
    calls, end, content = list[Call](), 0, text
    for start in islice(_BARE.finditer(text), _MOST_BARE):
        value, length = _value(text[start.start() :]) if start.start() >= end else (None, 0)
        if (
            length
            and isinstance(value, dict)
            and value.get("name") in called
            and {*_GIVEN} & {*value}
        ):
            content = content if calls else text[: start.start()]
            calls.append(_object(value, text))
            end = start.start() + length
    return _FENCE.sub("", content).strip() if calls else text, calls


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
            calls += [_object(each, repr(each)) for each in value]
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


def read_glm(text: str, tools: Sequence[Mapping[str, Any]]) -> tuple[str, list[Call]]:
    """`<tool_call>NAME<arg_key>name</arg_key><arg_value>value</arg_value></tool_call>`, of GLM."""

    def read(block: str) -> list[Call]:
        name = block.partition("<arg_key>")[0].strip()
        kinds = _kinds(tools, name)
        arguments = {
            key.strip(): _typed(value, kinds.get(key.strip()))
            for key, value in _ARGUMENT.findall(block)
        }
        return [(name, arguments, None)]

    return _blocks(text, read)


def read_gemma(text: str, tools: Sequence[Mapping[str, Any]]) -> tuple[str, list[Call]]:
    """`<|tool_call>call:NAME{key:<|"|>text<|"|>}<tool_call|>`, of Gemma 4."""

    def read(block: str) -> list[Call]:
        head, brace, rest = block.partition("{")
        parts = (brace + rest).split('<|"|>')
        parts[::2] = [_KEY.sub(r'\1"\2":', part) for part in parts[::2]]
        parts[1::2] = [json.dumps(part) for part in parts[1::2]]
        value, end = _value("".join(parts))
        name = head.removeprefix("call:").strip()
        return [(name, value, None) if end else (None, block, None)]

    return _blocks(text, read, "<|tool_call>", "<tool_call|>")


def read_lfm(text: str, tools: Sequence[Mapping[str, Any]]) -> tuple[str, list[Call]]:
    """`<|tool_call_start|>[NAME(key='text')]<|tool_call_end|>`, calls as Python writes them, of
    LFM2."""
    return _blocks(text, _python_calls, "<|tool_call_start|>", "<|tool_call_end|>")


def _python_calls(block: str) -> list[Call]:
    try:
        tree = ast.parse(block.strip(), mode="eval").body
        given = tree.elts if isinstance(tree, ast.List) else [tree]
        return [
            (ast.unparse(call.func), {str(k.arg): _literal(k.value) for k in call.keywords}, None)
            for call in given
            if isinstance(call, ast.Call)
        ] or [(None, block, None)]
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError):
        return [_loose_call(block)]


def _loose_call(block: str) -> Call:
    """A call whose texts have quotes inside, as LFM2.5's template writes them."""
    named = _LOOSE.fullmatch(block)
    if named is None:
        return None, block, None
    keys = list(_KEYWORD.finditer(named[2]))
    if not keys:
        return None, block, None
    ends = [*(key.start() for key in keys[1:]), len(named[2])]
    arguments = {}
    for key, end in zip(keys, ends, strict=True):
        value = named[2][key.end() : end].strip()
        quoted = len(value) > 1 and value[0] == value[-1] == "'"
        arguments[key[1]] = value[1:-1] if quoted else _typed(value, "")
    return named[1], arguments, None


class _JsonNames(ast.NodeTransformer):
    """JSON's names of values, as Python's."""

    values: ClassVar = {"true": True, "false": False, "null": None}

    def visit_Name(self, node: ast.Name) -> ast.expr:
        known = node.id in self.values
        return ast.Constant(self.values[node.id]) if known else node


def _literal(node: ast.expr) -> Any:
    """A value in Python or JSON."""
    value = ast.literal_eval(_JsonNames().visit(node))
    json.dumps(value, allow_nan=False)
    return value


def read_gpt_oss(text: str, tools: Sequence[Mapping[str, Any]]) -> tuple[str, list[Call]]:
    """`to=functions.NAME<|channel|>commentary json<|message|>{...}<|call|>`, of GPT-OSS."""
    found = list(_TO.finditer(text))
    if not found:
        return text, []
    ends = [*(mark.start() for mark in found[1:]), len(text)]
    calls = list[Call]()
    for mark, end in zip(found, ends, strict=True):
        value, read = _value(text[mark.end() : end])
        calls.append((mark[1], value, None) if read else (None, text[mark.end() : end], None))
    beside = text[: found[0].start()].rstrip().removesuffix("<|channel|>commentary")
    return beside.removesuffix("<|start|>assistant").strip(), calls


def read_deepseek(text: str, tools: Sequence[Mapping[str, Any]]) -> tuple[str, list[Call]]:
    """`<｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME` and a block of JSON, of DeepSeek V3 and R1;
    without the block, of V3.1."""
    content, begin, rest = text.partition("<｜tool▁calls▁begin｜>")

    def read(block: str) -> list[Call]:
        kind, _, said = block.partition("<｜tool▁sep｜>")
        named = kind if kind != "function" else said.partition("\n")[0]
        value, end = _value(said[max(0, said.find("{")) :])
        return [(named.strip(), value, None) if end else (None, block, None)]

    calls = _blocks(rest, read, "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>")[1]
    return content.strip(), calls if begin else []


def _blocks(
    text: str,
    read: Callable[[str], list[Call]],
    start: str = "<tool_call>",
    end: str = "</tool_call>",
) -> tuple[str, list[Call]]:
    """The blocks between `start` and `end`, or the next block's start."""
    content, *blocks = text.split(start)
    calls, beside = list[Call](), [content]
    for block in blocks:
        inside, _, after = block.rpartition(end)
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
    ("<arg_key>", read_glm),
    ("<|tool_call>call:", read_gemma),
    ("<|tool_call_start|>", read_lfm),
    ("to=functions.", read_gpt_oss),
    ("<｜tool▁sep｜>", read_deepseek),
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
