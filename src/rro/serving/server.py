"""An OpenAI-compatible endpoint in front of a policy, in a thread of this process: what
`rro serve-policy` runs, and what a script uses to learn from an agent that is not ours.

Loopback unless told otherwise; bodies, calls in flight, their time and what is kept are bounded.
Knows no run."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from rro.errors import UsageError, describe
from rro.policies.base import Policy
from rro.seeds import derive_seed
from rro.serving.answers import chat_answer, chat_events, error_body
from rro.serving.conversations import Conversations
from rro.serving.requests import read_request
from rro.types import SamplingParams

log = logging.getLogger(__name__)

HEADER = "x-conversation-id"
_LONGEST_NAME = 200


@dataclass(frozen=True)
class ServerLimits:
    """Bounds of a server: bytes of a body, calls in flight (more are answered with 429), seconds of
    a call (then 504), answers of one call, conversations kept in memory and calls of one."""

    body: int = 4 << 20
    in_flight: int = 256
    seconds: float = 300.0
    answers: int = 16
    conversations: int = 10_000
    calls: int = 500


class PolicyServer:
    """Serves a policy while its `with` block lasts.

    >>> with PolicyServer(policy) as server:
    ...     client = openai.OpenAI(base_url=server.url("task-7/0"), api_key="none")

    `url(name)` is the base address of one conversation; a client may also name it in the header
    `X-Conversation-Id` or in `user`, or leave it to the messages. `conversations` has what was
    drawn."""

    def __init__(
        self,
        policy: Policy,
        params: SamplingParams | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        seed: int = 0,
        drawn: int = 0,
        obey: bool = False,
        limits: ServerLimits | None = None,
        write: Callable[[str], None] | None = None,
    ) -> None:
        """`params`: how answers are drawn, whatever a client asks for, unless `obey`; a client's
        stop strings and lower limits of tokens always count. Port 0: any free one. `seed` and how
        many calls were answered decide what is drawn; `drawn`: calls that an earlier server with
        the same seed has answered. `write`: is given each call as a line. Raises UsageError where
        the address cannot be used, or Starlette is missing."""
        self.policy, self.seed, self.limits = policy, seed, limits or ServerLimits()
        self.params, self._obey = params or SamplingParams(), obey
        self.conversations = Conversations(self.limits.conversations, self.limits.calls, write)
        self._host, self._listening = host, _listen(host, port)
        self._in_flight, self._drawn = 0, drawn
        config = _uvicorn().Config(self._app(), log_level="warning", timeout_graceful_shutdown=2)
        self._server = _uvicorn().Server(config)
        self._thread = threading.Thread(target=self._run, name="policy server", daemon=True)

    def url(self, name: str = "") -> str:
        """The base address for OpenAI's clients; with a name, that of a conversation. Raises
        UsageError for a name that no address can hold."""
        if len(name) > _LONGEST_NAME or {".", ".."} & {*name.split("/")}:
            raise UsageError(
                f"a conversation cannot be named {name[:40]!r}: at most {_LONGEST_NAME} "
                "characters, and no . or .. between slashes"
            )
        shown = f"[{self._host}]" if ":" in self._host else self._host
        path = f"/c/{quote(name)}" if name else ""
        return f"http://{shown}:{self._port}{path}/v1"

    def serve(self) -> None:
        """Serve in this thread until the process is interrupted."""
        self._run()

    def __enter__(self) -> PolicyServer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=10)

    @property
    def _port(self) -> int:
        return int(self._listening.getsockname()[1])

    def _run(self) -> None:
        self._server.run(sockets=[self._listening])

    def _app(self) -> Any:
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from starlette.routing import Route

        chat, models = "/v1/chat/completions", "/v1/models"
        routes = [
            Route(models, self._models),
            Route(chat, self._chat, methods=["POST"]),
            Route(f"/c/{{name:path}}{models}", self._models),
            Route(f"/c/{{name:path}}{chat}", self._chat, methods=["POST"]),
        ]
        names = ["localhost", "127.0.0.1", "[::1]", "::1", self._host]
        hosts = Middleware(TrustedHostMiddleware, allowed_hosts=names)
        return Starlette(routes=routes, middleware=[hosts] if _is_loopback(self._host) else [])

    async def _models(self, request: Any) -> Any:
        from starlette.responses import JSONResponse

        model = {"id": self.policy.name, "object": "model", "created": 0, "owned_by": "rro"}
        return JSONResponse({"object": "list", "data": [model]})

    async def _chat(self, request: Any) -> Any:
        if self._in_flight >= self.limits.in_flight:
            return _refused(429, "too many calls are in flight: try again", "rate_limit_error")
        self._in_flight += 1
        try:
            async with asyncio.timeout(self.limits.seconds):
                return await self._answer(request)
        except TimeoutError:
            return _refused(504, f"no answer in {self.limits.seconds:g} s", "timeout")
        except _TooLong:
            return _refused(413, f"a body has at most {self.limits.body:,} bytes", "too_large")
        except UsageError as error:
            return _refused(400, str(error), "invalid_request_error")
        except Exception as error:
            log.warning("a call failed: %s", describe(error))
            return _refused(500, "the policy could not answer", "server_error")
        finally:
            self._in_flight -= 1

    async def _answer(self, request: Any) -> Any:
        from starlette.responses import JSONResponse, StreamingResponse

        kind = request.headers.get("content-type", "").partition(";")[0]
        if kind.strip().lower() != "application/json":
            # A page in a browser can send any other type to this machine unasked.
            raise UsageError("the Content-Type must be application/json")
        body = await _body(request, self.limits.body)
        asked = read_request(body, self.params, self.limits.answers, self._obey)
        given = request.path_params.get("name") or request.headers.get(HEADER) or asked.user
        if len(given) > _LONGEST_NAME:
            raise UsageError(f"the name of a conversation has at most {_LONGEST_NAME} characters")
        name, messages = self.conversations.begin(given, asked.messages)
        seed = asked.seed
        if seed is None:
            self._drawn += 1
            seed = derive_seed(self.seed, "serve", self._drawn)
        drawn = await self.policy.sample(messages, asked.n, asked.params, seed)
        if await request.is_disconnected():
            return _refused(499, "the client has gone: nothing is recorded", "client_closed")
        for completion in drawn:
            if completion.finish == "context":
                raise UsageError("the messages leave the model's context no room for an answer")
            self.conversations.add(name, messages, completion, asked.params)
        if asked.stream:
            events = chat_events(drawn, name, self.policy.name, asked.stream_usage)
            return StreamingResponse(events, media_type="text/event-stream")
        return JSONResponse(chat_answer(drawn, name, self.policy.name))


@contextlib.contextmanager
def append_to(file: Path | None) -> Iterator[Callable[[str], None] | None]:
    """What appends lines to a file, each at once; None without a file."""
    if file is None:
        yield None
        return
    with file.open("a+b") as record:
        if record.tell():
            record.seek(-1, os.SEEK_END)
            if record.read() != b"\n":  # the server before was killed while it wrote
                record.write(b"\n")
    with file.open("a", encoding="utf-8", buffering=1) as lines:

        def write(line: str) -> None:
            lines.write(line)

        yield write


def count_calls(file: Path | None) -> int:
    """How many calls a file of them has."""
    if file is None or not file.is_file():
        return 0
    with file.open("rb") as lines:
        return sum(1 for _ in lines)


class _TooLong(Exception):
    """A body above the limit."""


async def _body(request: Any, most: int) -> Any:
    chunks, size = list[bytes](), 0
    stream: AsyncIterator[bytes] = request.stream()
    async with contextlib.aclosing(stream) as parts:  # type: ignore[type-var]
        async for chunk in parts:
            size += len(chunk)
            if size > most:
                raise _TooLong
            chunks.append(chunk)
    try:
        return json.loads(b"".join(chunks))
    except (ValueError, RecursionError):
        raise UsageError("the body is no JSON") from None


def _refused(status: int, sentence: str, kind: str) -> Any:
    from starlette.responses import JSONResponse

    headers = {"Retry-After": "1"} if status == 429 else None
    return JSONResponse(error_body(sentence, kind), status, headers)


def _uvicorn() -> Any:
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise UsageError(f"serving needs {error.name}: pip install 'rro[serve]'") from error
    return uvicorn


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}, port {port}: {error.strerror}") from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
