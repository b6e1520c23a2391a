"""A connection to one server that speaks OpenAI's API: pool, key, time limits, retries,
concurrency, account of faults.

Knows JSON and HTTP, neither tokens nor messages. It has an event loop in a thread of its own, so
that the pool outlives the callers' loops (each stage of a run has its own) and two policies can
share it."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

from rro.config import OpenAIConfig
from rro.errors import PolicyError, RroError, UsageError
from rro.policies.api.backoff import AdaptiveLimit, Fault, backoff, parse_retry_after
from rro.policies.api.loop_thread import LoopThread

T = TypeVar("T")
log = logging.getLogger(__name__)

_PATIENCE = 600.0  # seconds; a server that asks for a longer wait is as good as gone
_AGAIN = {408, 409, 425, 429}  # and all from 500 on but 501 and 505
_OUT_OF_CREDIT = {"insufficient_quota", "billing_hard_limit_reached"}


class Refused(Exception):
    """The server says no and would say so again: `status`, its own words (`text`), and its error
    code or type."""

    def __init__(
        self, status: int, text: str, code: str = "", fields: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(f"{status}: {text}")
        self.status, self.text, self.code, self.fields = status, text, code, fields or {}


class Server:
    """Requests to `settings.base_url`. From `connect`; `close` it as often as it was connected.

    Raises UsageError for a base_url that holds credentials, is no http(s) address, or where httpx2
    is not installed."""

    def __init__(self, settings: OpenAIConfig) -> None:
        self.settings, self.url = settings, settings.base_url.rstrip("/")
        self.faults: Counter[str] = Counter()
        self.requests = self.given_up = 0
        self._key = _key(settings.key_variable)
        self._rng = random.Random()  # of waits alone: no result depends on it
        self.limit = AdaptiveLimit(settings.concurrency)
        self._client = self._make_client()
        self._thread = LoopThread(f"the connection to {self.url}")

    @property
    def root(self) -> str:
        """Where the server's own paths begin, those that are not OpenAI's."""
        return self.url.removesuffix("/v1")

    async def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` in the server's loop, from a coroutine in any other."""
        return await self._thread.do(work)

    def do_now(self, work: Coroutine[Any, Any, T]) -> T:
        """The same for a caller without a loop: waits."""
        return self._thread.do_now(work)

    async def ask(
        self,
        path: str,
        body: Mapping[str, Any] | None,
        read: Callable[[Any], T],
        retries: int | None = None,
    ) -> T:
        """POST `body` (GET where it is None) and `read` the answer's JSON; in the server's loop.

        What may pass is tried again, also where `read` raises a Fault. Raises PolicyError when the
        tries are used up, Refused or RroError for what would not pass."""
        self.requests += 1
        retries = self.settings.retries if retries is None else retries
        for attempt in range(retries + 1):
            try:
                async with self.limit.slot():
                    return read(await self._once(path, body))
            except Fault as fault:
                self.faults[fault.kind] += 1
                log.debug("%s%s, try %d: %s", self.url, path, attempt + 1, fault)
                if attempt == retries or (fault.retry_after or 0) > _PATIENCE:
                    self.given_up += 1
                    raise PolicyError(
                        f"{self.url} did not answer in {attempt + 1} tries: {fault}"
                    ) from None
                await asyncio.sleep(max(fault.retry_after or 0.0, backoff(attempt, self._rng)))
        raise AssertionError("unreachable")

    def account(self) -> str:
        """One sentence: what was asked and what went wrong."""
        wrong = ", ".join(f"{kind} {count}" for kind, count in self.faults.most_common())
        return (
            f"{self.url}: {self.requests} requests; {self.faults.total()} tries failed"
            + (f" ({wrong})" if wrong else "")
            + f"; {self.given_up} requests given up; never fewer than {self.limit.lowest} allowed at once"
        )

    def shut(self) -> None:
        """End what is in flight, the connections and the thread."""
        if not self._thread.refuse():
            return
        self._thread.stop(self._client.aclose())
        if self.faults:
            log.warning("%s", self.account())

    def explain(self, refused: Refused, model: str) -> RroError:
        """The error for a refusal that the user must mend."""
        where, variable = f"{self.url} (model {model!r})", self.settings.key_variable
        if refused.status in (401, 403):
            mend = (
                f"check the key in the environment variable {variable}"
                if self._key
                else f"set the key in {variable}"
            )
            return UsageError(f"{where} does not let us in ({refused}): {mend}")
        if refused.status == 404:
            return UsageError(
                f"{where} has no such model or address ({refused}): check policy.openai.base_url and .model"
            )
        if refused.status == 402 or refused.code in _OUT_OF_CREDIT:
            return RroError(
                f"{where} wants to be paid ({refused}): top up the account, then resume the run"
            )
        return RroError(
            f"{where} refuses the request ({refused}): check the settings of policy and policy.openai"
        )

    # -- below: one try

    async def _once(self, path: str, body: Mapping[str, Any] | None) -> Any:
        import httpx2

        url = path if path.startswith("http") else self.url + path
        try:
            async with asyncio.timeout(
                self.settings.timeout
            ):  # the whole of it: a server may also drip
                response = await self._client.request(
                    "GET" if body is None else "POST", url, json=body
                )
        except (TimeoutError, httpx2.TimeoutException):
            text = f"no answer within {self.settings.timeout:g} s"
            raise Fault("time-out", text, overload=True) from None
        except httpx2.TransportError as error:
            raise Fault("connection", self._clean(f"{type(error).__name__}: {error}")) from None
        if response.status_code // 100 != 2:
            raise self._failure(response)
        try:
            return response.json()
        except (ValueError, RecursionError):
            raise Fault(
                "invalid JSON", f"invalid JSON: {self._clean(response.text[:80])!r}"
            ) from None

    def _failure(self, response: Any) -> Exception:
        status, (text, code, fields) = response.status_code, _reason(response)
        text = self._clean(text)
        passing = status in _AGAIN or (status >= 500 and status not in (501, 505))
        if code in _OUT_OF_CREDIT or not passing:
            return Refused(status, text, code, fields)
        wait = parse_retry_after(response.headers.get("retry-after"))
        return Fault(
            str(status), f"{status} {text}", overload=status in (429, 503), retry_after=wait
        )

    def _clean(self, text: str) -> str:
        """A server's words for a message: one short line that does not hold the key."""
        text = " ".join(text.split())
        return (text.replace(self._key, "[key]") if self._key else text)[:300]

    def _make_client(self) -> Any:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(
                f"policy.openai.base_url must be an http(s) address, such as {OpenAIConfig().base_url}"
            )
        try:
            import httpx2
        except ImportError:
            raise UsageError(
                'policy.backend = "openai" needs httpx2: pip install "rro[openai]"'
            ) from None
        most = self.settings.concurrency
        return httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx2.Timeout(self.settings.timeout, connect=min(10.0, self.settings.timeout)),
            limits=httpx2.Limits(max_connections=most, max_keepalive_connections=most),
            trust_env=parts.hostname
            not in ("localhost", "127.0.0.1", "::1"),  # proxies are for what is far away
        )


