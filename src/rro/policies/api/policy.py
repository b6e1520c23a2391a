"""A server that speaks OpenAI's API as a policy: `vllm serve`, llama.cpp's server, hosted APIs.

Where the server can, our own token ids go in and its sampled ids come out (`wire.py`); else
messages and text. What it can is found out when the policy is opened (`capabilities.py`). How
requests travel is in `server.py`."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from rro.config import OpenAIConfig
from rro.errors import PolicyError, RroError, UsageError
from rro.models.chat import ChatFormat
from rro.policies.api.backoff import Fault
from rro.policies.api.capabilities import QUESTION, TOKENS, Capabilities, probe
from rro.policies.api.client import Refused, Server, connect, disconnect
from rro.policies.api.wire import (
    LLAMA_SAMPLERS,
    OPTIONAL,
    Chat,
    LlamaTokens,
    Reply,
    VllmTokens,
    Way,
)
from rro.seeds import derive_seed
from rro.types import Completion, Message, SamplingParams, Source, Usage

log = logging.getLogger(__name__)

_OVERFLOW = re.compile(
    r"context[ _](length|size|window)|maximum context|exceed\w* .{0,40}context", re.IGNORECASE
)
_LIMIT = re.compile(r"maximum context length (?:is|of) (\d+)", re.IGNORECASE)
_PROMPT = re.compile(
    r"(\d+) in the (?:messages|prompt)|(?:has|contains|with)(?: at least)? (\d+) (?:input )?tokens"
)


@dataclass(frozen=True, slots=True)
class Listed:
    """A model that a server lists, who serves it ("vllm", "llamacpp", ...), and its context in
    tokens where it says so."""

    id: str
    owner: str = ""
    context: int | None = None


def list_models(server: Server) -> list[Listed]:
    """The models of a server; empty if it keeps no list. Raises UsageError where no server
    answers."""

    def read(tree: Any) -> list[Listed]:
        rows = tree.get("data") if isinstance(tree, dict) else None
        return [
            _listed(row)
            for row in rows or ()
            if isinstance(row, dict) and isinstance(row.get("id"), str)
        ]

    try:
        return server.do_now(
            server.ask("/models", None, read, retries=min(2, server.settings.retries))
        )
    except Refused as refused:
        if refused.status in (404, 405, 501):
            return []
        raise server.explain(refused, "any") from None
    except PolicyError as error:
        raise UsageError(
            f"no server to be used: {error}; start it, or set policy.openai.base_url"
        ) from None


def _listed(row: Mapping[str, Any]) -> Listed:
    meta = row.get("meta") if isinstance(row.get("meta"), dict) else {}
    context = row.get("max_model_len") or (meta or {}).get("n_ctx")
    return Listed(
        row["id"], str(row.get("owned_by") or ""), context if isinstance(context, int) else None
    )


@dataclass
class Line:
    """One model on one server, and one way to ask it. `left_out`: optional fields that it does not
    take. `served_as`: what it calls the model in its answers."""

    server: Server
    way: Way
    left_out: set[str] = field(default_factory=set)
    served_as: str = ""

    async def ask(
        self,
        prompt: Sequence[int] | Sequence[Message],
        limit: int,
        params: SamplingParams,
        n: int,
        seed: int,
    ) -> Reply:
        """Raises Refused, PolicyError, RroError."""

        def read(tree: Any) -> Reply:
            reply = self.way.read(tree, limit, params)
            if self.served_as and reply.model and reply.model != self.served_as:
                raise Fault(
                    "wrong model",
                    f"the answer is of the model {reply.model[:80]!r}, not {self.served_as!r}",
                )
            if len(reply.answers) < n:
                raise Fault("half an answer", f"{len(reply.answers)} answers of {n}")
            return reply

        return await self.server.ask(self.path, self._body(prompt, limit, params, n, seed), read)

    async def learn(
        self, params: SamplingParams, n: int, seed: int, prompt: Sequence[int] | Sequence[Message]
    ) -> Any:
        """The same while the server is being probed: the bare answer, and fields that the server
        refuses are left out from now on."""
        retries = min(2, self.server.settings.retries)
        while True:
            body = self._body(prompt, params.max_new_tokens, params, n, seed)
            try:
                return await self.server.ask(self.path, body, lambda tree: tree, retries)
            except Refused as refused:
                if not self._leave_out(refused, body):
                    raise

    @property
    def path(self) -> str:
        return self.server.root + self.way.path if self.way.at_root else self.way.path

    def _body(
        self,
        prompt: Sequence[int] | Sequence[Message],
        limit: int,
        params: SamplingParams,
        n: int,
        seed: int,
    ) -> dict[str, Any]:
        body = self.way.body(prompt, limit, params, n, seed)
        return {key: value for key, value in body.items() if key not in self.left_out}

    def _leave_out(self, refused: Refused, body: Mapping[str, Any]) -> bool:
        if refused.status not in (400, 422):
            return False
        if (
            isinstance(self.way, Chat)
            and "max_completion_tokens" in refused.text
            and "max_tokens" in body
        ):
            self.way.limit_name = "max_completion_tokens"
            return True
        sent = {name for name in OPTIONAL if name in body}
        named = {name for name in sent if name in refused.text}
        if "temperature" in refused.text and body.get("temperature") == 1.0:
            named.add("temperature")  # it knows no other
        self.left_out |= named
        return bool(named)


class OpenAIPolicy:
    """Samples from a served model, as `rro.policies.base.Policy` says. Made by `open_served`.

    With token ids (`provenance["token_ids"]`) a completion holds exactly the sampled ones,
    end-of-turn token included; its text is decoded from them. Without, it holds the server's text
    alone. Sample i of a request is decided by derive_seed(seed, i) as far as the server honours
    seeds. Its prompt is in the usage of the first of the samples that one request asked for."""

    def __init__(
        self,
        line: Line,
        name: str,
        chat: ChatFormat | None,
        able: Capabilities,
        context: int | None,
        owner: str,
    ) -> None:
        self.name = name
        self._line, self._chat, self._able, self._context = line, chat, able, context
        self.provenance: Mapping[str, Any] = MappingProxyType(
            {
                "backend": "openai",
                "base_url": line.server.url,
                "server": owner or "unknown",
                "model": line.way.model,
                "served_as": line.served_as,
                "way": line.way.name,
                "token_ids": line.way.tokens,
                "logprobs": able.logprobs,
                "seeds": able.seeds,
                "greedy": able.greedy,
                "answers_per_request": able.many,
                "left_out": ", ".join(sorted(line.left_out)),
                "context": context,
            }
        )

    async def sample(
        self, messages: Sequence[Message], n: int, params: SamplingParams, seed: int
    ) -> list[Completion]:
        """Draw `n` answers. Raises PolicyError where the server did not answer, UsageError for what
        it cannot do, RroError where it refuses for good."""
        self._check(params)
        ids = self._chat.encode(messages, add_generation_prompt=True).ids if self._chat else []
        limit = params.max_new_tokens
        if self._context is not None and ids:
            limit = min(limit, self._context - len(ids))
        if limit < 1:
            return [self._full(params)] * n
        prompt: Sequence[Any] = ids if self._line.way.tokens else messages
        size = (
            self._able.many if params.temperature > 0 else 1
        )  # vLLM takes one greedy answer a request
        parts = [
            self._line.server.do(
                self._part(prompt, len(ids), limit, params, min(size, n - i), derive_seed(seed, i))
            )
            for i in range(0, n, size)
        ]
        done = await asyncio.gather(*parts, return_exceptions=True)
        for failures in (RroError, BaseException):  # what ends the run first
            for part in done:
                if isinstance(part, failures):
                    raise part
        return [completion for part in done for completion in part]  # type: ignore[union-attr]

    async def close(self) -> None:
        """Let go of the connection, which ends with the last policy that uses it."""
        await asyncio.to_thread(disconnect, self._line.server)

    def _check(self, params: SamplingParams) -> None:
        where = f"{self._line.server.url} (model {self._line.way.model!r})"
        if params.temperature == 0 and not self._able.greedy:
            raise UsageError(
                f"{where} does not honour temperature 0: set evaluate.greedy = false (and for ipr explore.proposal_temperature)"
            )
        if "temperature" in self._line.left_out and params.temperature != 1:
            raise UsageError(f"{where} takes no temperature but 1: set policy.temperature = 1")
        if params.logprobs and not self._able.logprobs:
            raise UsageError(
                f"{where} gives no log-probabilities of sampled tokens: serve the model with vLLM or llama.cpp"
            )

    async def _part(
        self,
        prompt: Sequence[Any],
        count: int,
        limit: int,
        params: SamplingParams,
        n: int,
        seed: int,
    ) -> list[Completion]:
        """One request's answers, shortened to the room that the server says is left."""
        begun = time.perf_counter()
        try:
            reply = await self._line.ask(prompt, limit, params, n, seed % 2**31)
        except Refused as refused:
            room = room_left(refused)
            if room is None:
                raise self._line.server.explain(refused, self._line.way.model) from None
            if not 0 < room < limit:
                return [self._full(params)] * n
            return await self._part(prompt, count, room, params, n, seed)
        usages = reply.usage(count, (time.perf_counter() - begun) / n)
        return [
            Completion(
                Message("assistant", a.text, Source.POLICY, a.ids),
                a.finish,
                self.name,
                usage,
                a.logprobs,
            )
            for a, usage in zip(reply.answers[:n], usages[:n], strict=True)
        ]

    def _full(self, params: SamplingParams) -> Completion:
        empty = Message("assistant", "", Source.POLICY, () if self._line.way.tokens else None)
        return Completion(empty, "context", self.name, Usage(), () if params.logprobs else None)


