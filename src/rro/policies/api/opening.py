"""Opens a served model as a policy: chooses the dialect and probes what the server can do.

Knows how to find out, not how requests are made or sent."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from rro.config import ModelConfig
from rro.errors import PolicyError, UsageError
from rro.models.chat import ChatFormat
from rro.policies.api.backoff import TransientError
from rro.policies.api.capabilities import QUESTION, TOKENS, Capabilities, probe
from rro.policies.api.client import ApiClient, RequestRejected, connect, disconnect
from rro.policies.api.dialects import (
    LLAMA_SAMPLERS,
    NEUTRAL,
    Chat,
    Dialect,
    LlamaTokens,
    Reply,
    SamplingRequest,
    VllmTokens,
)
from rro.policies.api.endpoint import Endpoint, ServedModel
from rro.policies.api.policy import OpenAIPolicy
from rro.policies.api.settings import OpenAIConfig
from rro.types import SamplingParams

log = logging.getLogger(__name__)


def open_served(
    settings: OpenAIConfig,
    model: ServedModel,
    name: str,
    chat: ChatFormat | None,
    max_context: int | None = None,
    template: ModelConfig | None = None,
) -> OpenAIPolicy:
    """Probe a served model and return a policy of it, called `name` in records. `chat` is the
    format of its own tokenizer (None: messages and text). `max_context` bounds the tokens of prompt
    and answer together, where token ids go in; `template` has the variables of the server's own
    chat template, where messages go in. Waits, so call it outside any event loop.

    Raises UsageError if the server does not answer, does not accept our credentials, does not have
    the model, does not sample, or gives no token ids although `settings.tokens` requires them."""
    client = connect(settings)
    try:
        return client.thread.run_blocking(
            _open(client, settings.tokens, model, name, chat, max_context, template)
        )
    except BaseException as error:
        disconnect(client)
        if isinstance(error, RequestRejected):
            raise client.explain(error, model.id) from None
        if isinstance(error, PolicyError):
            raise UsageError(f"the model {model.id!r} cannot be used: {error}") from None
        raise


async def _open(
    client: ApiClient,
    tokens: str,
    model: ServedModel,
    name: str,
    chat: ChatFormat | None,
    max_context: int | None,
    template: ModelConfig | None,
) -> OpenAIPolicy:
    endpoint = await _choose_dialect(client, tokens, model, chat, template)
    dialect = endpoint.dialect
    prompt: Sequence[Any] = chat.encode(QUESTION, True).ids if chat and dialect.tokens else QUESTION

    async def ask(params: SamplingParams, n: int, seed: int) -> Reply:
        try:
            request = SamplingRequest(prompt, TOKENS, params, n, seed)
            return dialect.read(await endpoint.probe(request), request)
        except TransientError as error:
            raise PolicyError(str(error)) from None

    first = await ask(SamplingParams(max_new_tokens=TOKENS), 1, 0)
    endpoint.served_as = _check_model(first.model, model.id, client.url)
    capabilities = await probe(
        ask,
        endpoint.description,
        tokens=dialect.tokens,
        one_at_a_time=isinstance(dialect, LlamaTokens),
    )
    _warn(endpoint, capabilities)
    context = min((size for size in (model.context, max_context) if size is not None), default=None)
    own_chat = chat if dialect.tokens else None
    return OpenAIPolicy(endpoint, name, own_chat, capabilities, context, model.owner)


def _check_model(answered: str, asked: str, url: str) -> str:
    """The name in answers: `asked`, or longer (a dated alias). Raises UsageError for another."""
    if answered and not answered.startswith(asked):
        raise UsageError(
            f"{url} was asked for the model {asked!r} and answered as {answered[:80]!r}: set "
            "policy.openai.model"
        )
    return answered


async def _choose_dialect(
    client: ApiClient,
    wanted: str,
    model: ServedModel,
    chat: ChatFormat | None,
    template: ModelConfig | None,
) -> Endpoint:
    """Token ids where `wanted` (policy.openai.tokens) allows them and the server can, else chat."""
    llama = model.owner == "llamacpp"
    reason = "the run's tokenizer is unavailable (model.name)"
    if wanted != "none" and chat is not None:
        dialect: Dialect = LlamaTokens(model.id, chat) if llama else VllmTokens(model.id, chat)
        endpoint = Endpoint(client, dialect)
        reason = await _why_no_tokens(endpoint, chat)
        if not reason:
            return endpoint
    extras: dict[str, Any] = dict(LLAMA_SAMPLERS) if llama else {}
    if template is not None and template.chat_template_kwargs:
        extras["chat_template_kwargs"] = template.chat_template_kwargs
    drops = template is not None and template.thoughts == "drop"
    fallback = Endpoint(client, Chat(model.id, extras, drops))
    if wanted == "require":
        raise UsageError(
            f'policy.openai.tokens = "require", but {fallback.description} cannot be asked by '
            f"token ids: {reason}; use vllm serve or llama.cpp's server with the run's weights, or "
            'set policy.openai.tokens = "auto"'
        )
    if wanted == "auto":
        log.warning("%s: messages and text, no token ids: %s", fallback.description, reason)
    return fallback


async def _why_no_tokens(endpoint: Endpoint, chat: ChatFormat) -> str:
    """Why the server cannot be asked by token ids; "" if it takes them, gives them, and its
    tokenizer is ours."""
    prompt, params = chat.encode(QUESTION, True).ids, SamplingParams(max_new_tokens=TOKENS)
    request = SamplingRequest(prompt, TOKENS, params)
    try:
        tree = await endpoint.probe(request)
        reply = endpoint.dialect.read(tree, request)
    except RequestRejected as rejected:
        if rejected.status in (401, 402, 403) or rejected.code == "model_not_found":
            raise
        return f"it rejects them ({rejected})"
    except TransientError as error:
        return str(error)
    ours, server_text = reply.answers[0].text, endpoint.dialect.text(tree)
    if reply.prompt_tokens not in (None, len(prompt)):
        return f"it reads {reply.prompt_tokens} tokens where {len(prompt)} were sent"
    if server_text.strip("\ufffd \n") != ours.strip("\ufffd \n"):
        return (
            f"it has another tokenizer: what it decodes to {server_text[:40]!r} is {ours[:40]!r} "
            "by the run's"
        )
    return ""


def _warn(endpoint: Endpoint, capabilities: Capabilities) -> None:
    """Log what a user should know of a server before the run goes on."""
    where = endpoint.description
    if not capabilities.seeds:
        log.warning("%s ignores seeds: a repeated or resumed run draws other answers", where)
    if not capabilities.greedy:
        log.warning("%s does not honour temperature 0", where)
    if left_out := endpoint.left_out - {"seed"}:
        names = ", ".join(sorted(left_out))
        effect = "it may truncate the distribution" if left_out & NEUTRAL.keys() else "left out"
        log.warning("%s does not accept %s: %s", where, names, effect)
    log.info("%s: %s, %s", where, endpoint.dialect.name, capabilities)