def _key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UsageError(
            f"the environment variable {variable} does not hold a key: there are odd characters in it"
        )
    return key


def _reason(response: Any) -> tuple[str, str, Mapping[str, Any]]:
    """What a server says in an error: its text, its code, and the rest. Servers put it in four
    different places."""
    try:
        tree = response.json()
    except (ValueError, RecursionError):
        return response.text or response.reason_phrase, "", {}
    error = tree.get("error", tree) if isinstance(tree, dict) else tree
    if not isinstance(error, dict):
        return str(error), "", {}
    text = error.get("message") or error.get("detail") or error
    names = [str(error[key]) for key in ("code", "type") if error.get(key)]
    return str(text), next((name for name in names if not name.isdigit()), ""), error


_shared: dict[str, tuple[Server, int]] = {}
_lock = threading.Lock()


def connect(settings: OpenAIConfig) -> Server:
    """The connection with these settings: a new one, or the one that another policy has already."""
    name = settings.model_dump_json(
        exclude={"model", "models", "tokens"}
    )  # a Server reads none of these
    with _lock:
        server, users = _shared.get(name) or (Server(settings), 0)
        _shared[name] = (server, users + 1)
    return server


def disconnect(server: Server) -> None:
    """One user less; the last one closes the connection."""
    with _lock:
        for name, (known, users) in list(_shared.items()):
            if known is server and users > 1:
                _shared[name] = (server, users - 1)
                return
            if known is server:
                del _shared[name]
    server.shut()