def room_left(refused: Refused) -> int | None:
    """Tokens that an answer may still have, where a refusal says that prompt and answer do not fit
    the context; 0 where the prompt alone does not, or the server gives no numbers. None: it was
    refused for another reason."""
    if refused.status not in (400, 413, 422) or not (
        _OVERFLOW.search(refused.text) or _OVERFLOW.search(refused.code)
    ):
        return None
    limit, prompt = _LIMIT.search(refused.text), _PROMPT.search(refused.text)
    if not limit or not prompt:
        return 0
    return max(0, int(limit[1]) - int(prompt[1] or prompt[2]))


def open_served(
    settings: OpenAIConfig,
    model: Listed,
    name: str,
    chat: ChatFormat | None,
    max_context: int | None = None,
) -> OpenAIPolicy:
    """Probe a served model and make a policy of it, called `name` in records. `chat` is the format
    of its own tokenizer; None: messages and text. Waits; call it outside any event loop.

    Raises UsageError for a server that does not answer, lets us not in, does not have the model,
    does not draw, or gives no token ids where `settings.tokens` requires them."""
    server = connect(settings)
    try:
        return server.do_now(_open(server, settings.tokens, model, name, chat, max_context))
    except Refused as refused:
        error = server.explain(refused, model.id)
        disconnect(server)
        raise error from None
    except PolicyError as error:
        disconnect(server)
        raise UsageError(f"the model {model.id!r} cannot be used: {error}") from None
    except BaseException:
        disconnect(server)
        raise


