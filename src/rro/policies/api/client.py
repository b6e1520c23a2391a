"""The HTTP client for one server that speaks OpenAI's API: connections, key, time-outs, retries,
limit of concurrent requests, account of failures.

Knows JSON and HTTP, but no tokens and no messages. Its event loop runs in a thread of its own, so
the connections outlive the callers' loops (each stage of a run has its own), and two policies can
share them."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

from rro.errors import PolicyError, RroError, UsageError
from rro.policies.api.backoff import AdaptiveLimit, TransientError, backoff, parse_retry_after
from rro.policies.api.loop_thread import LoopThread
from rro.policies.api.settings import OpenAIConfig

T = TypeVar("T")
log = logging.getLogger(__name__)

# seconds; a server that asks for a longer wait counts as gone
_LONGEST_RETRY_AFTER = 600.0
# and every status from 500 on, except 501 and 505
_TRANSIENT = {408, 409, 425, 429}
_OUT_OF_CREDIT = {"insufficient_quota", "billing_hard_limit_reached"}


class RequestRejected(Exception):
    """The server rejects a request and would reject it again: its `status`, its message (`text`),
    its error code or type, and the other `fields` of its error."""

    def __init__(
        self, status: int, text: str, code: str = "", fields: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(f"{status}: {text}")
        self.status, self.text, self.code, self.fields = status, text, code, fields or {}


class ApiClient:
    """Sends requests to `settings.base_url`. Made by `connect`; call `disconnect` as often.

    `limit` is the current limit of concurrent requests, `thread` runs requests from anywhere.
    Raises UsageError if base_url is no http(s) address, the key has unprintable characters, or
    httpx2 is not installed."""

    def __init__(self, settings: OpenAIConfig) -> None:
        self.settings, self.url = settings, settings.base_url.rstrip("/")
        self.failures: Counter[str] = Counter()
        self.requests = self.given_up = 0
        self.limit = AdaptiveLimit(settings.concurrency)
        self._key = _key(settings.key_variable)
        # of waits alone: no result depends on it
        self._rng = random.Random()
        self._client = self._make_client()
        self.thread = LoopThread(f"the connection to {self.url}")

    @property
    def root(self) -> str:
        """Where the server's own paths begin, those that are not OpenAI's."""
        return self.url.removesuffix("/v1")

    async def request(
        self,
        path: str,
        body: Mapping[str, Any] | None,
        read: Callable[[Any], T],
        retries: int | None = None,
    ) -> T:
        """POST `body` (None: GET) and return `read` of the answer's JSON; in the client's loop.
        Transient errors, also those of `read`, are retried `retries` times (None: as the settings
        say). Raises PolicyError after that, RequestRejected for what no retry helps."""
        self.requests += 1
        retries = self.settings.retries if retries is None else retries
        for attempt in range(retries + 1):
            try:
                async with self.limit.slot():
                    return read(await self._send(path, body))
            except TransientError as error:
                self.failures[error.kind] += 1
                log.debug("%s%s, attempt %d: %s", self.url, path, attempt + 1, error)
                if attempt == retries or (error.retry_after or 0) > _LONGEST_RETRY_AFTER:
                    self.given_up += 1
                    raise PolicyError(
                        f"{self.url} did not answer in {attempt + 1} attempts: {error}"
                    ) from None
                await asyncio.sleep(max(error.retry_after or 0.0, backoff(attempt, self._rng)))
        raise AssertionError("unreachable")

    def account(self) -> str:
        """One sentence: how many requests there were, and what failed."""
        kinds = ", ".join(f"{kind} {count}" for kind, count in self.failures.most_common())
        return (
            f"{self.url}: {self.requests} requests; {self.failures.total()} attempts failed"
            + (f" ({kinds})" if kinds else "")
            + f"; {self.given_up} requests given up; at least {self.limit.lowest} allowed at once"
        )

    def close(self) -> None:
        """Cancel what is in flight, end the connections and the thread."""
        if self.thread.close(self._client.aclose) and self.failures:
            log.warning("%s", self.account())

    def explain(self, rejected: RequestRejected, model: str) -> RroError:
        """The error for a rejected request: where, why, and how the user can fix it."""
        where, variable = f"{self.url} (model {model!r})", self.settings.key_variable
        if rejected.status in (401, 403):
            return UsageError(
                f"{where} does not accept our credentials ({rejected}): "
                f"{'check' if self._key else 'set'} the key in the environment variable {variable}"
            )
        if rejected.status == 404:
            return UsageError(
                f"{where} has no such model or address ({rejected}): check policy.openai.base_url "
                "and policy.openai.model"
            )
        if rejected.status == 402 or rejected.code in _OUT_OF_CREDIT:
            return RroError(
                f"{where} has no credit left ({rejected}): top up the account, then resume the run"
            )
        return RroError(
            f"{where} rejects the request ({rejected}): check the settings of policy and "
            "policy.openai"
        )

    # -- below: one attempt

    async def _send(self, path: str, body: Mapping[str, Any] | None) -> Any:
        import httpx2

        method, url = "GET" if body is None else "POST", self.url + path
        url = path if path.startswith("http") else url
        try:
            # of the whole request: a server may also send slowly
            async with asyncio.timeout(self.settings.timeout):
                response = await self._client.request(method, url, json=body)
        except (TimeoutError, httpx2.TimeoutException):
            text = f"no answer within {self.settings.timeout:g} s"
            raise TransientError("time-out", text, overload=True) from None
        except httpx2.TransportError as error:
            text = self._clean(f"{type(error).__name__}: {error}")
            raise TransientError("connection", text) from None
        if response.status_code // 100 != 2:
            raise self._failure(response)
        try:
            return response.json()
        except (ValueError, RecursionError):
            text = f"invalid JSON: {self._clean(response.text[:80])!r}"
            raise TransientError("invalid JSON", text) from None

    def _failure(self, response: Any) -> Exception:
        status, (text, code, fields) = response.status_code, _reason(response)
        text = self._clean(text)
        transient = status in _TRANSIENT or (status >= 500 and status not in (501, 505))
        if code in _OUT_OF_CREDIT or not transient:
            return RequestRejected(status, text, code, fields)
        wait = parse_retry_after(response.headers.get("retry-after"))
        return TransientError(
            str(status), f"{status} {text}", overload=status in (429, 503), retry_after=wait
        )

    def _clean(self, text: str) -> str:
        """A server's message as one short line without the key, which some servers repeat."""
        text = " ".join(text.split())
        return (text.replace(self._key, "[key]") if self._key else text)[:300]

    def _make_client(self) -> Any:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(
                "policy.openai.base_url must be an http(s) address, such as "
                f"{OpenAIConfig().base_url}"
            )
        try:
            import httpx2
        except ImportError:
            raise UsageError(
                'policy.backend = "openai" needs httpx2: pip install "rro[openai]"'
            ) from None
        limit = self.settings.concurrency
        return httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx2.Timeout(self.settings.timeout, connect=min(10.0, self.settings.timeout)),
            limits=httpx2.Limits(max_connections=limit, max_keepalive_connections=limit),
            # proxies are for other machines
            trust_env=parts.hostname not in ("localhost", "127.0.0.1", "::1"),
        )


