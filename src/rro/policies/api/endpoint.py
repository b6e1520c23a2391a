"""One served model as an endpoint: what to send, what to leave out, and which models there are.

Knows dialects and the HTTP client, neither policies nor what a server is able to do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from rro.errors import PolicyError, UsageError
from rro.policies.api.backoff import TransientError
from rro.policies.api.client import ApiClient, RequestRejected
from rro.policies.api.dialects import OPTIONAL, Chat, Dialect, Reply, SamplingRequest

T = TypeVar("T")

# of a request, while it is found out whether a server can be used at all
PROBE_RETRIES = 2


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that a server lists: its name, the kind of server ("vllm", "llamacpp", ...; "" if
    unknown), and its context in tokens (None if unknown)."""

    id: str
    owner: str = ""
    context: int | None = None


def list_models(client: ApiClient) -> list[ServedModel]:
    """The models that a server lists; empty if it has no list. Waits. Raises UsageError if no
    server answers."""

    def read(tree: Any) -> list[ServedModel]:
        rows = tree.get("data") if isinstance(tree, dict) else None
        rows = [row for row in rows or () if isinstance(row, dict)]
        return [_served_model(row) for row in rows if isinstance(row.get("id"), str)]

    retries = min(PROBE_RETRIES, client.settings.retries)
    try:
        return client.thread.run_blocking(client.request("/models", None, read, retries))
    except RequestRejected as rejected:
        if rejected.status in (404, 405, 501):
            return []
        raise client.explain(rejected, "any") from None
    except PolicyError as error:
        raise UsageError(
            f"no server answers: {error}; start it, or set policy.openai.base_url"
        ) from None


def _served_model(row: Mapping[str, Any]) -> ServedModel:
    meta = row.get("meta") if isinstance(row.get("meta"), dict) else {}
    context = row.get("max_model_len") or (meta or {}).get("n_ctx")
    known_context = context if type(context) is int and 0 < context < 2**31 else None
    return ServedModel(row["id"], str(row.get("owned_by") or "")[:80], known_context)


@dataclass
class Endpoint:
    """One model on one server, and the dialect to ask it in. `served_as`: what it calls the model
    in its answers ("": unknown)."""

    client: ApiClient
    dialect: Dialect
    served_as: str = ""

    @property
    def left_out(self) -> set[str]:
        """The optional fields that the server does not accept for this model."""
        return self.client.left_out.setdefault(f"{self.dialect.model}, {self.dialect.name}", set())

    async def sample(self, request: SamplingRequest) -> Reply:
        """The answers to a request; in the client's loop. Raises as `ApiClient.request` does."""

        def read(tree: Any) -> Reply:
            reply = self.dialect.read(tree, request)
            if self.served_as and reply.model and reply.model != self.served_as:
                raise TransientError(
                    "wrong model",
                    f"the answer is of the model {reply.model[:80]!r}, not {self.served_as!r}",
                )
            if len(reply.answers) != request.n:
                raise TransientError(
                    "incomplete answer", f"{len(reply.answers)} answers of {request.n}"
                )
            if any(self.client.secret.inside(answer.text) for answer in reply.answers):
                raise TransientError("our key", "the answer repeats our key")
            return reply

        return await self._ask(request, read, None)

    async def probe(self, request: SamplingRequest) -> Any:
        """The response to a request, as JSON, while nothing is known of the server."""
        retries = min(PROBE_RETRIES, self.client.settings.retries)
        return await self._ask(request, lambda tree: tree, retries)

    async def _ask(
        self, request: SamplingRequest, read: Callable[[Any], T], retries: int | None
    ) -> T:
        """Send a request. Of the optional fields that a rejection names, one at a time is left out
        from now on; it is put back if the rejection stays the same."""
        suspects, trial, said = list[str](), "", ""
        for _ in range(3 * len(OPTIONAL)):
            body = self._body(request)
            # of answers in JSON with log-probabilities, and of the prompt, which some repeat
            most = 2**20 + 8 * len(json.dumps(body)) + 2**10 * request.limit * request.n
            try:
                return await self.client.request(self.path, body, read, retries, most)
            except RequestRejected as rejected:
                if self._rename_limit(rejected, body) or self._body(request) != body:
                    # another request has found out meanwhile
                    continue
                if trial and _without_numbers(rejected.text) == said:
                    self.left_out.discard(trial)
                else:
                    suspects = _suspects(rejected, body)
                if not suspects:
                    raise
                said, trial = _without_numbers(rejected.text), suspects.pop(0)
                self.left_out.add(trial)
        raise PolicyError(f"{self.description} rejects each form of a request")

    @property
    def path(self) -> str:
        """Where requests go: after base_url, or a whole address."""
        return self.client.root + self.dialect.path if self.dialect.at_root else self.dialect.path

    @property
    def description(self) -> str:
        """The server and the model, for messages."""
        return f"{self.client.url} (model {self.dialect.model!r})"

    def _body(self, request: SamplingRequest) -> dict[str, Any]:
        body = self.dialect.body(request)
        return {key: value for key, value in body.items() if key not in self.left_out}

    def _rename_limit(self, rejected: RequestRejected, body: Mapping[str, Any]) -> bool:
        """Whether the server has another name for the limit of an answer."""
        if not isinstance(self.dialect, Chat) or "max_tokens" not in body:
            return False
        if "max_completion_tokens" not in rejected.text:
            return False
        self.dialect.limit_name = "max_completion_tokens"
        return True


def _without_numbers(text: str) -> str:
    """A rejection without its numbers and its request's id."""
    return re.sub(r"[\w-]*\d[\w-]*", "#", text)


def _suspects(rejected: RequestRejected, body: Mapping[str, Any]) -> list[str]:
    """The optional fields of a request that its rejection names, the most probable first."""
    if rejected.status not in (400, 422):
        return []
    optional = [
        name for name, neutral in OPTIONAL.items() if name in body and neutral in (None, body[name])
    ]
    if rejected.param in optional:
        return [rejected.param]
    places = {name: re.search(rf"\b{name}\b", rejected.text) for name in optional}
    named = [name for name in optional if places[name]]
    # "temperature and top_p cannot both be specified": top_p is needed less often
    both = {"temperature", "top_p"} <= set(named)
    return sorted(
        named,
        key=lambda name: (both and name == "temperature", places[name].start()),  # type: ignore
    )
