"""A server on loopback that speaks OpenAI's chat API over the trees of `fakes`, and misbehaves on
demand.

It really talks HTTP: what fails here fails on the wire. `fault(number, body)` names what to do to
the number-th answer (see `_Handler.fail`), or gives None."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Fault = Callable[[int, dict[str, Any]], str | None]
OVERFLOW = (
    "This model's maximum context length is 90 tokens. However, your prompt has 100 input tokens."
)
REFUSALS = {
    "full": (400, OVERFLOW, "context_length_exceeded"),
    "broke": (429, "You exceeded your quota", "insufficient_quota"),
}
CHOICES = {
    "no reason": {"finish_reason": None},
    "filtered": {
        "finish_reason": "content_filter",
        "message": {"role": "assistant", "content": ""},
    },
    "tool": {"finish_reason": "tool_calls", "message": {"role": "assistant", "content": None}},
    "thoughts": {"finish_reason": "length", "message": {"role": "assistant", "content": ""}},
}
KEY = "sk-" + "very-secret-0123456789"


@dataclass
class Behaviour:
    """What the server does and has seen."""

    fault: Fault = lambda number, body: None
    models: tuple[str, ...] = ("walker",)
    owner: str = "nobody"
    # what an answer depends on: "seed", "nothing" (greedy) or "call" (ignores seeds)
    draw: str = "seed"
    # "stable", "ignored", or "shifty": answer i depends on n
    n: str = "stable"
    # fields that it rejects
    refuses: tuple[str, ...] = ()
    # temperature 0 is honoured
    greedy: bool = True
    # requests at once; more get 429
    places: int = 10**6
    retry_after: str = "0"
    key: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    connections: set[Any] = field(default_factory=set)
    faults: Counter[str] = field(default_factory=Counter)
    busy: int = 0
    busiest: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    over: threading.Event = field(default_factory=threading.Event)
    # seconds that an answer takes
    hold: float = 0.0
    # the message with tool calls that answers a request with tools
    calls: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    base_url: str = ""


def say(body: dict[str, Any], number: int, behaviour: Behaviour) -> str:
    """One of the actions that the last message offers, or a word."""
    seed = {"seed": body.get("seed"), "nothing": 0, "call": len(behaviour.bodies)}[behaviour.draw]
    if body.get("temperature") == 0 and behaviour.greedy:
        seed, number = 0, 0
    shift = body.get("n", 1) if behaviour.n == "shifty" else 0
    rng = random.Random(f"{seed} {number} {shift}" if behaviour.draw != "nothing" else "")
    _, _, actions = body["messages"][-1]["content"].partition(": go ")
    return rng.choice(actions.split()) if actions else f"word {rng.random()}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    behaviour: Behaviour

    def log_message(self, *arguments: Any) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        it = self.behaviour
        if it.key and self.headers.get("Authorization") != f"Bearer {it.key}":
            self.send(
                401, {"error": {"message": f"Incorrect key: {self.headers.get('Authorization')}"}}
            )
        else:
            self.send(
                200,
                {
                    "object": "list",
                    "data": [{"id": id_, "owned_by": it.owner} for id_ in it.models],
                },
            )

    def do_POST(self) -> None:
        it = self.behaviour
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with it.lock:
            it.busy += 1
            it.busiest = max(it.busiest, it.busy)
            full = it.busy > it.places
            it.bodies.append(body)
            it.headers.append(dict(self.headers))
            it.connections.add(self.client_address)
            fault = "429" if full else it.fault(len(it.bodies), body)
            it.faults[fault or "none"] += 1
        try:
            it.over.wait(it.hold)
            self.answer(body, fault)
        finally:
            with it.lock:
                it.busy -= 1

    def answer(self, body: dict[str, Any], fault: str | None) -> None:
        it = self.behaviour
        if self.path != "/v1/chat/completions":
            return self.send(404, {"error": {"message": "no such address"}})
        if body["model"] not in it.models:
            return self.send(
                404, {"error": {"message": f"no model {body['model']}", "code": "model_not_found"}}
            )
        if unknown := [name for name in it.refuses if name in body]:
            return self.send(
                400, {"error": {"message": f"Unrecognized request argument supplied: {unknown[0]}"}}
            )
        n = 1 if it.n == "ignored" else body.get("n", 1)
        choices = [self.choice(i, say(body, i, it)) for i in range(n)]
        if it.calls is not None and "tools" in body:
            choices = [
                {"index": i, "finish_reason": "tool_calls", "message": it.calls(body)}
                for i in range(n)
            ]
        usage = {
            "prompt_tokens": 100,
            "completion_tokens": 3 * n,
            "prompt_tokens_details": {"cached_tokens": 60},
        }
        answer = {"model": body["model"], "choices": choices, "usage": usage}
        if fault is None:
            return self.send(200, answer)
        return self.fail(fault, answer)

    @staticmethod
    def choice(index: int, text: str) -> dict[str, Any]:
        return {
            "index": index,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": text},
        }

    def fail(self, fault: str, answer: dict[str, Any]) -> None:
        if fault in ("drop", "hang"):
            self.behaviour.over.wait(30 if fault == "hang" else 0)
            self.close_connection = True
        elif fault == "half":  # the header promises more than comes
            self.send(200, answer, cut=20)
        elif fault == "html":
            self.send_bytes(200, b"<html>Bad gateway</html>")
        elif fault == "half JSON":
            self.send_bytes(200, json.dumps(answer).encode()[:-20])
        elif fault.isdigit():
            after = {"Retry-After": self.behaviour.retry_after} if fault in ("429", "503") else {}
            self.send(
                int(fault),
                {"error": {"message": f"no: {self.headers.get('Authorization')}"}},
                after,
            )
        elif fault in REFUSALS:
            status, text, code = REFUSALS[fault]
            self.send(status, {"error": {"message": text, "code": code}})
        elif fault in CHOICES:
            self.send(200, {**answer, "choices": [answer["choices"][0] | CHOICES[fault]]})
        else:
            self.send(
                200,
                {
                    "empty": {**answer, "choices": []},
                    "other model": {**answer, "model": "stranger"},
                }.get(fault, []),
            )

    def send(
        self, status: int, tree: Any, headers: dict[str, str] | None = None, cut: int = 0
    ) -> None:
        self.send_bytes(status, json.dumps(tree).encode(), headers, cut)

    def send_bytes(
        self, status: int, text: bytes, headers: dict[str, str] | None = None, cut: int = 0
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(text)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text[: len(text) - cut])
        self.close_connection = self.close_connection or cut > 0


def in_http_date(seconds: float) -> str:
    """`seconds` from now, as a Retry-After header can have it."""
    import time

    return formatdate(time.time() + seconds, usegmt=True)


@contextmanager
def serving(port: int = 0, **changes: Any):
    """Serve on loopback (port 0: any that is free); yields the Behaviour, whose base_url is set."""
    behaviour = Behaviour(**changes)
    handler = type("Handler", (_Handler,), {"behaviour": behaviour})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    )
    thread.start()
    behaviour.base_url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield behaviour
    finally:
        behaviour.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