def _key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UsageError(
            f"the environment variable {variable} does not hold a key: it has odd characters"
        )
    return key


def _reason(response: Any) -> tuple[str, str, Mapping[str, Any]]:
    """The text, the code and the other fields of a server's error, from where servers put them."""
    try:
        tree = response.json()
    except (ValueError, RecursionError):
        return response.text or response.reason_phrase, "", {}
    error = tree.get("error", tree) if isinstance(tree, dict) else tree
    if not isinstance(error, dict):
        return str(error), "", {}
    text = error.get("message") or error.get("detail") or error
    codes = [str(error[key]) for key in ("code", "type") if error.get(key)]
    return str(text), next((code for code in codes if not code.isdigit()), ""), error


_clients: dict[str, tuple[ApiClient, int]] = {}
_lock = threading.Lock()


def connect(settings: OpenAIConfig) -> ApiClient:
    """The client with these settings, new or another policy's. Call `disconnect` afterwards."""
    # a client reads none of the excluded ones
    key = settings.model_dump_json(exclude={"model", "models", "tokens"})
    with _lock:
        client, users = _clients.get(key) or (ApiClient(settings), 0)
        _clients[key] = (client, users + 1)
    return client


def disconnect(client: ApiClient) -> None:
    """Count one user less; the last one closes the client."""
    with _lock:
        for key, (known, users) in list(_clients.items()):
            if known is client and users > 1:
                _clients[key] = (client, users - 1)
                return
            if known is client:
                del _clients[key]
    client.close()
