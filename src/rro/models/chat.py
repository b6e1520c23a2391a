"""The chat format: the one place that turns messages into token ids, for policies and training.

A conversation is encoded piece by piece: the text that the template puts around answers, then each
answer. A sampled answer keeps exactly its sampled ids, so training sees what was sampled, and a
longer history always begins with the ids of the shorter one, thoughts included. That needs a
prefix-preserving template (the text of a longer conversation begins with that of the shorter one),
or one that changes no more than what it writes in front of earlier answers, such as an empty
thought; others are refused. Control tokens come from the template's own text alone
(rro.models.rendering).

Knows a Transformers tokenizer and its chat template, not models."""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from jinja2 import TemplateError

from rro.errors import UsageError
from rro.models.call_markup import read_calls
from rro.models.control_tokens import ControlTokens
from rro.models.rendering import (
    PROBE_TOOLS,
    CallSupport,
    Piece,
    Rendering,
    is_insertion,
    text_after_prompt,
)
from rro.tool_calls import tool_calls, tools_of
from rro.types import Message, Source, ToolCall

# Control tokens around thoughts, which are part of an answer.
_THOUGHT = re.compile("think|thought|reason", re.IGNORECASE)
_PROBE = ("Name one rule.", "Rule seven.", "What comes next?", "Rule eight.", "And then?")


@dataclass(frozen=True, slots=True)
class Encoded:
    """A conversation as token ids, and for each whether it is trained on: `mask` is True for the
    tokens of answers of a policy, an expert or a person, with the end-of-turn token if it was
    sampled."""

    ids: list[int]
    mask: list[bool]


@dataclass(frozen=True, slots=True)
class _State:
    """The encoding of the first messages of a conversation, their rendered text, its `pieces`, and
    its `tail`: the last control token and what follows it, as `ControlTokens.encode` takes it."""

    text: str
    pieces: tuple[Piece, ...]
    ids: tuple[int, ...]
    mask: tuple[bool, ...]
    tail: str


_EMPTY = _State("", (), (), (), "")


@dataclass(frozen=True, slots=True)
class _Closing:
    """What the template writes after an answer: the text, the ids up to the end-of-turn token
    (which the policy samples), and the remaining ids (which the template adds)."""

    text: str
    ids: tuple[int, ...]
    rest: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _CallForm:
    """How a template writes an answer with tool calls: a `sample` of it, the ids of the control
    tokens in that, and what it writes after it."""

    sample: str
    ids: frozenset[int]
    closing: _Closing


