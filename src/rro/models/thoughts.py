"""A model's thought, told apart from what it says.

A model that thinks writes its thought between two marks, in front of its answer. The generation
prompt may hold the first mark already. Knows texts and the ids of marks, no conversations."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rro.errors import UsageError
from rro.types import SamplingParams


class Marks(NamedTuple):
    """What a family of models writes in front of a thought, behind it, and in front of an answer
    ("" for nothing)."""

    opening: str
    closing: str
    answer: str = ""


MARKS = (
    Marks("<|channel|>analysis<|message|>", "<|end|>", "<|channel|>final<|message|>"),
    Marks("<|channel>thought", "<channel|>"),
    Marks("[THINK]", "[/THINK]"),
    Marks("<|START_THINKING|>", "<|END_THINKING|>"),
    Marks("<think>", "</think>"),
)
"""GPT-OSS; Gemma 4; Magistral; Command; Qwen3, DeepSeek, SmolLM3, GLM, LFM2.5 and Nemotron."""


class Thinking(NamedTuple):
    """A thought, what is said after it, and whether the text ended inside the thought."""

    thought: str
    said: str
    unfinished: bool = False


def marks_of(template: str) -> Marks | None:
    """The marks that a chat template writes; None for a model that does not think."""
    return next((m for m in MARKS if m.opening in template and m.closing in template), None)


def split_thought(text: str, marks: Marks, begun: bool) -> Thinking:
    """What a model wrote, in two. `begun`: the prompt ended with the first mark. A text without a
    thought stays as it is."""
    if not begun and not text.lstrip().startswith(marks.opening):
        return Thinking("", _answer(text, marks))
    inside = text.lstrip().removeprefix(marks.opening)
    thought, mark, said = inside.partition(marks.closing)
    return Thinking(thought.strip(), _answer(said, marks).lstrip(), not mark)


def _answer(text: str, marks: Marks) -> str:
    """What follows the mark of answers, if it is there."""
    return text.rpartition(marks.answer)[2] if marks.answer else text


def without_marks(text: str, marks: Marks) -> str:
    """A text in which no template finds a thought: marks that stand inside one another, too."""
    pattern = "|".join(re.escape(mark) for mark in marks if mark)
    once = re.sub(pattern, "", text)
    # What is left may make a new mark, but not across a space: no mark has one.
    return once if not re.search(pattern, once) else re.sub(pattern, " ", text)


@dataclass(frozen=True, slots=True)
class ThoughtLimits:
    """The most tokens of a thought and of what follows it (None: no limit). `opening` and `closing`
    are the ids of the marks, `begun` as in `split_thought`."""

    opening: int | None
    closing: int | None
    begun: bool
    thought: int | None
    answer: int | None

    def allowed(self, ids: Sequence[int]) -> int:
        """How many tokens a message that begins with `ids` may have."""
        if self.closing in ids:
            limit, before = self.answer, ids.index(self.closing) + 1
        else:
            thinks = self.begun or self.opening in ids[:2]
            limit, before = self.thought if thinks else self.answer, 0
        return 2**31 if limit is None else before + limit


class ThoughtReader:
    """Thoughts of the model `name`: its `marks` are those of its chat template (None: it does not
    think), `tokens` are its control tokens."""

    def __init__(self, template: str, tokens: Mapping[str, int], name: str) -> None:
        self.marks, self._tokens, self._name = marks_of(template), tokens, name

    @property
    def ids(self) -> frozenset[int]:
        """The control tokens in the marks."""
        marks = " ".join(self.marks or ())
        return frozenset(id_ for text, id_ in self._tokens.items() if text in marks)

    def begun(self, prompt: str) -> bool:
        """Whether a generation prompt ends inside a thought."""
        return self.marks is not None and prompt.rstrip().endswith(self.marks.opening)

    def split(self, prompt: str, written: str) -> Thinking | None:
        """What was written after `prompt`, in two; None where it stays as it is."""
        if self.marks is None:
            return None
        thinking = split_thought(written, self.marks, self.begun(prompt))
        same = not thinking.thought and not thinking.unfinished and thinking.said == written
        return None if same else thinking

    def count(self, ids: Sequence[int], text: Callable[[Sequence[int]], str]) -> tuple[int, bool]:
        """How many of the ids of a message that thinks are its thought, and whether it ends inside
        it. `text` decodes ids."""
        if self.marks is None:
            return 0, False
        if self.marks.closing not in text(ids):
            return len(ids), True
        low, high = 1, len(ids)
        while low < high:
            middle = (low + high) // 2
            inside = self.marks.closing not in text(ids[:middle])
            low, high = (middle + 1, high) if inside else (low, middle)
        return low, False

    def limits(self, prompt: str, params: SamplingParams) -> ThoughtLimits:
        """The limits of `params` for what is sampled after `prompt`. Raises UsageError where no
        token ends a thought."""
        thought, answer = params.max_thought_tokens, params.max_answer_tokens
        if self.marks is None:
            return ThoughtLimits(None, None, False, thought, answer)
        closing = self._tokens.get(self.marks.closing)
        if closing is None:
            raise UsageError(
                f"policy.max_thought_tokens and max_answer_tokens need {self.marks.closing!r} as a "
                f"token of its own, which {self._name} does not have"
            )
        starts = (id_ for text, id_ in self._tokens.items() if self.marks.opening.startswith(text))
        return ThoughtLimits(next(starts, None), closing, self.begun(prompt), thought, answer)
