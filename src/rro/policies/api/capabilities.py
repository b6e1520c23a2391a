"""Probes what a server really does, because servers ignore fields that they do not know.

Knows what answers look like (`Reply`), not how they travel."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from rro.errors import PolicyError, UsageError
from rro.policies.api.client import RequestRejected
from rro.policies.api.dialects import Answer, Reply
from rro.types import Message, SamplingParams

QUESTION = (Message("user", "Write one sentence about whatever comes to your mind."),)
# of each answer: a model that samples hardly ever repeats eight tokens
TOKENS = 8
# answers that one request asks for, where the server honours n
MANY = 4
_SEED, _OTHER_SEEDS = 1000, range(1001, 1006)
_PARAMS = SamplingParams(temperature=1.0, max_new_tokens=TOKENS)


Ask = Callable[[SamplingParams, int, int], Awaitable[Reply]]
"""Sends QUESTION to the server once, for n answers with a seed."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """`seeds`: the same seed gives the same answer. `greedy`: temperature 0 is honoured. `many`:
    the number of independent answers that one request may ask for. `logprobs`: its
    log-probabilities are those of the model at temperature 1."""

    seeds: bool
    greedy: bool
    many: int
    logprobs: bool


async def probe(ask: Ask, where: str, *, tokens: bool, one_at_a_time: bool) -> Capabilities:
    """Find out what the server `where` can do, by some 15 requests of 8 tokens. `tokens`: it takes
    and gives token ids. `one_at_a_time`: it is known to ignore n. Raises UsageError for a server
    that gives the same answer to every request."""
    sampled = await _sample(ask, _PARAMS)
    if len(set(sampled)) == 1:
        sampled = await _sample(ask, SamplingParams(temperature=2.0, max_new_tokens=TOKENS))
    if len(set(sampled)) == 1:
        raise UsageError(
            f"{where} gives the same answer at temperatures 1 and 2 whatever the seed: it does not "
            "sample, so every process reward would be that of one rollout; serve the model with "
            "sampling switched on (vllm serve and llama.cpp's server do)"
        )
    again = [await ask(_PARAMS, 1, _SEED) for _ in range(2)]
    seeds = len({_content(reply.answers[0]) for reply in again}) == 1
    many = 1 if one_at_a_time else await _many(ask, seeds, _content(again[0].answers[0]))
    return Capabilities(seeds, await _is_greedy(ask), many, tokens and await _has_logprobs(ask))


async def _sample(ask: Ask, params: SamplingParams) -> list[object]:
    """The answers to six seeds."""
    replies = await asyncio.gather(*(ask(params, 1, seed) for seed in (_SEED, *_OTHER_SEEDS)))
    return [_content(reply.answers[0]) for reply in replies]


async def _is_greedy(ask: Ask) -> bool:
    """Whether at least three of four answers at temperature 0 are equal (on a GPU, rounding may
    change one)."""
    try:
        params = SamplingParams(temperature=0.0, max_new_tokens=TOKENS)
        contents = [_content((await ask(params, 1, seed)).answers[0]) for seed in range(4)]
    except (RequestRejected, PolicyError):
        return False
    return max(contents.count(content) for content in contents) >= 3


async def _many(ask: Ask, seeds: bool, first: object) -> int:
    """MANY, if n gives that many different answers of which number i depends on the seed and i
    alone; else 1. `first` is the answer to a request for one."""
    try:
        replies = await ask(_PARAMS, MANY, _SEED), await ask(_PARAMS, 2, _SEED)
    except (RequestRejected, PolicyError):
        return 1
    four, two = ([_content(answer) for answer in reply.answers] for reply in replies)
    honoured = len(four) == MANY and len(two) == 2 and len(set(four)) > 1
    stable = four[:2] == two and four[0] == first
    return MANY if honoured and (stable or not seeds) else 1


async def _has_logprobs(ask: Ask) -> bool:
    """Whether log-probabilities are those of temperature 1: of tokens sampled at a low temperature
    they must not be about 0."""
    params = SamplingParams(temperature=0.01, max_new_tokens=TOKENS, logprobs=True)
    try:
        logprobs = (await ask(params, 1, _SEED)).answers[0].logprobs
    except (RequestRejected, PolicyError):
        return False
    if logprobs is None:
        return False
    return all(logprob <= 1e-6 for logprob in logprobs) and min(logprobs) < -1e-3


def _content(answer: Answer) -> object:
    return answer.ids or answer.text
