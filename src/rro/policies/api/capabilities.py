"""What a server really does, found out by asking it: detect and refuse, never believe.

Knows how answers look (`Reply`), not how they travel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Protocol

from rro.errors import PolicyError, UsageError
from rro.policies.api.client import Refused
from rro.policies.api.wire import Answer, Reply
from rro.types import Message, SamplingParams

QUESTION = (Message("user", "Write one sentence about whatever comes to your mind."),)
TOKENS = 8  # of each answer; an honest model says the same eight tokens about never
_SEED, _OTHERS = 1000, range(1001, 1006)
MANY = 4


class Ask(Protocol):
    """Asks the server QUESTION once."""

    def __call__(self, params: SamplingParams, n: int, seed: int) -> Awaitable[Reply]: ...


@dataclass(frozen=True, slots=True)
class Capabilities:
    """`seeds`: the same seed gives the same answer. `greedy`: temperature 0 is honoured. `many`:
    independent answers that one request may ask for. `logprobs`: it gives those of the model at
    temperature 1."""

    seeds: bool
    greedy: bool
    many: int
    logprobs: bool


async def probe(ask: Ask, where: str, *, tokens: bool, one_at_a_time: bool) -> Capabilities:
    """Some 15 requests of 8 tokens. Raises UsageError for a server whose answers at temperature 1
    are not drawn."""
    drawn = await _drawn(ask, SamplingParams(temperature=1.0, max_new_tokens=TOKENS))
    if len(set(drawn)) == 1:
        drawn = await _drawn(ask, SamplingParams(temperature=2.0, max_new_tokens=TOKENS))
    if len(set(drawn)) == 1:
        raise UsageError(
            f"{where} gives the same answer at temperatures 1 and 2 whatever the seed: it does not draw, so every price "
            "would be that of one rollout; serve the model with sampling switched on (vllm serve or llama.cpp's server do)"
        )
    again = [await ask(SamplingParams(1.0, max_new_tokens=TOKENS), 1, _SEED) for _ in range(2)]
    seeds = len({_said(reply.answers[0]) for reply in again}) == 1
    many = 1 if one_at_a_time else await _many(ask, seeds, _said(again[0].answers[0]))
    return Capabilities(seeds, await _is_greedy(ask), many, tokens and await _has_logprobs(ask))


async def _drawn(ask: Ask, params: SamplingParams) -> list[object]:
    """What it says with six seeds."""
    replies = await asyncio.gather(*(ask(params, 1, seed) for seed in (_SEED, *_OTHERS)))
    return [_said(reply.answers[0]) for reply in replies]


async def _is_greedy(ask: Ask) -> bool:
    """At temperature 0 three of four answers are equal at least (a GPU's sums may turn one)."""
    try:
        params = SamplingParams(temperature=0.0, max_new_tokens=TOKENS)
        said = [_said((await ask(params, 1, seed)).answers[0]) for seed in range(4)]
    except (Refused, PolicyError):
        return False
    return max(said.count(one) for one in said) >= 3


async def _many(ask: Ask, seeds: bool, first: object) -> int:
    """MANY, if n gives that many different answers, of which number i depends on the seed and i
    alone; else 1."""
    params = SamplingParams(1.0, max_new_tokens=TOKENS)
    try:
        four, two = await ask(params, MANY, _SEED), await ask(params, 2, _SEED)
    except (Refused, PolicyError):
        return 1
    said, fewer = _all_said(four.answers), _all_said(two.answers)
    honoured = len(said) == MANY and len(fewer) == 2 and len(set(said)) > 1
    stable = said[:2] == fewer and said[0] == first
    return MANY if honoured and (stable or not seeds) else 1


async def _has_logprobs(ask: Ask) -> bool:
    """Those of what is drawn at a low temperature must not be those of that temperature, which are
    about 0."""
    params = SamplingParams(temperature=0.01, max_new_tokens=TOKENS, logprobs=True)
    try:
        logprobs = (await ask(params, 1, _SEED)).answers[0].logprobs
    except (Refused, PolicyError):
        return False
    return logprobs is not None and all(one <= 1e-6 for one in logprobs) and min(logprobs) < -1e-3


def _said(answer: Answer) -> object:
    return answer.ids or answer.text


def _all_said(answers: Sequence[Answer]) -> list[object]:
    return [_said(answer) for answer in answers]