async def _open(
    server: Server,
    tokens: str,
    model: Listed,
    name: str,
    chat: ChatFormat | None,
    max_context: int | None,
) -> OpenAIPolicy:
    line = await _choose_way(server, tokens, model, chat)
    prompt: Sequence[Any] = (
        chat.encode(QUESTION, True).ids if chat and line.way.tokens else QUESTION
    )

    async def ask(params: SamplingParams, n: int, seed: int) -> Reply:
        try:
            return line.way.read(await line.learn(params, n, seed, prompt), TOKENS, params)
        except Fault as fault:
            raise PolicyError(str(fault)) from None

    line.served_as = _same_model(
        (await ask(SamplingParams(max_new_tokens=TOKENS), 1, 0)).model, model.id, server.url
    )
    one_at_a_time = isinstance(line.way, LlamaTokens)
    where = f"{server.url} (model {model.id!r})"
    able = await probe(ask, where, tokens=line.way.tokens, one_at_a_time=one_at_a_time)
    _tell(where, line, able)
    contexts = [size for size in (model.context, max_context) if size is not None]
    return OpenAIPolicy(
        line,
        name,
        chat if line.way.tokens else None,
        able,
        min(contexts, default=None),
        model.owner,
    )


def _same_model(answered: str, asked: str, url: str) -> str:
    """A server may answer by a longer name (a dated version of an alias), but not by another
    one."""
    if answered and not answered.startswith(asked):
        raise UsageError(
            f"{url} was asked for the model {asked!r} and answered as {answered[:80]!r}: set policy.openai.model"
        )
    return answered


