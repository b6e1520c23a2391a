"""The HTTP client for one server that speaks OpenAI's API: connections, key, time-outs, retries,
limit of concurrent requests, account of failures.

Knows JSON and HTTP, but no tokens and no messages. Its event loop runs in a thread of its own, so
the connections outlive the callers' loops (each stage of a run has its own), and two policies can
share them."""

from __future__ import annotations

import json
import logging
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

from rro.errors import PolicyError, RroError, UsageError
from rro.loop_thread import LoopThread
from rro.policies.api.backoff import (
    AdaptiveLimit,
    Patience,
    TransientError,
    backoff,
    parse_retry_after,
)
from rro.policies.api.outage import UNREACHABLE, Outage
from rro.policies.api.secret import Secret
from rro.policies.api.settings import OpenAIConfig
from rro.policies.api.transport import BodyError, Response, exchange, make_client

T = TypeVar("T")
log = logging.getLogger(__name__)

# bytes of an answer, where a request says nothing else
MOST_BYTES = 2**24
# and every status from 500 on, except 501 and 505
_TRANSIENT = {408, 409, 425, 429}
_OUT_OF_CREDIT = {"insufficient_quota", "billing_hard_limit_reached"}


class RequestRejected(Exception):
    """The server rejects a request and would reject it again: its `status`, its message (`text`),
    its error code or type, and the field of the request that it names (`param`)."""

    def __init__(self, status: int, text: str, code: str = "", param: str = "") -> None:
        super().__init__(f"{status}: {text}")
        self.status, self.text, self.code, self.param = status, text, code, param


