"""One HTTP exchange, bounded in seconds and in bytes. Knows nothing of what is exchanged."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rro.loop_thread import LoopThread


class BodyError(Exception):
    """A body that is too large, or in an encoding that nobody asked for."""


@dataclass(frozen=True, slots=True)
class Response:
    """What a server answered; `reason` is the phrase that it gave with the status."""

    status: int
    reason: str
    retry_after: str | None
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")


def make_client(headers: Mapping[str, str], **options: Any) -> Any:
    """A client whose answers `exchange` can read. Its libraries log no more than warnings, because
    they would log what servers send."""
    import httpx2

    for library in ("httpx2", "httpcore2"):
        logging.getLogger(library).setLevel(logging.WARNING)
    return httpx2.AsyncClient(headers={**headers, "Accept-Encoding": "gzip, deflate"}, **options)


async def exchange(
    client: Any, url: str, body: Mapping[str, Any] | None, seconds: float, most_bytes: int
) -> Response:
    """POST `body` (None: GET). Raises TimeoutError after `seconds` in all, BodyError for an answer
    of more than `most_bytes`, packed or unpacked, and httpx2.TransportError."""
    async with (
        asyncio.timeout(seconds),
        client.stream("GET" if body is None else "POST", url, json=body) as response,
    ):
        packed = bytearray()
        async for chunk in response.aiter_raw():
            packed += chunk
            if len(packed) > most_bytes:
                raise BodyError(f"an answer of more than {most_bytes} bytes")
        content = _unpacked(bytes(packed), response.headers.get("content-encoding", ""), most_bytes)
        wait = response.headers.get("retry-after")
        return Response(response.status_code, response.reason_phrase, wait, content)


def exchange_blocking(
    url: str, body: Mapping[str, Any] | None, headers: Mapping[str, str], seconds: float
) -> Response:
    """An exchange with a server of ours on this machine; waits. Raises as `exchange` does."""
    # no proxies of the environment
    client = make_client(headers, timeout=seconds, trust_env=False)
    thread = LoopThread(f"the request to {url}")
    try:
        return thread.run_blocking(exchange(client, url, body, seconds, 2**20))
    finally:
        thread.close(client.aclose)


def _unpacked(content: bytes, encoding: str, most_bytes: int) -> bytes:
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return content
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise BodyError(f"an answer in the encoding {encoding[:20]!r}")
    try:
        # 47: with gzip's header or zlib's
        unpacked = zlib.decompressobj(47).decompress(content, most_bytes + 1)
    except zlib.error as error:
        raise BodyError(f"an answer that cannot be unpacked: {error}") from None
    if len(unpacked) > most_bytes:
        raise BodyError(f"an answer of more than {most_bytes} bytes")
    return unpacked
