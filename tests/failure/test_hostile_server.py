"""Answers that a server may give by mistake or on purpose: empty, endless, packed, nested, with odd
numbers."""

import asyncio
import gzip
import json
import math
import time
from itertools import count

import pytest
from fakes import TreeBenchmark, explore, fresh_journal, make_context
from hostile_server import ASK, PARAMS, opened, sample, send, serving

from rro.errors import PolicyError
from rro.exploration.strategies.rising import RisingExploration

pytestmark = pytest.mark.usefixtures("short_waits")


MESSAGES = [
    {"content": ""},
    {"content": " \n"},
    {"content": None},
    {"content": "", "reasoning_content": "hm"},
    {"content": None, "reasoning": "hm"},
    {"content": "left", "tool_calls": [{"id": "1", "function": {"name": "f"}}]},
    {"content": "left", "function_call": {"name": "f"}},
    {"content": "left", "refusal": "I cannot"},
    {"content": "left", "role": "user"},
    {"content": "left", "role": "tool"},
    {"content": ["left"]},
    {"content": {"text": "left"}},
    {"content": 5},
]


@pytest.mark.parametrize("message", MESSAGES, ids=str)
@pytest.mark.parametrize("finish", ["stop", "length"])
def test_an_answer_without_text_is_a_failure(message, finish):
    with serving() as server:
        policy = opened(server)

        def answer(handler, body, tree):
            new = {"role": "assistant", **message}
            send(handler, tree | {"choices": [{"message": new, "finish_reason": finish}]})

        server.answer = answer
        with pytest.raises(PolicyError):
            sample(policy)


def test_other_odd_choices_are_failures():
    good = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "x"}}
    for choices in (
        [good, good],
        [good | {"finish_reason": "content_filter"}],
        [good | {"finish_reason": 5}],
        [good | {"finish_reason": ["stop"]}],
        [good | {"error": {"code": 502}}],
        [good | {"message": "x"}],
        [good | {"message": None}],
        {"0": good},
        [[good]],
        "x",
    ):
        with serving() as server:
            policy = opened(server, retries=0)
            server.answer = lambda handler, body, tree, c=choices: send(
                handler, tree | {"choices": c}
            )
            with pytest.raises(PolicyError):
                sample(policy)


def test_an_answer_without_text_is_never_a_reward(tmp_path):
    """Every outcome of this forest is 0.7, so another price would come from an empty action."""
    with serving() as server:
        policy, calls = opened(server, retries=0), count()

        def answer(handler, body, tree):
            odd = next(calls) % 4 == 0
            new = {"role": "assistant", "content": "" if odd else "a", "reasoning_content": "hm"}
            send(handler, tree | {"choices": [{"message": new, "finish_reason": "stop"}]})

        server.answer = answer
        with fresh_journal(tmp_path) as journal:
            benchmark = TreeBenchmark({f"t{number}": {"a": 0.7, "b": 0.7} for number in range(9)})
            explore(RisingExploration(2, 2), make_context(benchmark, policy, journal))
            records = [json.dumps(record) for record in journal.records("candidate")]
        asyncio.run(policy.close())
    assert records
    assert not [record for record in records if '"content": ""' in record]


# -- bodies and numbers


def chunk(handler, data):
    handler.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


def endless(handler, body, tree):
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    try:
        while True:
            chunk(handler, b" " * 2**16)
    except OSError:
        handler.close_connection = True


def slow(handler, body, tree):
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    try:
        for _ in range(600):
            chunk(handler, b" ")
            time.sleep(0.05)
    except OSError:
        handler.close_connection = True


def packed(handler, body, tree):
    bomb = gzip.compress(b" " * 2**28)
    send(handler, None, 200, [("Content-Encoding", "gzip")], raw=bomb)


def foreign(handler, body, tree):
    send(handler, None, 200, [("Content-Encoding", "br")], raw=b"xxxx")


def broken(handler, body, tree):
    send(handler, None, 200, [("Content-Encoding", "gzip")], raw=b"xxxx")


def nested(handler, body, tree):
    send(handler, None, 200, raw=b'{"choices":' + b"[" * 10**6 + b"]" * 10**6 + b"}")


def nested_error(handler, body, tree):
    send(handler, None, 500, raw=b'{"error":' + b'{"a":' * 900 + b"1" + b"}" * 901)


def huge_number(handler, body, tree):
    send(handler, None, 200, raw=b'{"choices":' + b"9" * 10**5 + b"}")


@pytest.mark.parametrize(
    "answer", [endless, slow, packed, foreign, broken, nested, nested_error, huge_number]
)
def test_bodies_are_bounded(answer):
    import resource

    with serving() as server:
        policy = opened(server, retries=0, timeout=2)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        server.answer = answer
        with pytest.raises(PolicyError):
            sample(policy)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        # of the bomb's 256 MiB, which the server packs in this process a piece at a time
        assert answer is packed or grown < 100_000


def test_an_answer_may_be_packed():
    with serving() as server:
        policy = opened(server)
        server.answer = lambda handler, body, tree: send(
            handler, None, 200, [("Content-Encoding", "gzip")],
            raw=gzip.compress(json.dumps(tree).encode()),
        )  # fmt: skip
        assert sample(policy)[0].message.content.startswith("word")


@pytest.mark.parametrize(
    "value", [10**400, -1, 1.5, "7", None, math.nan, math.inf, True, [7], {"a": 7}, 2**63]
)
def test_odd_numbers_do_not_count(value):
    with serving() as server:
        policy = opened(server)
        names = ("prompt_tokens", "completion_tokens", "prompt_tokens_details")
        usages = [dict.fromkeys(names, value), {names[2]: {"cached_tokens": value}}, value]
        for usage in usages:
            server.answer = lambda handler, body, tree, u=usage: send(handler, tree | {"usage": u})

            async def body():
                return await policy.sample(ASK, 1, PARAMS, 1)

            [completion] = asyncio.run(body())
            used = completion.usage
            assert (used.prompt_tokens, used.cached_tokens, used.generated_tokens) == (0, 0, 0)
        asyncio.run(policy.close())