async def _choose_way(server: Server, wanted: str, model: Listed, chat: ChatFormat | None) -> Line:
    reason = "the run's tokenizer is not there (model.name)"
    if wanted != "none" and chat is not None:
        way: Way = (
            LlamaTokens(model.id, chat) if model.owner == "llamacpp" else VllmTokens(model.id, chat)
        )
        line = Line(server, way)
        reason = await _why_no_tokens(line, chat)
        if not reason:
            return line
    if wanted == "require":
        raise UsageError(
            f'policy.openai.tokens = "require", but {server.url} (model {model.id!r}) cannot be asked by token ids: {reason}; '
            "use vllm serve or llama.cpp's server with the run's weights, or tokens = \"auto\""
        )
    if wanted == "auto":
        log.warning(
            "%s (model %r): messages and text, no token ids: %s", server.url, model.id, reason
        )
    return Line(server, Chat(model.id, LLAMA_SAMPLERS if model.owner == "llamacpp" else None))


async def _why_no_tokens(line: Line, chat: ChatFormat) -> str:
    """Why not; empty if ids go in and out, and mean the same there as in our tokenizer."""
    prompt, params = chat.encode(QUESTION, True).ids, SamplingParams(max_new_tokens=TOKENS)
    try:
        tree = await line.learn(params, 1, 0, prompt)
        reply = line.way.read(tree, TOKENS, params)
    except Refused as refused:
        if refused.status in (401, 402, 403) or refused.code == "model_not_found":
            raise
        return f"it refuses them ({refused})"
    except Fault as fault:
        return str(fault)
    answer, said = reply.answers[0], line.way.text(tree)
    if reply.prompt_tokens not in (None, len(prompt)):
        return f"it reads {reply.prompt_tokens} tokens where {len(prompt)} were sent"
    if said.strip("\ufffd \n") != answer.text.strip("\ufffd \n"):
        return f"its tokenizer is another one: what it calls {said[:40]!r} is {answer.text[:40]!r} in the run's"
    return ""


def _tell(where: str, line: Line, able: Capabilities) -> None:
    """What a user should know about a server before the run goes on."""
    if not able.seeds:
        log.warning("%s ignores seeds: a repeated or resumed run draws other answers", where)
    if not able.greedy:
        log.warning("%s does not honour temperature 0", where)
    if left_out := line.left_out - {"seed"}:
        log.warning(
            "%s does not take %s: it may cut off the distribution unseen",
            where,
            ", ".join(sorted(left_out)),
        )
    log.info("%s: %s, %s", where, line.way.name, able)
