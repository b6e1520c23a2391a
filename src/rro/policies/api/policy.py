"""A server that speaks OpenAI's API as a policy: vLLM, llama.cpp's server, hosted APIs.

Knows messages, tokens and the contract of a policy. `opening.py` makes it and finds out what the
server can do, `dialects.py` knows requests and responses, `client.py` sends them."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from rro.errors import PolicyError, RroError, UsageError
from rro.models.chat import ChatFormat
from rro.policies.api.capabilities import Capabilities
from rro.policies.api.client import RequestRejected, disconnect
from rro.policies.api.dialects import Answer, SamplingRequest
from rro.policies.api.endpoint import Endpoint
from rro.policies.base import with_thought
from rro.seeds import derive_seed
from rro.tool_calls import tools_of
from rro.types import Completion, Message, SamplingParams, Source, Usage

log = logging.getLogger(__name__)

# What servers say when prompt and answer do not fit the context: vLLM, llama.cpp and OpenAI;
# Anthropic and Bedrock; TGI and Together; Gemini; Cohere; Mistral, xAI and others.
_OVERFLOW = re.compile(
    r"context[ _-]?(length|size|window|limit)|maximum context|exceed\w* .{0,40}context"
    r"|(prompt|input|messages?|request)\b.{0,20} too (long|large)|request_too_large"
    r"|inputs`?( tokens)?\b.{0,40} must (have|be) (less|<)"
    r"|(input|prompt) tokens? count|too many (input |prompt )?tokens"
    r"|tokens in the prompt|prompt contains \d+ tokens"
    r"|(maximum|max) (prompt|model|input|sequence) (length|tokens)|max length"
    r"|exceed\w* .{0,30}token limit|reduce the length of|string_above_max_length",
    re.IGNORECASE,
)
_NUMBERS = [
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        r"maximum context length (?:is|of) (?P<limit>\d+).*?(?P<prompt>\d+) in the"
        r" (?:messages|prompt)",
        r"maximum context length (?:is|of) (?P<limit>\d+).*?(?:has|contains|with)(?: at least)?"
        r" (?P<prompt>\d+) (?:input )?tokens",
        r"context limit: (?P<prompt>\d+) \+ \d+ > (?P<limit>\d+)",
        r"must be <= (?P<limit>\d+)\. Given: (?P<prompt>\d+) ",
    )
]
_FILTERED = re.compile(r"content[_ ](filter|policy|management)|data_inspection", re.IGNORECASE)
# and of these, one whose reason is unknown may be about the prompt's length
_TOO_LONG = (400, 413, 422)


class OpenAIPolicy:
    """Samples from a served model, as `rro.policies.base.Policy` says. Made by `open_served`.

    With token ids (`provenance["token_ids"]`) a completion holds exactly the sampled ones,
    end-of-turn token included; its text is decoded from them. Without, it holds the server's text
    alone. Sample i is decided by derive_seed(seed, i), as far as the server honours seeds. Of the
    samples that share a request, the usage of the first one holds the prompt.

    `client` is the connection, which policies with the same settings share."""

    def __init__(
        self,
        endpoint: Endpoint,
        name: str,
        chat: ChatFormat | None,
        capabilities: Capabilities,
        context: int | None,
        owner: str,
    ) -> None:
        """`chat`: the format of the served model's tokenizer, where token ids go in and out.
        `context`: tokens of prompt and answer together, None if unknown. `owner`: the kind of
        server."""
        self.name, self.client = name, endpoint.client
        self._endpoint, self._chat = endpoint, chat
        self._capabilities, self._context = capabilities, context
        dialect = endpoint.dialect
        self.provenance: Mapping[str, Any] = MappingProxyType(
            {
                "backend": "openai",
                "base_url": endpoint.client.url,
                "server": owner or "unknown",
                "model": dialect.model,
                "served_as": endpoint.served_as,
                "way": dialect.name,
                "token_ids": dialect.tokens,
                "logprobs": capabilities.logprobs,
                "seeds": capabilities.seeds,
                "greedy": capabilities.greedy,
                "answers_per_request": capabilities.many,
                "left_out": ", ".join(sorted(endpoint.left_out)),
                "context": context,
            }
        )

    async def sample(
        self, messages: Sequence[Message], n: int, params: SamplingParams, seed: int
    ) -> list[Completion]:
        """Draw `n` answers. Raises PolicyError if the server did not answer, UsageError for what it
        cannot do, RroError if it rejects the request."""
        self._check(params)
        ids = self._chat.encode(messages, add_generation_prompt=True).ids if self._chat else []
        limit = params.max_new_tokens
        if self._context is not None and ids:
            limit = min(limit, self._context - len(ids))
        if limit < 1:
            return [self._no_room(params)] * n
        prompt: Sequence[Any] = ids if self._endpoint.dialect.tokens else messages
        tools = tools_of(messages)
        thoughts = self._chat.limits(messages, params) if self._chat and ids else None
        # vLLM takes one greedy answer a request
        size = self._capabilities.many if params.temperature > 0 else 1
        requests = [
            SamplingRequest(
                prompt,
                limit,
                params,
                min(size, n - i),
                derive_seed(seed, i) % 2**31,
                tools,
                thoughts,
            )
            for i in range(0, n, size)
        ]
        runs = (
            self.client.thread.run(self._request(request, len(ids), messages))
            for request in requests
        )
        results = await asyncio.gather(*runs, return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        if errors:
            # one that ends the run before one that fails a rollout
            raise next((error for error in errors if isinstance(error, RroError)), errors[0])
        return [
            completion
            for result in results
            if not isinstance(result, BaseException)
            for completion in result
        ]

    async def close(self) -> None:
        """Release the connection; the last of its policies ends it."""
        await asyncio.to_thread(disconnect, self.client)

    def _check(self, params: SamplingParams) -> None:
        """Raises UsageError for what the server is known not to do."""
        where = self._endpoint.description
        if params.temperature == 0 and not self._capabilities.greedy:
            raise UsageError(
                f"{where} does not honour temperature 0: set evaluate.greedy = false, and "
                "explore.proposal_temperature where the strategy's candidates are greedy"
            )
        for name, value in (("temperature", params.temperature), ("top_p", params.top_p)):
            if name in self._endpoint.left_out and value != 1:
                raise UsageError(f"{where} accepts only {name} 1: set policy.{name} = 1")
        if params.logprobs and not self._capabilities.logprobs:
            raise UsageError(
                f"{where} gives no log-probabilities of sampled tokens: serve the model with vLLM "
                "or llama.cpp"
            )

    async def _request(
        self, request: SamplingRequest, count: int, messages: Sequence[Message]
    ) -> list[Completion]:
        """The answers to one request to continue `messages`, shorter if the server says that the
        context has less room. `count`: tokens of the prompt, 0 if unknown."""
        start = time.perf_counter()
        try:
            reply = await self._endpoint.sample(request)
        except RequestRejected as rejected:
            if _FILTERED.search(f"{rejected.code} {rejected.text}"):
                raise PolicyError(f"the server withheld an answer ({rejected})") from None
            room = room_left(rejected)
            if room is None and not await self._takes_shorter(rejected, request, messages):
                raise self.client.explain(rejected, self._endpoint.dialect.model) from None
            if not 0 < (room or 0) < request.limit:
                return [self._no_room(request.params)] * request.n
            return await self._request(replace(request, limit=room or 0), count, messages)
        n = request.n
        usages = reply.usage(count, (time.perf_counter() - start) / n)
        return [
            self._completion(messages, answer, usage)
            for answer, usage in zip(reply.answers[:n], usages[:n], strict=True)
        ]

    async def _takes_shorter(
        self, rejected: RequestRejected, request: SamplingRequest, messages: Sequence[Message]
    ) -> bool:
        """Whether the server takes the same request with the messages up to the first answer, so
        that it is the length of the prompt that it rejects."""
        roles = [message.role for message in messages]
        if rejected.status not in _TOO_LONG or "assistant" not in roles:
            return False
        first = messages[: roles.index("assistant")]
        short: Sequence[Any] = first
        if self._chat is not None and self._endpoint.dialect.tokens:
            short = self._chat.encode(first, True).ids
        try:
            await self._endpoint.probe(replace(request, prompt=short, n=1))
        except RequestRejected:
            return False
        log.warning(
            "%s rejects a prompt (%s) and takes a shorter one: the context counts as full",
            self._endpoint.description,
            rejected,
        )
        return True

    def _completion(self, messages: Sequence[Message], answer: Answer, usage: Usage) -> Completion:
        if self._chat is not None and answer.ids is not None:
            cut = None if self._chat.decode(answer.ids) == answer.text else answer.text
            message = self._chat.answer(messages, answer.ids, cut)
            done = Completion(message, answer.finish, self.name, usage, answer.logprobs)
            return with_thought(done, self._chat)
        message = Message(
            "assistant",
            answer.text,
            Source.POLICY,
            None,
            tool_calls=answer.calls,
            thought=answer.thought,
        )
        silent = answer.thought and not answer.text and not answer.calls
        finish = "thought" if silent else answer.finish
        return Completion(message, finish, self.name, usage, answer.logprobs)

    def _no_room(self, params: SamplingParams) -> Completion:
        ids = () if self._endpoint.dialect.tokens else None
        empty = Message("assistant", "", Source.POLICY, ids)
        return Completion(empty, "context", self.name, Usage(), () if params.logprobs else None)


def room_left(rejected: RequestRejected) -> int | None:
    """Tokens that an answer may still have, if a request was rejected because prompt and answer do
    not fit the context; 0 if the prompt alone does not, or the server gives no numbers. None: it
    was rejected for another reason."""
    overflow = _OVERFLOW.search(rejected.text) or _OVERFLOW.search(rejected.code)
    if rejected.status not in _TOO_LONG or not overflow:
        return None
    found = next(filter(None, (numbers.search(rejected.text) for numbers in _NUMBERS)), None)
    return max(0, int(found["limit"]) - int(found["prompt"])) if found else 0
