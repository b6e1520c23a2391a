"""What a chat template renders, told apart: its own text, and what stands in the messages.

The template is rendered a second time with placeholders for all that messages say (contents, and
the texts in arguments of tool calls), which shows where its own text is. Knows templates and
messages, not token ids."""

from __future__ import annotations

import json
import re
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from jinja2 import Environment, TemplateError, meta

from rro.errors import UsageError
from rro.models.templates import SMOLLM2_TEMPLATE, TINY_TEMPLATE
from rro.tool_calls import is_name, tools_of
from rro.types import Message

# The date for templates that print one: prompts stay the same past midnight and on resuming.
_DATE = {
    "%d": "26",
    "%b": "Jul",
    "%B": "July",
    "%m": "07",
    "%Y": "2024",
    "%y": "24",
    "%A": "Friday",
    "%a": "Fri",
}
_FIXED_DATE = "{%- macro strftime_now(format) %}{{- format PARTS }}{%- endmacro %}".replace(
    "PARTS", " ".join(f"| replace('{code}', '{text}')" for code, text in _DATE.items())
)
# What the Python in a template may raise for messages that it was not made for.
_ERRORS = (TemplateError, TypeError, ValueError, AttributeError, LookupError)

# Tools that a template is tried with.
PROBE_TOOLS = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": name,
                "description": "Answers.",
                "parameters": {
                    "type": "object",
                    "properties": {"argument": {"type": "string", "description": "A text."}},
                    "required": ["argument"],
                },
            },
        }
        for name in ("probe_tool", "probe_other")
    ]
)

# Variables that rro and Transformers give a template themselves, and a tag that only they know.
_GIVEN: tuple[str, ...] = (
    "messages",
    "tools",
    "documents",
    "add_generation_prompt",
    "raise_exception",
)
_GIVEN += ("strftime_now", "tojson")
_GENERATION = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")

# Of a thought in the name of its placeholder.
_THOUGHT = "t"
Row = dict[str, Any]
STAND_IN = "x"
"""What the template is given for what was sampled: its token ids replace the text in any case, and
no template rewrites it."""


class ThoughtsDropped(UsageError):
    """A template does not write the thought of an answer that is to be trained."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of the template's own text, and what message `number` says behind it ("" and -1 at
    the end), or thinks (`thought`)."""

    own: str
    said: str
    number: int
    thought: bool = False


@dataclass(frozen=True, slots=True)
class CallSupport:
    """What a template can render of an assistant's message with tool calls: text beside them
    (`content`), and more than one (`parallel`)."""

    content: bool
    parallel: bool


@dataclass(frozen=True, slots=True)
class _Skeleton:
    """The template's own texts, and between them the names of the placeholders."""

    own: list[str]
    marks: list[str]