class ChatFormat:
    """Encodes messages by a tokenizer's chat template, and decodes answers.

    `end_ids` are the ids that end an answer, `end_of_turn` is the one that the template itself puts
    there; `vocabulary` is the number of ids. Raises UsageError for a tokenizer without a template,
    and for a template that is not prefix-preserving, drops or rewrites messages, or does not end an
    answer with a special token. Thread-safe."""

    def __init__(self, tokenizer: Any, cached: int = 2048, ends: Iterable[int] = ()) -> None:
        """`cached`: how many encoded histories to remember, as exploration encodes them again.
        `ends`: further ids that end an answer."""
        self.tokenizer, self.vocabulary = tokenizer, len(tokenizer)
        self._name = str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)
        if not getattr(tokenizer, "chat_template", None):
            raise UsageError(
                f"{self._name} has no chat template: name a Jinja file in model.chat_template"
            )
        self._states: OrderedDict[tuple[tuple[Message, ...], bool], _State] = OrderedDict()
        self._cached, self._lock = cached, threading.RLock()
        self._control = ControlTokens(tokenizer)
        self._template = Rendering(tokenizer, self._name, cached)
        self._leads: tuple[str, ...] = ()
        self._closing = self._learn_closing()
        self.end_of_turn = self._closing.ids[-1]
        end = self._control.name(self.end_of_turn)
        spaced = self._control.adds_space(self.end_of_turn)
        self._leads = tuple(end + letter for letter in "\n0a.") if spaced else (end,)
        template = self._template.template
        in_template = {id_ for text, id_ in self._control.texts.items() if text in template}
        rendered = self._control.ids.intersection(self._check_probe())
        thoughts = {id_ for text, id_ in self._control.texts.items() if _THOUGHT.search(text)}
        self._ends = (self._control.special | in_template | rendered | frozenset(ends)) - thoughts
        self._calls = self._learn_calls()
        self.end_ids = self._ends - (self._calls.ids if self._calls else frozenset())

    def encode(self, messages: Sequence[Message], add_generation_prompt: bool) -> Encoded:
        """The conversation as ids, with the beginning of the next answer if
        `add_generation_prompt`.

        encode(m[:k], True).ids is a prefix of encode(m[:k + 1], False).ids if m[k] is an answer.
        Raises UsageError if the template drops, rewrites or refuses one of the messages."""
        if not messages:
            raise UsageError("a conversation needs at least one message")
        if messages[0].tools:
            self._check_tools(messages[0].tools)
        with self._lock:
            state = self._state(tuple(messages), add_generation_prompt)
        return Encoded(list(state.ids), list(state.mask))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of sampled ids, without special tokens."""
        return str(
            self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )

    def cut(self, ids: Sequence[int], tools: bool = False) -> tuple[int, bool]:
        """How many of the sampled `ids` make the message, and whether it ends there: with the first
        end-of-turn token, or before another control token, which would stay in the history unseen
        by the environment. Those of tool calls belong to it where the conversation offers `tools`.
        """
        ends, kept = (self.end_ids if tools else self._ends), {self.end_of_turn}
        if tools and self._calls is not None:
            kept.add(self._calls.closing.ids[-1])
        for number, id_ in enumerate(ids):
            if id_ in ends:
                return number + (id_ in kept), True
        return len(ids), False

    def answer(
        self, messages: Sequence[Message], ids: tuple[int, ...], text: str | None = None
    ) -> Message:
        """The message that was sampled after `messages`: its ids, and what it says and calls.
        `text` is its text where a stop string ended it."""
        said = self.decode(ids) if text is None else text
        if not messages[0].tools:
            return Message("assistant", said, Source.POLICY, ids)
        written = text if text is not None else self._with_markup(ids)
        sample = self._calls.sample if self._calls is not None else ""
        content, found = read_calls(self.tokenizer, sample, written, tools_of(messages))
        calls = tool_calls(found)
        return Message("assistant", content if calls else said, Source.POLICY, ids, calls)

    def _with_markup(self, ids: Sequence[int]) -> str:
        """The text of sampled ids, with special tokens, up to the end."""
        inside = [id_ for id_ in ids if id_ not in self.end_ids]
        return str(
            self.tokenizer.decode(
                inside, skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )

    def _check_tools(self, tools: str) -> None:
        """Raises UsageError for schemas that the template cannot show safely."""
        if self._calls is None:
            raise UsageError(
                f"the chat template of {self._name} has no tool calls: name another template in "
                "model.chat_template, or an environment without tools"
            )
        forged = [text for text in self._control.texts if text in tools]
        if forged:
            raise UsageError(
                f"the tools' descriptions contain {forged[0]!r}, a control token of {self._name}"
            )

    def _state(self, messages: tuple[Message, ...], prompt: bool) -> _State:
        if not messages and not prompt:
            return _EMPTY
        key = (messages, prompt)
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = self._extend(messages, prompt)
            if len(self._states) > self._cached:
                self._states.popitem(last=False)
        self._states.move_to_end(key)
        return state

    def _extend(self, messages: tuple[Message, ...], prompt: bool) -> _State:
        """The state after `messages`, from that of the longest beginning that ends in an answer."""
        text = self._template.render(messages, prompt)
        answers = [i for i, message in enumerate(messages) if message.role == "assistant"]
        answered = bool(answers) and answers[-1] == len(messages) - 1 and not prompt
        end = len(messages) - 1 if answered else answers[-1] + 1 if answers else 0
        before = self._state(messages[:end], answered)
        if text.startswith(before.text):
            pieces = self._template.pieces(text, messages, prompt)
            new = self._new_text(pieces, len(before.text))
        else:
            pieces, new = self._after_other_text(text, before, messages, prompt)
        if answered:
            ids, mask = self._answer(messages[-1], before, new)
        else:
            ids = self._following(before.tail, new)
            mask = (False,) * len(ids)
        tail = self._control.tail(before.tail + new)
        return _State(text, tuple(pieces), before.ids + ids, before.mask + mask, tail)

    def _new_text(self, pieces: Sequence[Piece], start: int = 0) -> str:
        """The text of `pieces` from `start` on, with the control tokens of the template's own text
        protected."""
        new = list[str]()
        for piece in pieces:
            own, said = piece.own[start:], piece.said[max(0, start - len(piece.own)) :]
            new += [self._control.protect(own), said]
            start = max(0, start - len(piece.own) - len(piece.said))
        return "".join(new)

    def _after_other_text(
        self, text: str, before: _State, messages: Sequence[Message], prompt: bool
    ) -> tuple[list[Piece], str]:
        """The pieces of `text`, and what is new in it, for a template that writes something else in
        front of an earlier answer than in front of the last one, such as an empty thought. The
        history keeps what it has. Raises UsageError where anything else differs."""
        with suppress(UsageError):
            pieces = self._template.pieces(text, messages, prompt)
            number = max(i for i, message in enumerate(messages) if message.role == "assistant")
            places = [i for i, piece in enumerate(pieces) if piece.number == number]
            same = all(
                one.own == two.own
                or (messages[two.number].role == "assistant" and is_insertion(one.own, two.own))
                for one, two in zip(before.pieces[:-1], pieces, strict=False)
            )
            last = before.pieces[-1].own
            answered = number == len(messages) - 1 and not prompt
            if same and places and answered:
                opening = text_after_prompt(pieces[places[0]].own, last)
                if opening is not None:
                    rest = replace(pieces[places[0]], own=opening)
                    return pieces, self._new_text([rest, *pieces[places[0] + 1 :]])
            elif same and places and pieces[places[-1] + 1].own.startswith(last):
                return pieces, self._new_text(pieces[places[-1] + 1 :], len(last))
        raise UsageError(
            f"the chat template of {self._name} is not prefix-preserving (a later message "
            "changes the text of earlier ones), so an answer would be trained after another "
            "prompt than it was sampled after: name another template in model.chat_template"
        )

    def _answer(
        self, message: Message, before: _State, text: str
    ) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        closing = self._closing
        if message.tool_calls:
            if self._calls is None:
                raise UsageError(
                    f"the chat template of {self._name} has no tool calls: name another template "
                    "in model.chat_template"
                )
            closing = self._calls.closing
        if not text.endswith(closing.text):
            raise UsageError(
                f"the chat template of {self._name} ends answers in different ways: name another "
                "template in model.chat_template"
            )
        trained = message.source is not Source.ENVIRONMENT
        if message.token_ids and max(message.token_ids) >= self.vocabulary:
            raise UsageError(
                f"an answer has the token id {max(message.token_ids)}, but {self._name} has only "
                f"{self.vocabulary}: it was sampled by another model; leave its token_ids out"
            )
        if message.token_ids is None:
            ids = self._following(before.tail, text)
            own, added = ids[: len(ids) - len(closing.rest)], closing.rest
        elif message.token_ids[-1:] == closing.ids[-1:]:
            own, added = message.token_ids, closing.rest
        else:
            # cut at its length limit or at a stop string: no end-of-turn token was sampled
            own, added = message.token_ids, closing.ids + closing.rest
        return own + added, (trained,) * len(own) + (False,) * len(added)

    def _following(self, tail: str, text: str) -> tuple[int, ...]:
        """Ids of `text` after `tail`, as if both were encoded together. Where a token would cover
        letters of both, or is split there, `text` is encoded apart, without the space that some
        tokenizers put before what they encode."""
        if not text:
            return ()
        for lead in (tail, *self._leads):
            before, both = self._control.encode(lead), self._control.encode(lead + text)
            if both[: len(before)] == before:
                return tuple(both[len(before) :])
        return tuple(self._control.encode(text))

    def _learn_closing(self) -> _Closing:
        question, answer = Message("user", _PROBE[0]), Message("assistant", _PROBE[1])
        asked = self._template.pieces(self._try([question], True), [question], True)
        both = [question, answer]
        _, *after = self._template.pieces(self._try(both, False), both, False)
        opening = text_after_prompt(after[0].own, asked[-1].own) if len(after) == 2 else None
        if opening is None:
            raise UsageError(
                f"the chat template of {self._name} is not prefix-preserving (its answers do not "
                "follow its generation prompt): name another template in model.chat_template"
            )
        told = self._new_text(asked) + self._control.protect(opening) + answer.content
        return self._closing_of(told, after[1].own)

    def _closing_of(self, told: str, closing: str) -> _Closing:
        """What the template writes after an answer, `told` being the protected text before it."""
        closing = self._control.protect(closing)
        ids = self._following(self._control.tail(told), closing)
        end = next((number for number, id_ in enumerate(ids) if id_ in self._control.special), None)
        if end is None:
            raise UsageError(
                f"the chat template of {self._name} does not end an answer with a special token, "
                "so the policy could not end its turn: name another template in model.chat_template"
            )
        return _Closing(closing, tuple(ids[: end + 1]), tuple(ids[end + 1 :]))

    def _learn_calls(self) -> _CallForm | None:
        """How the template writes tool calls; None if it writes none."""
        question = Message("user", _PROBE[0], tools=PROBE_TOOLS)
        call = ToolCall("probe_tool", json.dumps({"argument": _PROBE[1]}), "probecall")
        answer = Message("assistant", "", tool_calls=(call,))
        before, after = (
            self._try([question], True),
            self._try([question, answer], False),
        )
        sample, value, closing = after.removeprefix(before).rpartition(_PROBE[1])
        if not before or not after.startswith(before) or "probe_tool" not in sample:
            return None
        end = self._end_of_calls(closing)
        if end < 0:
            return None
        own = self._control.protect(sample + value + closing[:end])
        ids = self._control.ids.intersection(self._control.encode(own))
        several = replace(answer, tool_calls=(call, replace(call, name="probe_other")))
        self._template.calls = CallSupport(
            content=_PROBE[3] in self._try([question, replace(answer, content=_PROBE[3])], False),
            parallel="probe_other" in self._try([question, several], False),
        )
        told = self._control.protect(before + sample + value + closing[:end])
        return _CallForm(sample, frozenset(ids), self._closing_of(told, closing[end:]))

    def _end_of_calls(self, closing: str) -> int:
        """Where the end-of-turn token is in what follows the last call: the usual one, or else the
        first special token; -1 if there is none."""
        special = [
            text for text, id_ in self._control.texts.items() if id_ in self._control.special
        ]
        usual = [text for text, id_ in self._control.texts.items() if id_ == self.end_of_turn]
        for texts in (usual, special):
            places = [place for text in texts if (place := closing.find(text)) >= 0]
            if places:
                return min(places)
        return -1

    def _try(self, messages: Sequence[Message], prompt: bool) -> str:
        try:
            return self._template.render(messages, prompt)
        except UsageError:
            return ""

    def _check_probe(self) -> list[int]:
        """The ids of two conversations. Refuses a template now that the first long conversation
        would be refused for. One that raises for a system message (as Gemma's does) is accepted for
        conversations without one."""
        chat = tuple(
            Message("assistant" if number % 2 else "user", content)
            for number, content in enumerate(_PROBE)
        )
        system = Message("system", "Answer in two words.")
        ids = self.encode(chat, True).ids
        try:
            return ids + self.encode((system, *chat), True).ids
        except UsageError as error:
            if not isinstance(error.__cause__, TemplateError):
                raise
        return ids
