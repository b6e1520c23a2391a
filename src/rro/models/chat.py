"""The chat format: the one place that turns messages into token ids, for policies and training.

A conversation is encoded piece by piece: the text that the template puts around answers, then each
answer. A sampled answer keeps exactly its sampled ids, so training sees what was sampled, and a
longer history always begins with the ids of the shorter one. That needs a prefix-preserving
template (the text of a longer conversation begins with that of the shorter one); others are
refused.

Knows a Transformers tokenizer and its chat template, not models."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from rro.errors import UsageError
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
    """The encoding of the first messages of a conversation, and their rendered text."""

    text: str
    ids: tuple[int, ...]
    mask: tuple[bool, ...]


class ChatFormat:
    """Encodes messages by a tokenizer's chat template, and decodes answers.

    `end_ids` are the ids that end an answer, `end_of_turn` is the one that the template itself puts
    there. Raises UsageError for a tokenizer without a template, and for a template that is not
    prefix-preserving, drops or rewrites messages, or does not end an answer with a special token.
    Thread-safe."""

    def __init__(self, tokenizer: Any, cached: int = 2048) -> None:
        """`cached`: how many encoded histories to remember, as exploration encodes them again."""
        self.tokenizer = tokenizer
        self._name = str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)
        if not getattr(tokenizer, "chat_template", None):
            raise UsageError(
                f"{self._name} has no chat template: name a Jinja file in model.chat_template"
            )
        template = str(tokenizer.get_chat_template())
        self._template = _FIXED_DATE + template if "strftime_now" in template else template
        self._states: OrderedDict[tuple[tuple[Message, ...], bool], _State] = OrderedDict()
        self._cached, self._lock = cached, threading.RLock()
        self._special, self._special_text = _special_tokens(tokenizer)
        self._anchor = ""
        # What the template writes after an answer: the text, the ids up to the end-of-turn token
        # (which the policy samples), and the remaining ids (which the template adds).
        self._closing_text, self._closing, self._rest = self._learn_closing()
        self.end_of_turn = self._closing[-1]
        self.end_ids = frozenset({self.end_of_turn, tokenizer.eos_token_id} - {None})
        anchor = str(tokenizer.convert_ids_to_tokens(self.end_of_turn))
        self._anchor = anchor if self._encode(anchor + "a")[:1] == [self.end_of_turn] else ""
        self._check_probe()

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

    def _state(self, messages: tuple[Message, ...], prompt: bool) -> _State:
        if not messages and not prompt:
            return _State("", (), ())
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
        if answers and answers[-1] == len(messages) - 1 and not prompt:
            before, added = self._state(messages[:-1], True), messages[-1:]
            ids, mask = self._answer(messages[-1], self._new_text(text, before, added))
        else:
            end = answers[-1] + 1 if answers else 0
            before, added = self._state(messages[:end], False), messages[end:]
            ids = self._tokens(self._new_text(text, before, added), added)
            mask = (False,) * len(ids)
        return _State(text, before.ids + ids, before.mask + mask)

    def _new_text(self, text: str, before: _State, added: Sequence[Message]) -> str:
        """The text that the messages `added` put after `before`. Raises UsageError unless it
        contains each of their contents, in order."""
        if not text.startswith(before.text):
            raise UsageError(
                f"the chat template of {self._name} is not prefix-preserving (a later message "
                "changes the text of earlier ones), so an answer would be trained after another "
                "prompt than it was sampled after: name another template in model.chat_template"
            )
        new, at = text[len(before.text) :], 0
        for message in added:
            start = new.find(message.content.strip(), at)
            if start < 0:
                raise UsageError(
                    f"the chat template of {self._name} drops or rewrites the {message.role} "
                    f"message {message.content[:40]!r}: name another template in "
                    "model.chat_template"
                )
            at = start + len(message.content.strip())
        return new

    def _answer(self, message: Message, text: str) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        if not text.endswith(self._closing_text):
            raise UsageError(
                f"the chat template of {self._name} ends answers in different ways: name another "
                "template in model.chat_template"
            )
        trained = message.source is not Source.ENVIRONMENT
        if message.token_ids is None:
            body = text[: len(text) - len(self._closing_text)]
            own, added = self._tokens(body, (message,)) + self._closing, self._rest
        elif message.token_ids[-1:] == (self.end_of_turn,):
            own, added = message.token_ids, self._rest
        else:
            # cut at its length limit or at a stop string: no end-of-turn token was sampled
            own, added = message.token_ids, self._closing + self._rest
        return own + added, (trained,) * len(own) + (False,) * len(added)

    def _render(self, messages: Sequence[Message], prompt: bool) -> str:
        chat = [message.chat() for message in messages]
        try:
            text = self.tokenizer.apply_chat_template(
                chat, chat_template=self._template, tokenize=False, add_generation_prompt=prompt
            )
        except TemplateError as error:
            roles = ", ".join(message.role for message in messages)
            raise UsageError(
                f"the chat template of {self._name} refuses the roles {roles}: {error}"
            ) from error
        return str(text)

    def _tokens(self, text: str, contents: Sequence[Message] = ()) -> tuple[int, ...]:
        """Ids of a piece of rendered text. Text of a special token inside a message's content is
        cut in two first, so that it stays text: an agent's words that an environment repeats must
        not open a new turn."""
        cuts, at = [0], 0
        for message in contents:
            content = message.content.strip()
            at = text.index(content, at)
            cuts += [at + match.start() + 1 for match in self._special_text.finditer(content)]
            at += len(content)
        ids: list[int] = []
        for start, end in zip(cuts, [*cuts[1:], len(text)], strict=True):
            ids += self._encode(text[start:end])
        return tuple(ids)

    def _encode(self, text: str) -> list[int]:
        """Ids of text that follows a special token: without one before it, SentencePiece tokenizers
        would put a space first."""
        if not text:
            return []
        whole = self._anchor + text
        if self.tokenizer.is_fast:
            # the wrapper around it costs more than the encoding
            ids = list(self.tokenizer.backend_tokenizer.encode(whole, add_special_tokens=False).ids)
        else:
            ids = list(self.tokenizer.encode(whole, add_special_tokens=False))
        return ids[1:] if self._anchor else ids

    def _learn_closing(self) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        question, answer = Message("user", _PROBE[0]), Message("assistant", _PROBE[1])
        before, after = self._render([question], True), self._render([question, answer], False)
        opening, separator, closing = after.removeprefix(before).partition(answer.content)
        if not after.startswith(before) or not separator or opening.strip():
            raise UsageError(
                f"the chat template of {self._name} is not prefix-preserving (its answers do not "
                "follow its generation prompt): name another template in model.chat_template"
            )
        ids = self._encode(closing)
        end = next((number for number, id_ in enumerate(ids) if id_ in self._special), None)
        if end is None:
            raise UsageError(
                f"the chat template of {self._name} does not end an answer with a special token, "
                "so the policy could not end its turn: name another template in model.chat_template"
            )
        return closing, tuple(ids[: end + 1]), tuple(ids[end + 1 :])

    def _check_probe(self) -> None:
        """Refuse a template now that the first long conversation would be refused for. One that
        raises for a system message (as Gemma's does) is accepted for conversations without one."""
        chat = tuple(
            Message("assistant" if number % 2 else "user", content)
            for number, content in enumerate(_PROBE)
        )
        system = Message("system", "Answer in two words.")
        self.encode(chat, True)
        try:
            self.encode((system, *chat), True)
        except UsageError as error:
            if not isinstance(error.__cause__, TemplateError):
                raise


def _special_tokens(tokenizer: Any) -> tuple[frozenset[int], re.Pattern[str]]:
    """The ids of a tokenizer's special tokens, and a pattern of their texts (longest first, as the
    tokenizer matches them). A text of one character cannot be cut in two, so it is left out."""
    added = tokenizer.added_tokens_decoder
    ids = frozenset(
        {id_ for id_, token in added.items() if token.special} | set(tokenizer.all_special_ids)
    )
    texts = {str(added[id_]) for id_ in ids if id_ in added}
    choices = sorted((text for text in texts if len(text) > 1), key=len, reverse=True)
    return ids, re.compile("|".join(map(re.escape, choices)) or r"(?!)")
