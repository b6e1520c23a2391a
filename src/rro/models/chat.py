"""The chat format: the one place that turns messages into token ids, for policies and training.

A conversation is encoded piece by piece: the text that the template puts around answers, then each
answer. A sampled answer keeps exactly its sampled ids, so training sees what was sampled. There are
two rules for the answers of a history. Where it `keeps` them, a longer history begins with the ids
of the shorter one, thoughts included, and a conversation is one row of training. That needs a
prefix-preserving template (the text of a longer conversation begins with that of the shorter one),
or one that changes no more than what it writes in front of earlier answers, such as an empty
thought. Otherwise the template writes earlier answers anew, without their thoughts, and each answer
is a row of its own, after the prompt that it was sampled after (`steps`). Control tokens come from
the template's own text alone (rro.models.rendering).

Knows a Transformers tokenizer and its chat template, not models."""

from __future__ import annotations

import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jinja2 import TemplateError

from rro.errors import UsageError
from rro.models.call_markup import read_calls
from rro.models.endings import PROBE, CallForm, Closing, inside_answers, learn_calls, learn_closing
from rro.models.rendering import Piece, Rendering, ThoughtsDropped, same_history, text_after_prompt
from rro.models.text_encoder import TextEncoder
from rro.models.thoughts import ThoughtLimits, ThoughtReader, without_marks
from rro.tool_calls import tool_calls, tools_of
from rro.types import Message, SamplingParams, Source

log = logging.getLogger(__name__)

# Control tokens around thoughts, which are part of an answer.
_THOUGHT = re.compile("think|thought|reason", re.IGNORECASE)


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