class Rendering:
    """Renders messages by the chat template of `tokenizer`, called `name` in errors. `calls` is
    what it can do with tool calls, None if nothing. Not thread-safe."""

    def __init__(self, tokenizer: Any, name: str, cached: int) -> None:
        template = str(tokenizer.get_chat_template())
        self.template = _FIXED_DATE + template if "strftime_now" in template else template
        self.name, self.calls, self.text_arguments = name, None, False
        self.plain = template in (TINY_TEMPLATE, SMOLLM2_TEMPLATE)
        self._tokenizer, self._cached = tokenizer, cached
        self._placeholder = f"rro{secrets.token_hex(8)}x"
        self._mark = re.compile(f"{self._placeholder}(\\d+(?:t|y\\d+)?)x")
        self._variables = _variables(tokenizer, template, name)
        self._skeletons: OrderedDict[tuple[object, ...], _Skeleton] = OrderedDict()

    calls: CallSupport | None
    text_arguments: bool
    """Whether the template takes a call's arguments as JSON text."""
    plain: bool
    """Whether the template is known to write a message's texts unchanged, and arguments as JSON."""

    def render(self, messages: Sequence[Message], prompt: bool) -> str:
        """The text of a conversation, with the beginning of an answer if `prompt`."""
        return self._text([self._row(message) for message in messages], messages, prompt)

    def _text(self, rows: Sequence[Row], messages: Sequence[Message], prompt: bool) -> str:
        tools = tools_of(messages)
        try:
            text = self._tokenizer.apply_chat_template(
                rows,
                chat_template=self.template,
                tokenize=False,
                add_generation_prompt=prompt,
                **({"tools": tools} if tools else {}),
                **self._variables,
            )
        except _ERRORS as error:
            roles = ", ".join(message.role for message in messages)
            raise UsageError(
                f"the chat template of {self.name} refuses the roles {roles}: {error}"
            ) from error
        return str(text)

    def _row(self, message: Message) -> Row:
        """A message as the template takes it. What a sampled one says is replaced, and its calls
        are reduced to what every template can render."""
        row = message.chat()
        for call in row.get("tool_calls", ()) if self.text_arguments else ():
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
        if message.token_ids is None:
            # Two names for it: that of most templates, and that of LFM2.5's and GPT-OSS's.
            return {**row, "thinking": message.thought} if message.thought else row
        row.pop("reasoning_content", None)
        if not message.tool_calls:
            return {**row, "content": STAND_IN}
        parallel = self.calls is not None and self.calls.parallel
        calls = row["tool_calls"][: None if parallel else 1]
        for call in calls:
            stand_in: Any = {"argument": STAND_IN}
            call["function"]["arguments"] = (
                json.dumps(stand_in) if self.text_arguments else stand_in
            )
        return {**row, "content": "", "tool_calls": calls}

    def pieces(self, text: str, messages: Sequence[Message], prompt: bool) -> list[Piece]:
        """The rendered `text` of `messages`, cut into the template's own text and what they say.
        Raises UsageError unless it is made of both, with each content once and in order."""
        rows = [self._row(message) for message in messages]
        marked, said = self._marked(rows)
        skeleton = self._skeleton(marked, messages, prompt)
        pieces, at = list[Piece](), 0
        for number, own in enumerate(skeleton.own):
            mark = skeleton.marks[number] if number < len(skeleton.marks) else ""
            following = skeleton.own[number + 1] if mark else ""
            words = _as_written(said.get(mark, ""), text, at + len(own), following)
            if not text.startswith(own, at) or words is None:
                raise self._rewritten(messages[_number(mark)])
            pieces.append(Piece(own, words, _number(mark), mark.endswith(_THOUGHT)))
            at += len(own) + len(words)
        if at != len(text):
            raise self._rewritten(messages[-1])
        return pieces

    def filled(self, messages: Sequence[Message], prompt: bool) -> list[Piece]:
        """What `pieces` returns for the rendered text, without rendering it: for a template that
        writes what messages say, whatever it is (`plain`)."""
        marked, said = self._marked([self._row(message) for message in messages])
        skeleton = self._skeleton(marked, messages, prompt)
        return [
            Piece(own, _in_place(mark, said), _number(mark), mark.endswith(_THOUGHT))
            for own, mark in zip(skeleton.own, (*skeleton.marks, ""), strict=True)
        ]

    def _skeleton(
        self, marked: Sequence[Row], messages: Sequence[Message], prompt: bool
    ) -> _Skeleton:
        key = json.dumps(marked), messages[0].tools if messages else "", prompt
        skeleton = self._skeletons.get(key)
        if skeleton is not None:
            self._skeletons.move_to_end(key)
            return skeleton
        parts = self._mark.split(self._text(marked, messages, prompt))
        skeleton = self._skeletons[key] = _Skeleton(parts[::2], parts[1::2])
        try:
            self._check(skeleton, json.dumps(marked), messages)
        except UsageError:
            del self._skeletons[key]
            raise
        if len(self._skeletons) > self._cached:
            self._skeletons.popitem(last=False)
        return skeleton

    def _check(self, skeleton: _Skeleton, marked: str, messages: Sequence[Message]) -> None:
        """Raises UsageError unless each content stands there once and in order, each argument and
        each tool's name at least once, and the last thought once."""
        given = self._mark.findall(marked)
        expected = [mark for mark in given if not mark.endswith(_THOUGHT)]
        contents = [mark for mark in expected if mark.isdigit()]
        found = [mark for mark in skeleton.marks if mark.isdigit()]
        last = f"{len(messages) - 1}{_THOUGHT}"
        if last in given and skeleton.marks.count(last) != 1:
            raise ThoughtsDropped(
                f"the chat template of {self.name} drops thoughts: name another template in "
                "model.chat_template, or leave the thoughts out"
            )
        for wanted, mark in zip(contents, [*found, *[""] * len(contents)], strict=False):
            if wanted != mark:
                raise self._rewritten(messages[int(wanted)])
        if len(found) > len(contents):
            raise self._rewritten(messages[-1])
        for missing in set(expected) - set(skeleton.marks):
            raise self._rewritten(messages[_number(missing)])
        own = "".join(skeleton.own)
        if not all(tool.get("function", tool)["name"] in own for tool in tools_of(messages)):
            raise UsageError(
                f"the chat template of {self.name} does not show tools: name another template in "
                "model.chat_template, or an environment without tools"
            )

    def _marked(self, rows: Sequence[Row]) -> tuple[list[Row], dict[str, str]]:
        """The rows with placeholders, and what each stands for. White space around a text stays, as
        templates may treat it."""
        said: dict[str, str] = {}

        def mark(text: str, name: str) -> str:
            core = text.strip()
            if not core:
                return text
            said[name] = core
            left, right = text[: text.find(core)], text[text.find(core) + len(core) :]
            return f"{left}{self._placeholder}{name}x{right}"

        def walk(value: Any, number: int) -> Any:
            if isinstance(value, str):
                return mark(value, f"{number}y{len(said)}")
            if isinstance(value, list):
                return [walk(item, number) for item in value]
            if isinstance(value, dict):
                return {
                    key if is_name(key) else mark(key, f"{number}y{len(said)}"): walk(item, number)
                    for key, item in value.items()
                }
            return value

        marked = []
        for number, row in enumerate(rows):
            row = {**row, "content": mark(row["content"], str(number))}
            if "reasoning_content" in row:
                thought = mark(row["reasoning_content"], f"{number}{_THOUGHT}")
                row |= {"reasoning_content": thought, "thinking": thought}
            if "tool_calls" in row:
                calls = [
                    {
                        **call,
                        "function": {
                            "name": call["function"]["name"],
                            "arguments": walk(call["function"]["arguments"], number),
                        },
                    }
                    for call in row["tool_calls"]
                ]
                row["tool_calls"] = calls
            marked.append(row)
        return marked, said

    def _rewritten(self, message: Message) -> UsageError:
        return UsageError(
            f"the chat template of {self.name} drops or rewrites the {message.role} message "
            f"{message.text[:40]!r}: name another template in model.chat_template"
        )


