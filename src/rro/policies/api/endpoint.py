"""One served model as an endpoint: what to send, what to leave out, and which models there are.

Knows dialects and the HTTP client, neither policies nor what a server is able to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rro.errors import PolicyError, UsageError
from rro.policies.api.backoff import TransientError
from rro.policies.api.client import ApiClient, RequestRejected
from rro.policies.api.dialects import OPTIONAL, Chat, Dialect, Reply, SamplingRequest

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
    known_context = context if isinstance(context, int) else None
    return ServedModel(row["id"], str(row.get("owned_by") or ""), known_context)


@dataclass
class Endpoint:
    """One model on one server, and the dialect to ask it in. `left_out`: optional fields that the
    server does not accept. `served_as`: what it calls the model in its answers ("": unknown)."""

    client: ApiClient
    dialect: Dialect
    left_out: set[str] = field(default_factory=set)
    served_as: str = ""

    async def sample(self, request: SamplingRequest) -> Reply:
        """The answers to a request; in the client's loop. Raises as `ApiClient.request` does."""

        def read(tree: Any) -> Reply:
            reply = self.dialect.read(tree, request)
            if self.served_as and reply.model and reply.model != self.served_as:
                raise TransientError(
                    "wrong model",
                    f"the answer is of the model {reply.model[:80]!r}, not {self.served_as!r}",
                )
            if len(reply.answers) < request.n:
                raise TransientError(
                    "incomplete answer", f"{len(reply.answers)} answers of {request.n}"
                )
            return reply

        return await self.client.request(self.path, self._body(request), read)

    async def probe(self, request: SamplingRequest) -> Any:
        """The response to a request, as JSON, while nothing is known of the server: optional fields
        that it rejects are left out from now on."""
        retries = min(PROBE_RETRIES, self.client.settings.retries)
        while True:
            body = self._body(request)
            try:
                return await self.client.request(self.path, body, lambda tree: tree, retries)
            except RequestRejected as rejected:
                if not self._leave_out(rejected, body):
                    raise

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

    def _leave_out(self, rejected: RequestRejected, body: Mapping[str, Any]) -> bool:
        """Adapt to a rejection that names a field; False if it names none."""
        if rejected.status not in (400, 422):
            return False
        renamed = "max_completion_tokens" in rejected.text and "max_tokens" in body
        if renamed and isinstance(self.dialect, Chat):
            self.dialect.limit_name = "max_completion_tokens"
            return True
        named = {name for name in OPTIONAL if name in body and name in rejected.text}
        if "temperature" in rejected.text and body.get("temperature") == 1.0:
            # 1 is the only temperature that it has
            named.add("temperature")
        self.left_out |= named
        return bool(named)