class ChatFormat:
    """Encodes messages by a tokenizer's chat template, and decodes answers.

    `end_ids` are the ids that end an answer, `end_of_turn` is the one that the template itself puts
    there; `vocabulary` is the number of ids. `keeps`: whether a history holds earlier answers as
    they were sampled; the tokenizer's `init_kwargs["thoughts"]` decides (`model.thoughts`), by
    default the template.

    Raises UsageError for a tokenizer without a template, and for a template that drops or rewrites
    messages, does not end an answer with a special token, or cannot keep what it should.
    Thread-safe."""

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
        self._encoder = TextEncoder(tokenizer)
        self._control = self._encoder.control
        self._template = Rendering(tokenizer, self._name, cached)
        self._thoughts = ThoughtReader(self._template.template, self._control.texts, self._name)
        wanted = tokenizer.init_kwargs.get("thoughts", "auto")
        self.keeps = wanted != "drop"
        try:
            self._learn(frozenset(ends))
        except UsageError as error:
            if wanted != "auto":
                raise
            self.keeps = False
            self._states.clear()
            self._learn(frozenset(ends))
            log.info("each step is a row of its own, because %s", error)

    def _learn(self, ends: frozenset[int]) -> None:
        """Learn from the template how answers end. Raises UsageError as the class says."""
        self._closing = learn_closing(self._template, self._encoder, self.keeps)
        self.end_of_turn = self._closing.ids[-1]
        self._encoder.lead_with(self.end_of_turn)
        template, texts = self._template.template, self._control.texts
        in_template = {id_ for text, id_ in texts.items() if text in template}
        rendered = self._control.ids.intersection(self._check_probe())
        thoughts = {id_ for text, id_ in texts.items() if _THOUGHT.search(text)}
        thoughts |= self._thoughts.ids | inside_answers(self._template, self._encoder)
        self._ends = (self._control.special | in_template | rendered | ends) - thoughts
        self._ends |= {self.end_of_turn}
        self._calls = learn_calls(self._template, self._encoder, self.end_of_turn, self.keeps)
        self.end_ids = self._ends - (self._calls.ids if self._calls else frozenset())

    _calls: CallForm | None

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

    def steps(self, messages: Sequence[Message]) -> list[Encoded]:
        """A conversation as rows of training: one where a history keeps its answers, else one for
        each answer that is trained."""
        if self.keeps:
            return [self.encode(messages, False)]
        return [
            self.encode(messages[: number + 1], False)
            for number, message in enumerate(messages)
            if message.role == "assistant" and message.source is not Source.ENVIRONMENT
        ]

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """The text of sampled ids, without special tokens unless `special`."""
        return str(
            self.tokenizer.decode(
                ids, skip_special_tokens=not special, clean_up_tokenization_spaces=False
            )
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
        """The message that was sampled after `messages`: its ids, and what it thinks, says and
        calls. `text` is its text where a stop string ended it."""
        said = self.decode(ids) if text is None else text
        written = text if text is not None else self._with_markup(ids)
        thinking = self._thoughts.split(self._prompt(messages), written)
        if thinking is not None:
            said = written = thinking.said
        thought = "" if thinking is None else thinking.thought
        message = Message("assistant", said, Source.POLICY, ids, thought=thought)
        if not messages[0].tools:
            return message
        sample = self._calls.sample if self._calls is not None else ""
        content, found = read_calls(self.tokenizer, sample, written, tools_of(messages))
        calls = tool_calls(found)
        return replace(message, content=content if calls else said, tool_calls=calls)

    def _prompt(self, messages: Sequence[Message]) -> str:
        """The prompt of the next answer, if the model thinks; else ""."""
        if self._thoughts.marks is None:
            return ""
        with self._lock:
            return self._state(tuple(messages), True).text

    def thought(self, message: Message) -> tuple[int, bool]:
        """How many tokens of a sampled message are its thought, and whether it ends inside it."""
        if message.token_ids is None or not message.thought:
            return 0, False
        return self._thoughts.count(message.token_ids, self._with_markup)

    def limits(self, messages: Sequence[Message], params: SamplingParams) -> ThoughtLimits | None:
        """The limits on thoughts and answers of what is sampled after `messages`; None without
        any. Raises UsageError where no token ends a thought."""
        if params.max_thought_tokens is None and params.max_answer_tokens is None:
            return None
        return self._thoughts.limits(self._prompt(messages), params)

    def _with_markup(self, ids: Sequence[int]) -> str:
        """The text of sampled ids, with special tokens, up to the end."""
        return self.decode([id_ for id_ in ids if id_ not in self.end_ids], special=True)

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
            extend = self._extend if self.keeps else self._anew
            state = self._states[key] = extend(messages, prompt)
            if len(self._states) > self._cached:
                self._states.popitem(last=False)
        self._states.move_to_end(key)
        return state

    def _extend(self, messages: tuple[Message, ...], prompt: bool) -> _State:
        """The state after `messages`, from that of the longest beginning that ends in an answer."""
        pieces = self._template.filled(messages, prompt) if self._template.plain else []
        text = "".join(piece.own + piece.said for piece in pieces)
        text = text or self._template.render(messages, prompt)
        answers = [i for i, message in enumerate(messages) if message.role == "assistant"]
        answered = bool(answers) and answers[-1] == len(messages) - 1 and not prompt
        end = len(messages) - 1 if answered else answers[-1] + 1 if answers else 0
        before = self._state(messages[:end], answered)
        if text.startswith(before.text):
            pieces = pieces or self._template.pieces(text, messages, prompt)
            new = self._encoder.new_text(pieces, len(before.text))
        else:
            pieces, new = self._after_other_text(text, before, messages, prompt)
        if answered:
            ids, mask = self._answer(messages[-1], before, new)
        else:
            ids = self._encoder.following(before.tail, new)
            mask = (False,) * len(ids)
        tail = self._control.tail(before.tail + new)
        return _State(text, tuple(pieces), before.ids + ids, before.mask + mask, tail)

    def _anew(self, messages: tuple[Message, ...], prompt: bool) -> _State:
        """The state after `messages` where the template writes earlier answers anew."""
        answered = messages[-1].role == "assistant" and not prompt
        history = [self._rewritten(message) for message in messages[: len(messages) - answered]]
        text = self._template.render(history, prompt or answered) if history else ""
        pieces = self._template.pieces(text, history, prompt or answered) if history else []
        new = self._encoder.new_text(pieces)
        ids = tuple(self._control.encode(new)) if new else ()
        before = _State(text, tuple(pieces), ids, (False,) * len(ids), self._control.tail(new))
        if not answered:
            return before
        own = self._own_text([*history, messages[-1]], before)
        ids, mask = self._answer(messages[-1], before, own)
        return replace(before, ids=before.ids + ids, mask=before.mask + mask)

    def _rewritten(self, message: Message) -> Message:
        """An earlier answer as the template is to write it: without what it cannot write."""
        if message.role != "assistant":
            return message
        calls, support = message.tool_calls, self._template.calls
        if calls and support is not None and not support.parallel:
            calls = calls[:1]
        said = "" if calls and support is not None and not support.content else message.content
        marks = self._thoughts.marks
        said = without_marks(said, marks) if marks else said
        return replace(message, content=said, tool_calls=calls, thought="", token_ids=None)

    def _own_text(self, messages: Sequence[Message], before: _State) -> str:
        """The text of the last answer, behind the state before it. Where it was sampled, its ids
        replace what stands in front of its end."""
        last = messages[-1]
        closing = self._closing_after(last).text
        if last.token_ids is not None:
            return closing
        text = self._template.render(messages, False)
        try:
            pieces = self._template.pieces(text, messages, False)
        except ThoughtsDropped:
            if last.source is not Source.POLICY:
                raise
            # what a server thought apart, by a template that another program has
            return self._own_text([*messages[:-1], replace(last, thought="")], before)
        # an answer that says nothing, as a call without arguments, is in the last piece
        places = [i for i, piece in enumerate(pieces) if piece.number == len(messages) - 1]
        place = places[0] if places else len(pieces) - 1
        opening = text_after_prompt(pieces[place].own, before.pieces[-1].own)
        if opening is None:
            raise UsageError(
                f"the chat template of {self._name} begins a thought in its generation prompt, but "
                "an answer to train on has none: give it a thought (reasoning_content), or switch "
                "thoughts off in model.chat_template_kwargs"
            )
        own = [replace(pieces[place], own=opening), *pieces[place + 1 :]]
        written = self._encoder.new_text(own)
        return written if written.endswith(closing) else written + closing

    def _after_other_text(
        self, text: str, before: _State, messages: Sequence[Message], prompt: bool
    ) -> tuple[list[Piece], str]:
        """The pieces of `text`, and what is new in it, for a template that writes something else in
        front of an earlier answer than in front of the last one, such as an empty thought. The
        history keeps what it has. Raises UsageError where anything else differs."""
        try:
            pieces = self._template.pieces(text, messages, prompt)
        except ThoughtsDropped:
            raise
        except UsageError:
            pieces = []
        if pieces:
            number = max(i for i, message in enumerate(messages) if message.role == "assistant")
            places = [i for i, piece in enumerate(pieces) if piece.number == number]
            same = same_history(before.pieces[:-1], pieces, messages)
            last = before.pieces[-1].own
            answered = number == len(messages) - 1 and not prompt
            if same and places and answered:
                opening = text_after_prompt(pieces[places[0]].own, last)
                if opening is not None:
                    rest = replace(pieces[places[0]], own=opening)
                    return pieces, self._encoder.new_text([rest, *pieces[places[0] + 1 :]])
            elif same and places and pieces[places[-1] + 1].own.startswith(last):
                return pieces, self._encoder.new_text(pieces[places[-1] + 1 :], len(last))
        raise UsageError(
            f"the chat template of {self._name} is not prefix-preserving (a later message "
            "changes the text of earlier ones), so an answer would be trained after another "
            'prompt than it was sampled after: set model.thoughts = "drop", or name another '
            "template in model.chat_template"
        )

    def _answer(
        self, message: Message, before: _State, text: str
    ) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        closing = self._closing_after(message)
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
            ids = self._encoder.following(before.tail, text)
            own, added = ids[: len(ids) - len(closing.rest)], closing.rest
        elif message.token_ids[-1:] == closing.ids[-1:]:
            own, added = message.token_ids, closing.rest
        else:
            # cut at its length limit or at a stop string: no end-of-turn token was sampled
            own, added = message.token_ids, closing.ids + closing.rest
        return own + added, (trained,) * len(own) + (False,) * len(added)

    def _closing_after(self, message: Message) -> Closing:
        """What ends this answer. Raises UsageError for calls that the template cannot write."""
        if not message.tool_calls:
            return self._closing
        if self._calls is None:
            raise UsageError(
                f"the chat template of {self._name} has no tool calls: name another template in "
                "model.chat_template"
            )
        return self._calls.closing

    def _check_probe(self) -> list[int]:
        """The ids of two conversations. Refuses a template now that the first long conversation
        would be refused for. One that raises for a system message (as Gemma's does) is accepted for
        conversations without one."""
        chat = tuple(
            Message("assistant" if number % 2 else "user", content)
            for number, content in enumerate(PROBE)
        )
        system = Message("system", "Answer in two words.")
        ids = self.encode(chat, True).ids
        try:
            return ids + self.encode((system, *chat), True).ids
        except UsageError as error:
            if not isinstance(error.__cause__, TemplateError):
                raise
        return ids
