"""The chat format: the one place that turns messages into token ids, for policies and training.

A conversation is encoded piece by piece: the text that the template puts around answers, then each
answer. A sampled answer keeps exactly its sampled ids, so training sees what was sampled, and a
longer history always begins with the ids of the shorter one. That needs a prefix-preserving
template (the text of a longer conversation begins with that of the shorter one); others are
refused. The template is rendered a second time with placeholders, which says what is its own text
and what is a message's: control tokens come from its own text alone.

Knows a Transformers tokenizer and its chat template, not models."""

from __future__ import annotations

import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from rro.errors import UsageError
from rro.models.control_tokens import ControlTokens
from rro.types import Message, Source

# For models from scratch: two special tokens a message. ChatML needs a role name and two newlines,
# too.
TINY_TEMPLATE = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{{- '<|' + message['role'] + '|>' }}"
    "{%- if message['role'] == 'assistant' %}"
    "{%- generation %}{{- message['content'] + eos_token }}{%- endgeneration %}"
    "{%- else %}{{- message['content'] + eos_token }}{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}"
)

# Renders the same as SmolLM2-Instruct's own template, with its default system message, and marks
# the answers.
SMOLLM2_TEMPLATE = (
    "{%- if messages and messages[0]['role'] != 'system' %}"
    "{{- '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, "
    "trained by Hugging Face<|im_end|>\n' }}"
    "{%- endif %}"
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\n' }}"
    "{%- if message['role'] == 'assistant' %}"
    "{%- generation %}{{- message['content'] + '<|im_end|>' }}{%- endgeneration %}"
    "{%- else %}{{- message['content'] + '<|im_end|>' }}{%- endif %}"
    "{{- '\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)

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
    """The encoding of the first messages of a conversation, their rendered text, and its `tail`:
    the last control token and what follows it, as `ControlTokens.encode` takes it."""

    text: str
    ids: tuple[int, ...]
    mask: tuple[bool, ...]
    tail: str


_EMPTY = _State("", (), (), "")
# a content as a template may treat it: its role, the white space around it, and whether it is blank
_Shape = tuple[str, str, str, bool]


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
        template = str(tokenizer.get_chat_template())
        self._template = _FIXED_DATE + template if "strftime_now" in template else template
        self._states: OrderedDict[tuple[tuple[Message, ...], bool], _State] = OrderedDict()
        self._skeletons: OrderedDict[tuple[tuple[_Shape, ...], bool], list[str]] = OrderedDict()
        self._cached, self._lock = cached, threading.RLock()
        self._control = ControlTokens(tokenizer)
        self._placeholder = f"rro{secrets.token_hex(8)}x"
        # What the template writes after an answer: the text, the ids up to the end-of-turn token
        # (which the policy samples), and the remaining ids (which the template adds).
        self._leads: tuple[str, ...] = ()
        self._closing_text, self._closing, self._rest = self._learn_closing()
        self.end_of_turn = self._closing[-1]
        end = self._control.name(self.end_of_turn)
        spaced = self._control.adds_space(self.end_of_turn)
        self._leads = tuple(end + letter for letter in "\n0a.") if spaced else (end,)
        in_template = {id_ for text, id_ in self._control.texts.items() if text in template}
        rendered = self._control.ids.intersection(self._check_probe())
        self.end_ids = self._control.special | in_template | rendered | frozenset(ends)

    def encode(self, messages: Sequence[Message], add_generation_prompt: bool) -> Encoded:
        """The conversation as ids, with the beginning of the next answer if
        `add_generation_prompt`.

        encode(m[:k], True).ids is a prefix of encode(m[:k + 1], False).ids if m[k] is an answer.
        Raises UsageError if the template drops, rewrites or refuses one of the messages."""
        if not messages:
            raise UsageError("a conversation needs at least one message")
        with self._lock:
            state = self._state(tuple(messages), add_generation_prompt)
        return Encoded(list(state.ids), list(state.mask))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of sampled ids, without special tokens."""
        return str(
            self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )

    def cut(self, ids: Sequence[int]) -> tuple[int, bool]:
        """How many of the sampled `ids` make the message, and whether it ends there: with the first
        end-of-turn token, or before another control token, which would stay in the history unseen
        by the environment."""
        for number, id_ in enumerate(ids):
            if id_ in self.end_ids:
                return number + (id_ == self.end_of_turn), True
        return len(ids), False

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
        text = self._render(messages, prompt)
        answers = [i for i, message in enumerate(messages) if message.role == "assistant"]
        answered = bool(answers) and answers[-1] == len(messages) - 1 and not prompt
        end = len(messages) - 1 if answered else answers[-1] + 1 if answers else 0
        before = self._state(messages[:end], answered)
        if not text.startswith(before.text):
            raise UsageError(
                f"the chat template of {self._name} is not prefix-preserving (a later message "
                "changes the text of earlier ones), so an answer would be trained after another "
                "prompt than it was sampled after: name another template in model.chat_template"
            )
        new = self._new_text(text, len(before.text), messages, prompt)
        if answered:
            ids, mask = self._answer(messages[-1], before, new)
        else:
            ids = self._following(before.tail, new)
            mask = (False,) * len(ids)
        tail = self._control.tail(before.tail + new)
        return _State(text, before.ids + ids, before.mask + mask, tail)

    def _new_text(self, text: str, start: int, messages: Sequence[Message], prompt: bool) -> str:
        """The rendered `text` from `start` on, with the control tokens of the template's own text
        protected. Raises UsageError unless it is the template's text around the contents of
        `messages`, in order."""
        pieces, at, new = self._skeleton(messages, prompt), 0, []
        contents = [content for message in messages if (content := message.content.strip())]
        for number, own in enumerate(pieces):
            content = contents[number] if number < len(contents) else ""
            if not text.startswith(own, at) or not text.startswith(content, at + len(own)):
                spoken = [message for message in messages if message.content.strip()]
                raise self._rewritten([*spoken, messages[-1]][min(number, len(spoken))])
            middle, end = at + len(own), at + len(own) + len(content)
            new.append(self._control.protect(text[max(at, start) : max(middle, start)]))
            new.append(text[max(middle, start) : max(end, start)])
            at = end
        if at != len(text):
            raise self._rewritten(messages[-1])
        return "".join(new)

    def _skeleton(self, messages: Sequence[Message], prompt: bool) -> list[str]:
        """The template's own text before, between and after contents that are not blank: what it
        renders around placeholders for them, which have the white space that they have."""
        shapes = tuple(map(_shape, messages))
        pieces = self._skeletons.get((shapes, prompt))
        if pieces is not None:
            self._skeletons.move_to_end((shapes, prompt))
            return pieces
        chat = [
            {"role": role, "content": f"{left}{'' if blank else self._mark(number)}{right}"}
            for number, (role, left, right, blank) in enumerate(shapes)
        ]
        parts = re.split(f"{self._placeholder}(\\d+)x", self._render_chat(chat, prompt))
        expected = [str(number) for number, shape in enumerate(shapes) if not shape[3]]
        for wanted, found in zip(expected, [*parts[1::2], *[""] * len(expected)], strict=False):
            if wanted != found:
                raise self._rewritten(messages[int(wanted)])
        if len(parts) // 2 > len(expected):
            raise self._rewritten(messages[-1])
        self._skeletons[shapes, prompt] = parts[::2]
        if len(self._skeletons) > self._cached:
            self._skeletons.popitem(last=False)
        return parts[::2]

    def _mark(self, number: int) -> str:
        return f"{self._placeholder}{number}x"

    def _rewritten(self, message: Message) -> UsageError:
        return UsageError(
            f"the chat template of {self._name} drops or rewrites the {message.role} message "
            f"{message.content[:40]!r}: name another template in model.chat_template"
        )

    def _answer(
        self, message: Message, before: _State, text: str
    ) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        if not text.endswith(self._closing_text):
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
            own, added = ids[: len(ids) - len(self._rest)], self._rest
        elif message.token_ids[-1:] == (self.end_of_turn,):
            own, added = message.token_ids, self._rest
        else:
            # cut at its length limit or at a stop string: no end-of-turn token was sampled
            own, added = message.token_ids, self._closing + self._rest
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

    def _render(self, messages: Sequence[Message], prompt: bool) -> str:
        return self._render_chat([message.chat() for message in messages], prompt)

    def _render_chat(self, chat: list[dict[str, str]], prompt: bool) -> str:
        try:
            text = self.tokenizer.apply_chat_template(
                chat, chat_template=self._template, tokenize=False, add_generation_prompt=prompt
            )
        except TemplateError as error:
            roles = ", ".join(message["role"] for message in chat)
            raise UsageError(
                f"the chat template of {self._name} refuses the roles {roles}: {error}"
            ) from error
        return str(text)

    def _learn_closing(self) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        question, answer = Message("user", _PROBE[0]), Message("assistant", _PROBE[1])
        before, after = self._render([question], True), self._render([question, answer], False)
        opening, separator, closing = after.removeprefix(before).partition(answer.content)
        if not after.startswith(before) or not separator or opening.strip():
            raise UsageError(
                f"the chat template of {self._name} is not prefix-preserving (its answers do not "
                "follow its generation prompt): name another template in model.chat_template"
            )
        told = self._control.protect(before + opening) + answer.content
        closing = self._control.protect(closing)
        ids = self._following(self._control.tail(told), closing)
        end = next((number for number, id_ in enumerate(ids) if id_ in self._control.special), None)
        if end is None:
            raise UsageError(
                f"the chat template of {self._name} does not end an answer with a special token, "
                "so the policy could not end its turn: name another template in model.chat_template"
            )
        return closing, tuple(ids[: end + 1]), tuple(ids[end + 1 :])

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


def _shape(message: Message) -> _Shape:
    content = message.content
    core = content.strip()
    start = content.find(core) if core else len(content)
    return message.role, content[:start], content[start + len(core) :], not core
