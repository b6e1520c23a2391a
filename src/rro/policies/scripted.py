"""A policy that is a Python function: for tests, scripted experts and a person at the terminal.

Knows no model and no tokenizer."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from rro.seeds import derive_seed
from rro.types import Completion, Message, SamplingParams, Source, Usage

Script = Callable[[Sequence[Message], random.Random], str | Message]
"""Answers a conversation, with a text or with a message that calls tools."""


class ScriptedPolicy:
    """Answers with `script(messages, rng)`, where `rng` is seeded by the request, so the answer
    depends on nothing else. `source` is the source of its messages.

    Usage counts words instead of tokens. What the script raises, `sample` raises."""

    def __init__(
        self, script: Script, name: str = "scripted", source: Source = Source.POLICY
    ) -> None:
        self.name, self._script, self._source = name, script, source
        self.provenance: Mapping[str, Any] = MappingProxyType(
            {"backend": "scripted", "token_ids": False, "logprobs": False}
        )

    async def sample(
        self, messages: Sequence[Message], n: int, params: SamplingParams, seed: int
    ) -> list[Completion]:
        """Call the script `n` times; `params` are ignored."""
        words = sum(len(message.text.split()) for message in messages)
        return [self._one(messages, words, derive_seed(seed, index)) for index in range(n)]

    def _one(self, messages: Sequence[Message], words: int, seed: int) -> Completion:
        said = self._script(messages, random.Random(seed))
        message = said if isinstance(said, Message) else Message("assistant", said)
        message = replace(message, source=self._source)
        words_said = len(message.text.split())
        usage = Usage(policy_calls=1, prompt_tokens=words, generated_tokens=words_said)
        return Completion(message, "stop", self.name, usage)

    async def close(self) -> None:
        """Nothing to release."""
