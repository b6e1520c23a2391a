"""`rro view`: the report of runs in progress, served to browsers on this machine only.

Reads the journals, writes nothing, and answers only GET. It binds to 127.0.0.1 and answers only
requests whose Host header says so: a foreign page whose name resolves to this machine (DNS
rebinding) sends its own name and is refused. Knows nothing of the figures it serves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from rro.errors import RroError, UsageError
from rro.report.gather import Gatherer
from rro.report.pack import pack
from rro.report.page import live_page, policy

_LOOPBACK = "127.0.0.1"


def serve(runs: Sequence[Path], port: int, ready: Callable[[str], None]) -> None:
    """Serve until interrupted; `ready` is called with the address. Raises UsageError where a path
    is no run folder, or the port is taken."""
    with Gatherer(runs) as gatherer:
        server = make_server(gatherer, port)
        ready(f"http://{_LOOPBACK}:{server.server_port}/")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass
        finally:
            server.server_close()


def make_server(gatherer: Gatherer, port: int = 0) -> ThreadingHTTPServer:
    """A server on the loopback address; port 0 takes any free one. Raises UsageError where the port
    is unavailable."""
    try:
        server = ThreadingHTTPServer((_LOOPBACK, port), _Handler)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"port {port} is unavailable: {getattr(error, 'strerror', None) or error}; try another"
        ) from None
    server.daemon_threads = True
    server.answers = _Answers(gatherer)  # type: ignore[attr-defined]
    return server


class _Answers:
    """Answers to the page's requests. One request at a time reads the journals."""

    def __init__(self, gatherer: Gatherer) -> None:
        self._gatherer, self._lock = gatherer, threading.Lock()
        # (number of records, packed)
        self._head = (-1, "")

    def head(self, seen: str) -> str | None:
        """The packed head; None where the page has it already."""
        with self._lock:
            records = self._gatherer.refresh()
            if str(records) == seen:
                return None
            if self._head[0] != records:
                self._head = (records, pack(self._gatherer.live()))
            return self._head[1]

    def chunk(self, name: str) -> str | None:
        """A packed chunk; None where there is none of that name."""
        with self._lock:
            return self._gatherer.chunk(name)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_version = "rro"
    sys_version = ""

    def do_GET(self) -> None:
        """The page, its head, or a chunk."""
        if not self._is_for_us():
            return self._send(
                HTTPStatus.MISDIRECTED_REQUEST,
                "this server answers only to 127.0.0.1 and localhost",
            )
        url, answers = urlsplit(self.path), self.server.answers  # type: ignore[attr-defined]
        try:
            if url.path == "/":
                return self._send(HTTPStatus.OK, live_page(), "text/html")
            if url.path == "/head":
                head = answers.head(parse_qs(url.query).get("seen", [""])[0])
                return self._send(
                    HTTPStatus.NO_CONTENT if head is None else HTTPStatus.OK, head or ""
                )
            if url.path.startswith("/chunk/") and (
                chunk := answers.chunk(url.path.removeprefix("/chunk/"))
            ):
                return self._send(HTTPStatus.OK, chunk)
        except (RroError, OSError) as error:
            return self._send(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        self._send(HTTPStatus.NOT_FOUND, "not found")

    def _refuse(self) -> None:
        # a body may follow, which is not read
        self.close_connection = True
        self._send(HTTPStatus.METHOD_NOT_ALLOWED, "only GET is allowed", allow="GET")

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = _refuse

    def _is_for_us(self) -> bool:
        port = self.server.server_port  # type: ignore[attr-defined]
        hosts = self.headers.get_all("Host") or []
        return len(hosts) == 1 and hosts[0].lower() in (f"{_LOOPBACK}:{port}", f"localhost:{port}")

    def _send(
        self, status: HTTPStatus, text: str, kind: str = "text/plain", allow: str = ""
    ) -> None:
        body = text.encode()
        headers = {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(body)),
            "Content-Security-Policy": policy("connect-src 'self'", "frame-ancestors 'none'"),
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
            **({"Allow": allow} if allow else {}),
        }
        if status is HTTPStatus.NO_CONTENT:
            del headers["Content-Length"], headers["Content-Type"]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Requests are not logged."""
