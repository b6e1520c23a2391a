"""What a policy's address refuses, and its bounds."""

import asyncio
import json
import socket
import threading
from urllib.parse import urlsplit

import httpx2
import openai
import pytest
from served import QUESTION, ask, client_of, echo

from rro.errors import UsageError
from rro.policies.scripted import ScriptedPolicy
from rro.serving.server import PolicyServer, ServerLimits


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("text/plain; as=application/json", 400),
        ("multipart/form-data; boundary=json", 400),
        ("", 400),
        ("Application/JSON; charset=utf-8", 200),
    ],
)
def test_a_page_in_a_browser_cannot_send_a_call(served, kind, status):
    server, _ = served()
    body = json.dumps({"messages": [{"role": "user", "content": "x"}]})
    answer = httpx2.post(
        f"{server.url()}/chat/completions", content=body, headers={"Content-Type": kind}
    )
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({**QUESTION, "stop": 5}, "stop must be"),
        ({**QUESTION, "stop": {"a": 1}}, "stop must be"),
        ({**QUESTION, "tools": 5}, "tools must be a list"),
        ({**QUESTION, "temperature": 10**400}, "temperature is too large"),
        ({**QUESTION, "seed": 10**40}, "seed is too large"),
        ({**QUESTION, "n": 10**4000}, "n is too large"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "role must be a text"),
        ({"messages": [{"role": "user", "content": {}}]}, "content must be text"),
        ({**QUESTION, "response_format": {"type": "y" * 10**6}}, "response_format"),
    ],
)
def test_an_odd_body_gets_one_short_sentence(served, body, sentence):
    server, _ = served()
    answer = httpx2.post(f"{server.url()}/chat/completions", json=body)
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]["message"]
    assert len(answer.text) < 500


def test_a_name_that_is_half_a_character_is_answered(served):
    server, _ = served()
    body = json.dumps({**QUESTION, "user": "\ud800"})
    headers = {"Content-Type": "application/json"}
    answer = httpx2.post(f"{server.url()}/chat/completions", content=body, headers=headers)
    assert answer.json()["conversation"] == "?"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "messages must be a list"),
        ({"messages": [{"role": "user", "content": "x"}], "n": 99}, "n is 99"),
        ({"messages": [{"role": "user", "content": "x"}], "n": 1.0}, "n must be a whole number"),
        ({"messages": [{"role": "king", "content": "x"}]}, "message 1: the role 'king'"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "nothing to answer"),
        (
            {"messages": [{"role": "tool", "content": "x", "tool_call_id": "q"}]},
            "no tool was called",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "must be text"),
        ({"messages": [{"role": "user", "content": "x"}], "tools": [{}]}, "tools: a tool must be"),
        (
            {"messages": [{"role": "user", "content": "x"}], "tool_choice": "required"},
            "tool_choice",
        ),
        ({"messages": [{"role": "user", "content": "x"}], "logprobs": True}, "logprobs"),
        ({"messages": [{"role": "user", "content": "x"}], "prediction": {"a": 1}}, "prediction"),
        ([1], "a JSON object"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_with_a_sentence(served, body, sentence):
    server, _ = served()
    answer = httpx2.post(f"{server.url()}/chat/completions", json=body)
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]["message"]


def test_bounds(served):
    limits = ServerLimits(body=500, in_flight=1, conversations=2, calls=2)
    server, client = served(limits=limits)
    with pytest.raises(openai.APIStatusError) as error:
        ask(client, "x" * 600)
    assert error.value.status_code == 413
    for number in range(5):
        ask(client, "x", user=f"u{number}")
    assert list(server.conversations.take()) == ["u3", "u4"]
    ask(client, "x", user="u")
    ask(client, "x", user="u")
    with pytest.raises(openai.BadRequestError, match="2 calls already"):
        ask(client, "x", user="u")


def test_calls_in_flight_and_their_time_are_bounded():
    class Waiting(ScriptedPolicy):
        async def sample(self, messages, n, params, seed):
            waiting.set()
            await asyncio.sleep(60)

    waiting, found = threading.Event(), []

    def first():
        with pytest.raises(openai.APIStatusError) as error:
            ask(client_of(server), "x")
        found.append(error.value.status_code)

    limits = ServerLimits(in_flight=1, seconds=1.0)
    with PolicyServer(Waiting(echo), limits=limits) as server:
        thread = threading.Thread(target=first)
        thread.start()
        assert waiting.wait(20)
        with pytest.raises(openai.RateLimitError):
            ask(client_of(server), "x")
        thread.join()
    assert found == [504]


def test_a_page_of_another_site_cannot_ask(served):
    server, _ = served()
    body, address = json.dumps({"messages": [{"role": "user", "content": "x"}]}), server.url()
    plain = httpx2.post(
        f"{address}/chat/completions", content=body, headers={"Content-Type": "text/plain"}
    )
    assert plain.status_code == 400
    other = httpx2.get(f"{address}/models", headers={"Host": "evil.example"})
    assert other.status_code == 400


def test_a_port_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1, port {port}"):
            PolicyServer(ScriptedPolicy(echo), port=port)


def test_what_nobody_waits_for_is_not_recorded():
    class Slow(ScriptedPolicy):
        async def sample(self, messages, n, params, seed):
            asked.set()
            await asyncio.to_thread(gone.wait, 20)
            return await super().sample(messages, n, params, seed)

    asked, gone, body = threading.Event(), threading.Event(), json.dumps(QUESTION).encode()
    with PolicyServer(Slow(echo)) as server:
        address = urlsplit(server.url("c"))
        with socket.create_connection((address.hostname, address.port)) as client:
            head = f"POST {address.path}/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            client.sendall(head.encode() + kind.encode() + body)
            assert asked.wait(20)
        client_of(server).models.list()  # the server has seen by then that the other has gone
        gone.set()
        ask(client_of(server, "c"), "y")
        (call,) = server.conversations.take()["c"].calls
    assert call.messages[-1].content == "y"