class ApiClient:
    """Sends requests to `settings.base_url`. Made by `connect`; call `disconnect` as often.

    `limit` is the current limit of concurrent requests, `thread` runs requests from anywhere.
    Raises UsageError if base_url is no http(s) address, the key has unprintable characters, or
    httpx2 is not installed."""

    def __init__(self, settings: OpenAIConfig) -> None:
        self.settings, self.url = settings, settings.base_url.rstrip("/")
        self.failures: Counter[str] = Counter()
        self.requests = self.given_up = 0
        self._outage = Outage(self.url, settings.outage)
        self.limit = AdaptiveLimit(settings.concurrency)
        # by model and dialect, the fields of requests that the server does not accept
        self.left_out: dict[str, set[str]] = {}
        self._key = _key(settings.key_variable)
        self.secret = Secret(self._key)
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
        most_bytes: int = MOST_BYTES,
    ) -> T:
        """POST `body` (None: GET) and return `read` of the answer's JSON; in the client's loop.
        Transient errors, also those of `read`, are retried `retries` times (None: as the settings
        say), as long as there is patience left. Raises PolicyError after that, RequestRejected for
        what no retry helps. An answer has at most `most_bytes`."""
        self.requests += 1
        patience = Patience(self.settings.patience)
        retries = self.settings.retries if retries is None else retries
        for attempt in range(retries + 1):
            try:
                return await self._reached(path, body, read, most_bytes, patience)
            except TransientError as error:
                self.failures[error.kind] += 1
                log.debug("%s%s, attempt %d: %s", self.url, path, attempt + 1, error)
                wait = max(error.retry_after or 0.0, backoff(attempt, self._rng))
                if attempt == retries or not await patience.wait(wait):
                    self.given_up += 1
                    raise PolicyError(
                        f"{self.url} did not answer in {attempt + 1} attempts: {error}"
                    ) from None
        raise AssertionError("unreachable")

    async def _reached(
        self,
        path: str,
        body: Mapping[str, Any] | None,
        read: Callable[[Any], T],
        most_bytes: int,
        patience: Patience,
    ) -> T:
        """One attempt, after the end of an outage if there is one."""
        while True:
            try:
                async with self.limit.slot(patience):
                    return _read(await self._send(path, body, most_bytes), read)
            except TransientError as error:
                if error.kind != UNREACHABLE or not self._outage.counts:
                    raise
                await self._outage.wait(str(error))

    def account(self) -> str:
        """One sentence: how many requests there were, what failed, and what was left out."""
        left_out = [f"{', '.join(sorted(n))} ({of})" for of, n in self.left_out.items() if n]
        kinds = ", ".join(f"{kind} {count}" for kind, count in self.failures.most_common())
        return (
            f"{self.url}: {self.requests} requests; {self.failures.total()} attempts failed"
            + (f" ({kinds})" if kinds else "")
            + f"; {self.given_up} requests given up; at least {self.limit.lowest} allowed at once"
            + (f"; not accepted, so left out: {'; '.join(left_out)}" if left_out else "")
        )

    def close(self) -> None:
        """Cancel what is in flight, end the connections and the thread."""
        if self.thread.close(self._client.aclose) and (
            self.failures or any(self.left_out.values())
        ):
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

    async def _send(self, path: str, body: Mapping[str, Any] | None, most_bytes: int) -> Any:
        import httpx2

        url, seconds = path if path.startswith("http") else self.url + path, self.settings.timeout
        try:
            # of the whole request: a server may also send slowly
            response = await exchange(self._client, url, body, seconds, most_bytes)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            text = self.secret.clean(f"{type(error).__name__}: {error}")
            raise TransientError(UNREACHABLE, text) from None
        except (TimeoutError, httpx2.TimeoutException):
            text = f"no answer within {seconds:g} s"
            raise TransientError("time-out", text, overload=True) from None
        except BodyError as error:
            raise TransientError("unreadable", self.secret.clean(str(error))) from None
        except (httpx2.TransportError, httpx2.InvalidURL) as error:
            text = self.secret.clean(f"{type(error).__name__}: {error}")
            raise TransientError("connection", text) from None
        self._outage.over()
        if response.status // 100 != 2:
            raise self._failure(response)
        try:
            tree = json.loads(response.body)
        except (ValueError, RecursionError):
            text = f"invalid JSON: {self.secret.clean(response.text)[:80]!r}"
            raise TransientError("invalid JSON", text) from None
        # here, where answers come in, so that no file can have it
        if self.secret and self.secret.inside("".join(_strings(tree))):
            raise TransientError("our key", "the answer repeats our key")
        return tree

    def _failure(self, response: Response) -> Exception:
        status, (text, code, fields) = response.status, _reason(response)
        text, code = self.secret.clean(text), self.secret.clean(code)
        transient = status in _TRANSIENT or (status >= 500 and status not in (501, 505))
        if code in _OUT_OF_CREDIT or not transient:
            return RequestRejected(status, text, code, str(fields.get("param") or "")[:40])
        wait = parse_retry_after(response.retry_after)
        return TransientError(
            str(status), f"{status} {text}", overload=status in (429, 503), retry_after=wait
        )

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
        return make_client(
            {"Authorization": f"Bearer {self._key}"} if self._key else {},
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


def _reason(response: Response) -> tuple[str, str, Mapping[str, Any]]:
    """The text, the code and the other fields of a server's error, from where servers put them."""
    try:
        tree = json.loads(response.body)
        # Google's come in a list
        tree = tree[0] if isinstance(tree, list) and len(tree) == 1 else tree
        error = tree.get("error", tree) if isinstance(tree, dict) else tree
        if not isinstance(error, dict):
            return str(error), "", {}
        text = error.get("message") or error.get("Message") or error.get("detail") or error
        codes = [str(error[key]) for key in ("code", "type") if error.get(key)]
        return str(text), next((code for code in codes if not code.isdigit()), ""), error
    except (ValueError, RecursionError):
        return response.text or response.reason, "", {}


def _strings(tree: Any) -> Iterator[str]:
    """All texts in a JSON value, in order; without recursion, as it may be nested deeply."""
    left = [tree]
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            left.extend(reversed(value.values()))
            yield from value
        elif isinstance(value, list):
            left.extend(reversed(value))


def _read(tree: Any, read: Callable[[Any], T]) -> T:
    try:
        return read(tree)
    except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise TransientError(
            "unreadable", f"the answer has another form: {type(error).__name__}"
        ) from None


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
