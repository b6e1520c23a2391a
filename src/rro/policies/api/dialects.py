"""The dialects of servers: what goes into a request, and how to read the response.

`VllmTokens` and `LlamaTokens` send token ids and get token ids (and log-probabilities), so no text
is ever encoded again. `Chat` sends messages and gets text. Knows JSON, not the network."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rro.errors import PolicyError
from rro.jsonl import storable
from rro.models.call_markup import read_bare
from rro.models.chat import ChatFormat
from rro.models.stop_strings import cut_at_stop
from rro.models.thoughts import ThoughtLimits
from rro.policies.api.backoff import TransientError
from rro.tool_calls import tool_calls
from rro.types import Message, SamplingParams, ToolCall, Usage

# Switches off what servers do to the distribution by default (llama.cpp: top_k 40 and min_p 0.05;
# vLLM: what the model's generation_config.json says). Requests leave out those of OPTIONAL that a
# server does not accept.
NEUTRAL = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
# What a request can do without: the seed (a repeat then differs), stop strings (answers are cut
# here), and a field with this value, which means the same when it is not sent.
OPTIONAL: dict[str, Any] = {"seed": None, "stop": None, **NEUTRAL, "n": 1, "stream": False}
OPTIONAL |= {"top_p": 1.0, "temperature": 1.0}
# no count of a server is larger
_LARGEST = 2**31 - 1
# llama.cpp's chain of samplers reduced to ours: first the temperature, then top_p.
LLAMA_SAMPLERS = {"samplers": ["temperature", "top_p"]}


@dataclass(frozen=True, slots=True)
class SamplingRequest:
    """A request for `n` answers of at most `limit` tokens each, to a prompt of token ids, or of
    messages in dialects without token ids; they may call `tools` (schemas). `thoughts`: further
    limits, where token ids come out."""

    prompt: Sequence[int] | Sequence[Message]
    limit: int
    params: SamplingParams
    n: int = 1
    seed: int = 0
    tools: Sequence[Mapping[str, Any]] = ()
    thoughts: ThoughtLimits | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """One sampled message. `ids` and `logprobs` are None if the server does not give them; `calls`
    and `thought` are those that the server read."""

    text: str
    ids: tuple[int, ...] | None
    logprobs: tuple[float, ...] | None
    finish: Literal["stop", "length"]
    calls: tuple[ToolCall, ...] = ()
    thought: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answers to one request, its tokens as the server counted them (None: not reported), and
    the name of the model that answered."""

    answers: tuple[Answer, ...]
    prompt_tokens: int | None
    cached_tokens: int
    generated_tokens: int | None
    model: str

    def usage(self, prompt_tokens: int, seconds: float) -> list[Usage]:
        """The usage of each answer, the prompt in the first one's alone. `prompt_tokens` is our own
        count, for a server without one; `seconds` is the share of each answer."""
        total, count = self.generated_tokens or 0, len(self.answers)
        shares = [total // count + (i < total % count) for i in range(count)]
        generated = [
            share if answer.ids is None else len(answer.ids)
            for share, answer in zip(shares, self.answers, strict=True)
        ]
        prompt = prompt_tokens if self.prompt_tokens is None else self.prompt_tokens
        cached = min(prompt, self.cached_tokens)
        first = Usage(1, prompt, cached, generated[0], seconds=seconds)
        return [first, *(Usage(1, 0, 0, tokens, seconds=seconds) for tokens in generated[1:])]


class Dialect(ABC):
    """One kind of request. `tokens`: token ids go in and come out. `path`: its address after
    base_url, or after the server's root if `at_root`."""

    name: str
    path: str
    tokens = True
    at_root = False

    def __init__(self, model: str) -> None:
        self.model = model

    @abstractmethod
    def body(self, request: SamplingRequest) -> dict[str, Any]:
        """The request as JSON."""

    @abstractmethod
    def read(self, tree: Any, request: SamplingRequest) -> Reply:
        """The answers in a response. Raises TransientError if something is missing, PolicyError if
        the server withheld one."""

    def text(self, tree: Any) -> str:
        """The first answer's text as the server decoded it."""
        return _text(_choices(tree)[0].get("text"))


class TokenDialect(Dialect):
    """A dialect of token ids, of a model with the chat format `chat`."""

    def __init__(self, model: str, chat: ChatFormat) -> None:
        super().__init__(model)
        self.chat = chat


class VllmTokens(TokenDialect):
    """vLLM's /completions with `return_token_ids`."""

    name, path = "tokens (vLLM)", "/completions"

    def body(self, request: SamplingRequest) -> dict[str, Any]:
        body = {
            "model": self.model,
            "prompt": list(request.prompt),
            "max_tokens": request.limit,
            "n": request.n,
            "return_token_ids": True,
            "stop_token_ids": sorted(self.chat.end_ids),
        }
        body |= {"logprobs": 1} if request.params.logprobs else {}
        return body | _sampling(request)

    def read(self, tree: Any, request: SamplingRequest) -> Reply:
        return _reply(tree, [self._answer(choice, request) for choice in _choices(tree)])

    def _answer(self, choice: Mapping[str, Any], request: SamplingRequest) -> Answer:
        ids = _ids(choice.get("token_ids"), self.chat)
        finish = _finish(choice.get("finish_reason"))
        logprobs = None
        if request.params.logprobs:
            logprobs = _table(choice.get("logprobs")).get("token_logprobs")
        return _answer_from_ids(self.chat, ids, logprobs, finish, request)


class LlamaTokens(TokenDialect):
    """llama.cpp's own /completion with `return_tokens`, one answer a request.

    Its stop strings cut off log-probabilities but not tokens, so requests for log-probabilities do
    without and the answer is cut here. It reports none for tokens that end inside a character; an
    answer with such tokens has no log-probabilities."""

    name, path, at_root = "tokens (llama.cpp)", "/completion", True

    def body(self, request: SamplingRequest) -> dict[str, Any]:
        body = {
            "model": self.model,
            "prompt": list(request.prompt),
            "n_predict": request.limit,
            "return_tokens": True,
            "cache_prompt": True,
        }
        body |= {**LLAMA_SAMPLERS, **_sampling(request)}
        if request.params.logprobs:
            body["n_probs"] = 1
            body.pop("stop", None)
        return body

    def read(self, tree: Any, request: SamplingRequest) -> Reply:
        if not isinstance(tree, dict) or tree.get("stop") is not True:
            raise TransientError("incomplete answer", "the answer has no end")
        kind = tree.get("stop_type")
        finish = _finish({"eos": "stop", "word": "stop", "limit": "length"}.get(str(kind), kind))
        ids = _ids(tree.get("tokens"), self.chat)
        logprobs = None
        if request.params.logprobs:
            logprobs = _aligned(tree.get("completion_probabilities"), ids)
        answer = _answer_from_ids(self.chat, ids, logprobs, finish, request)
        prompt, cached = tree.get("tokens_evaluated"), _table(tree.get("timings")).get("cache_n")
        return Reply(
            (answer,),
            _count(prompt),
            _count(cached) or 0,
            len(answer.ids or ()),
            _text(tree.get("model")),
        )

    def text(self, tree: Any) -> str:
        return _text(tree.get("content"))


class Chat(Dialect):
    """/chat/completions: messages in, text out; with the server's own chat template."""

    name, path, tokens = "chat", "/chat/completions", False
    limit_name = "max_tokens"

    def __init__(
        self, model: str, extras: Mapping[str, Any] | None = None, thoughts: bool = False
    ) -> None:
        """`extras` are further fields of each request. `thoughts`: whether answers keep the
        thoughts that the server tells apart; no history holds them."""
        super().__init__(model)
        self._extras, self._thoughts = extras or {}, thoughts

    def body(self, request: SamplingRequest) -> dict[str, Any]:
        body = {
            "model": self.model,
            "messages": [
                _as_sent(message) for message in request.prompt if isinstance(message, Message)
            ],
            self.limit_name: request.limit,
            "n": request.n,
        }
        body |= {"tools": list(request.tools)} if request.tools else {}
        return {**body, **_sampling(request), **self._extras}

    def read(self, tree: Any, request: SamplingRequest) -> Reply:
        answers = []
        for choice in _choices(tree):
            calls = _called(choice) if request.tools else ()
            reason = choice.get("finish_reason")
            finish = "stop" if calls and reason == "tool_calls" else _finish(reason)
            text = _said(choice, bool(request.tools))
            if request.tools and not calls:
                text, found = read_bare(text, request.tools)
                calls = tool_calls(found)
            # a server may leave the stop string in
            ends = [text.find(stop) for stop in request.params.stop if stop in text]
            text = text[: min(ends)] if ends else text
            thought = _thought(choice) if self._thoughts else ""
            if not text.strip() and not calls and not thought:
                raise PolicyError(
                    f"the server gave no text (finish_reason {finish!r}: a refusal, or only "
                    "reasoning?)"
                )
            finish = "stop" if ends else finish
            answers.append(Answer(storable(text), None, None, finish, calls, thought))
        return _reply(tree, answers)


def _sampling(request: SamplingRequest) -> dict[str, Any]:
    """The fields that all dialects have in common."""
    params = request.params
    body = {"temperature": params.temperature, "top_p": params.top_p, "seed": request.seed}
    return body | NEUTRAL | {"stream": False} | ({"stop": list(params.stop)} if params.stop else {})


def _choices(tree: Any) -> list[dict[str, Any]]:
    choices = tree.get("choices") if isinstance(tree, dict) else None
    whole = isinstance(choices, list) and all(isinstance(choice, dict) for choice in choices)
    if not choices or not whole:
        raise TransientError("incomplete answer", "the answer has no choices")
    return sorted(choices, key=lambda choice: _count(choice.get("index")) or 0)


def _finish(reason: Any) -> Literal["stop", "length"]:
    if reason in ("stop", "length"):
        return reason  # type: ignore[no-any-return]
    if reason is None:
        raise TransientError("incomplete answer", "the answer does not say why it ended")
    raise PolicyError(f"the server withheld an answer (finish_reason {str(reason)[:40]!r})")


def _as_sent(message: Message) -> dict[str, Any]:
    """A message in the API's form, where arguments are JSON text."""
    row = message.chat()
    row.pop("name", None)
    row.pop("reasoning_content", None)
    for call in row.get("tool_calls", ()):
        call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
    return {**row, "content": None} if message.tool_calls and not message.content else row


def _called(choice: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    """The tool calls of an answer in chat. Raises TransientError for what are none."""
    calls = _table(choice.get("message")).get("tool_calls") or []
    whole = isinstance(calls, list)
    functions = [_table(_table(call).get("function")) for call in calls] if whole else []
    if not whole or not all(functions):
        raise TransientError("incomplete answer", "the answer has tool calls without a function")
    return tool_calls(
        (function.get("name"), function.get("arguments"), call.get("id"))
        for call, function in zip(calls, functions, strict=True)
    )


def _said(choice: Mapping[str, Any], tools: bool) -> str:
    """The text of an answer in chat. Raises PolicyError for one that is not an assistant's,
    refuses, or calls tools where there are none."""
    message = _table(choice.get("message"))
    if message.get("role") not in (None, "assistant"):
        raise PolicyError(f"the server answered as {str(message['role'])[:40]!r}")
    for name in ("refusal", "function_call", *(() if tools else ("tool_calls",))):
        if message.get(name):
            raise PolicyError(f"the server gave no text ({name.replace('_', ' ')})")
    if choice.get("error"):
        raise PolicyError("the server withheld an answer (it reports an error)")
    return _text(message.get("content"))


def _thought(choice: Mapping[str, Any]) -> str:
    """The thought of an answer in chat; servers have two names for it."""
    message = _table(choice.get("message"))
    return storable(_text(message.get("reasoning_content")) or _text(message.get("reasoning")))


def _ids(value: Any, chat: ChatFormat) -> tuple[int, ...]:
    """Raises TransientError for what is not a list of ids of our tokenizer."""
    if not isinstance(value, list) or not all(
        type(id_) is int and 0 <= id_ < chat.vocabulary for id_ in value
    ):
        raise TransientError("incomplete answer", "the answer has no token ids of our tokenizer")
    return tuple(value)


def _count(value: Any) -> int | None:
    """A server's count; None if it is no plausible one."""
    return value if type(value) is int and 0 <= value <= _LARGEST else None


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _answer_from_ids(
    chat: ChatFormat,
    ids: tuple[int, ...],
    logprobs: Any,
    finish: Literal["stop", "length"],
    request: SamplingRequest,
) -> Answer:
    """An answer from sampled ids: cut after the request's limit, the first end-of-turn token or a
    stop string, or before another control token, and decoded here. `logprobs`: as the server sent
    them, None if not asked for."""
    limit, stops = request.limit, request.params.stop
    if request.thoughts is not None:
        limit = min(limit, request.thoughts.allowed(ids))
    keep, ended = chat.cut(ids[:limit], bool(request.tools))
    if not ids or (logprobs is not None and not _are_logprobs(logprobs, len(ids))):
        raise TransientError("incomplete answer", "the answer lacks tokens or log-probabilities")
    text, stopped = chat.decode(ids[:keep]), False
    if stops and (stop := cut_at_stop(ids[:keep], stops, chat.decode)):
        (keep, text), stopped = stop, True
    complete = finish == "stop" and keep == len(ids)
    kept_logprobs = None if logprobs is None else tuple(logprobs[:keep])
    ended = ended or stopped or complete
    return Answer(text, ids[:keep], kept_logprobs, "stop" if ended else "length")


def _are_logprobs(values: Any, count: int) -> bool:
    """Whether these are logarithms of `count` probabilities, up to rounding, and none is NaN."""
    return (
        isinstance(values, list)
        and len(values) == count
        and all(type(value) in (int, float) and -1e6 < value < 0.01 for value in values)
    )


def _aligned(entries: Any, ids: Sequence[int]) -> list[Any] | None:
    """The log-probabilities of `ids`, or None if some are missing. Raises TransientError if they
    are of other tokens."""
    entries = [entry for entry in entries or () if isinstance(entry, dict)]
    rest = iter(ids)
    if not all(entry.get("id") in rest for entry in entries):
        raise TransientError(
            "incomplete answer", "the log-probabilities are not those of the tokens"
        )
    return [entry.get("logprob") for entry in entries] if len(entries) == len(ids) else None


def _reply(tree: dict[str, Any], answers: Sequence[Answer]) -> Reply:
    usage = _table(tree.get("usage"))
    details = _table(usage.get("prompt_tokens_details"))
    return Reply(
        tuple(answers),
        prompt_tokens=_count(usage.get("prompt_tokens")),
        cached_tokens=_count(details.get("cached_tokens")) or 0,
        generated_tokens=_count(usage.get("completion_tokens")),
        model=_text(tree.get("model")),
    )