def _in_place(mark: str, said: dict[str, str]) -> str:
    """What stands in the place of a placeholder in a plain template: arguments are JSON there."""
    text = said.get(mark, "")
    return text if mark.isdigit() else json.dumps(text, ensure_ascii=False)[1:-1]


def _number(mark: str) -> int:
    """The message that a placeholder stands for; -1 for none."""
    digits = re.match(r"\d+", mark)
    return int(digits[0]) if digits else -1


def _variables(tokenizer: Any, template: str, name: str) -> dict[str, Any]:
    """The recipe's variables of the chat template. Raises UsageError for one that it does not
    take."""
    given = dict(tokenizer.init_kwargs.get("chat_template_kwargs") or {})
    taken = _taken(template) - {*_GIVEN, *tokenizer.special_tokens_map} if given else set()
    for key in given:
        if key not in taken:
            known = f"it has {', '.join(sorted(taken))}" if taken else "it has none"
            raise UsageError(
                f"model.chat_template_kwargs: the chat template of {name} has no variable {key!r} "
                f"to set: {known}"
            )
    return given


def _taken(template: str) -> set[str]:
    """The variables that a template takes from outside."""
    environment = Environment(extensions=["jinja2.ext.loopcontrols"])
    plain = _GENERATION.sub("", template)
    return meta.find_undeclared_variables(environment.parse(plain)) - set(environment.globals)


def _as_written(said: str, text: str, at: int, following: str) -> str | None:
    """What stands at `at` of a rendered text for `said`, before the template's own `following`: the
    text itself, or as a part of JSON or of a text in Python; None if neither."""
    for written in (said, *_escaped(said)):
        if text.startswith(written, at) and text.startswith(following, at + len(written)):
            return written
    return None


@lru_cache(maxsize=256)
def _escaped(text: str) -> tuple[str, ...]:
    if not text:
        return ()
    in_python = text.replace("\\", "\\\\").replace("'", "\\'")
    in_python = in_python.replace("\n", "\\n").replace("\r", "\\r")
    in_json = (json.dumps(text, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True))
    return (*in_json, in_python)


def text_after_prompt(own: str, prompt: str) -> str | None:
    """What `own`, the text in front of an answer, has after the generation `prompt`; "" where the
    prompt goes further, None where they differ."""
    if own.startswith(prompt):
        return own[len(prompt) :]
    return "" if prompt.startswith(own) else None


def same_history(
    before: Sequence[Piece], now: Sequence[Piece], messages: Sequence[Message]
) -> bool:
    """Whether the pieces of a longer conversation begin as those of a shorter one did, up to what
    stands in front of answers, such as a thought."""
    return all(
        one.own == two.own
        or (messages[two.number].role == "assistant" and _is_insertion(one.own, two.own))
        for one, two in zip(_folded(before), _folded(now), strict=False)
    )


def _folded(pieces: Sequence[Piece]) -> list[Piece]:
    """Pieces with each thought as a part of the text in front of the answer."""
    folded, before = list[Piece](), ""
    for piece in pieces:
        if piece.thought:
            before += piece.own + piece.said
        else:
            folded.append(replace(piece, own=before + piece.own))
            before = ""
    return folded


def _is_insertion(one: str, other: str) -> bool:
    """Whether the longer of two texts is the shorter one with something in between."""
    short, long = sorted((one, other), key=len)
    letters = enumerate(zip(short, long, strict=False))
    prefix = next((at for at, (a, b) in letters if a != b), len(short))
    return long.endswith(short[prefix:])
