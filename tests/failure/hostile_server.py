"""A server on loopback whose answers a test replaces once a policy has been opened."""

import asyncio
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from rro.policies.api.endpoint import ServedModel
from rro.policies.api.opening import open_served
from rro.policies.api.settings import OpenAIConfig
from rro.types import Message, SamplingParams

ASK = (Message("user", "at : go left right"),)

LONG = (*ASK, Message("assistant", "left"), Message("user", "at : go left right" * 40))

PARAMS = SamplingParams(max_new_tokens=5)


def plain(body):
    """What a good server answers."""
    words = f"word {body.get('seed')}" if body.get("temperature", 1) else "word"
    choices = [
        {
            "index": index,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": f"{words} {index}"},
        }
        for index in range(body.get("n", 1))
    ]
    return {"model": "walker", "choices": choices, "usage": {"prompt_tokens": 7}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # head and body are two packets: without it, each answer waits 40 ms between them
    disable_nagle_algorithm = True

    def log_message(self, *arguments):
        """Log nothing."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        self.server.answer(self, body, plain(body))


def send(handler, tree, status=200, headers=(), reason=None, raw=None):
    data = json.dumps(tree).encode() if raw is None else raw
    handler.send_response(status, reason)
    for name, value in (("Content-Length", str(len(data))), *headers):
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(data)


@contextmanager
def serving(good=lambda handler, body, tree: send(handler, tree)):
    """A server whose `answer` can be replaced after a policy is opened."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.bodies, server.answer = True, [], good
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def opened(server, **changes):
    options = {"key_variable": "RRO_TEST_KEY", "timeout": 5, "retries": 1, **changes}
    url = f"http://127.0.0.1:{server.server_port}/v1"
    config = OpenAIConfig(base_url=url, **options)
    return open_served(config, ServedModel("walker"), "run/base", None)


def sample(policy, messages=ASK, params=PARAMS, n=1):
    async def body():
        try:
            return await policy.sample(messages, n, params, 1)
        finally:
            await policy.close()

    return asyncio.run(body())
