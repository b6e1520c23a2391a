"""Answers that a server may give by mistake or on purpose: empty, endless, packed, nested, with odd
numbers, with our key, with absurd waits, with rejections in any wording."""

import asyncio
import base64
import gzip
import json
import logging
import math
import threading
import time
import urllib.parse
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

import pytest
from bad_server import KEY, in_http_date
from fakes import TreeBenchmark, explore, fresh_journal, make_context

from rro.errors import PolicyError, RroError, UsageError
from rro.exploration.strategies.rising import RisingExploration
from rro.policies.api import backoff
from rro.policies.api.client import RequestRejected
from rro.policies.api.endpoint import ServedModel
from rro.policies.api.opening import open_served
from rro.policies.api.policy import room_left
from rro.policies.api.secret import Secret
from rro.policies.api.settings import OpenAIConfig
from rro.types import Message, SamplingParams

ASK = (Message("user", "at : go left right"),)
LONG = (*ASK, Message("assistant", "left"), Message("user", "at : go left right" * 40))
PARAMS = SamplingParams(max_new_tokens=5)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(backoff, "FIRST_WAIT", 0.002)
    monkeypatch.setenv("RRO_TEST_KEY", KEY)


def plain(body, number):
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

    def log_message(self, *arguments):
        """Log nothing."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        self.server.answer(self, body, plain(body, len(self.server.bodies)))


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


# -- waits

WAITS = ["1000000000", "1e300", "99999999999999999999", "in 9999", "-5", "nan", "inf", "", "x" * 99]
DATES = [
    "Fri, 31 Dec 9999 23:59:59 GMT",
    "Fri, 31 Dec 9999 23:59:59 -2359",
    "Mon, 01 Jan 0001 00:00:00 +2359",
    "Fri, 99 Foo 99999 99:99:99 GMT",
]


@pytest.mark.parametrize("wait", WAITS + DATES)
@pytest.mark.parametrize("status", [429, 503])
def test_no_wait_is_longer_than_the_patience(wait, status):
    with serving() as server:
        policy = opened(server, patience=1.0, retries=2)
        first = len(server.bodies)

        def answer(handler, body, tree):
            once = len(server.bodies) == first + 1
            error, headers = {"error": "busy"}, [("Retry-After", wait)]
            send(handler, *((error, status, headers) if once else (tree,)))

        server.answer = answer

        async def body():
            results = await asyncio.gather(
                *(policy.sample(ASK, 1, PARAMS, seed) for seed in range(4)), return_exceptions=True
            )
            # what comes later is not held up by what was refused
            [calm] = await policy.sample(ASK, 1, PARAMS, 9)
            await policy.close()
            return results, calm

        results, calm = asyncio.run(asyncio.wait_for(body(), 20))
        assert calm.message.content.startswith("word")
        assert sum(isinstance(result, Exception) for result in results) <= 1
        assert all(isinstance(r, list | PolicyError) for r in results)


def test_pauses_that_never_end_are_bounded_for_all_requests():
    with serving() as server:
        policy = opened(server, patience=0.5, retries=50)
        server.answer = lambda handler, body, tree: send(
            handler, {"error": "busy"}, 429, [("Retry-After", "0.2")]
        )

        async def body():
            results = await asyncio.gather(
                *(policy.sample(ASK, 1, PARAMS, seed) for seed in range(30)),
                return_exceptions=True,
            )
            await policy.close()
            return results

        results = asyncio.run(asyncio.wait_for(body(), 30))
        assert {type(result) for result in results} == {PolicyError}


# -- a full context

OVERFLOWS = [
    "prompt is too long: 205000 tokens > 200000 maximum",
    "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000, decrease input "
    "length or `max_tokens` and try again",
    "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000",
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 2100 "
    "`inputs` tokens and 100 `max_new_tokens`",
    "The input token count (1048577) exceeds the maximum number of tokens allowed (1048576).",
    "Unable to submit request because the input token count is 40000 but model only supports up to "
    "32768",
    "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 4500",
    "Prompt contains 33000 tokens and 0 draft tokens, too large for model with 32768 maximum "
    "context length",
    "Input is too long for requested model.",
    "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
    "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
    "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
    "Your request exceeded model token limit: 8192",
    "Please reduce the length of the messages or completion.",
]


@pytest.mark.parametrize("text", OVERFLOWS)
def test_a_full_context_in_many_wordings(text):
    assert room_left(RequestRejected(400, text)) is not None


@pytest.mark.parametrize(
    "text",
    [
        "top_k must be positive",
        "temperature: Input should be less than or equal to 1",
        "messages: roles must alternate between user and assistant",
        "Invalid value for tokens",
        "model is too large to load",
    ],
)
def test_other_rejections_are_not_about_the_context(text):
    assert room_left(RequestRejected(400, text)) is None


def test_the_room_that_other_servers_report():
    text = OVERFLOWS[1].replace("188240", "190000")
    assert room_left(RequestRejected(400, text)) == 10000
    assert room_left(RequestRejected(422, OVERFLOWS[3].replace("2100", "2000"))) == 48


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize("said", ["no", "<html>Request Entity</html>", ""])
def test_an_unknown_rejection_of_a_long_prompt_is_tried_with_a_shorter_one(status, said):
    with serving() as server:
        policy = opened(server)
        before = len(server.bodies)

        def answer(handler, body, tree):
            size = sum(len(message["content"]) for message in body["messages"])
            long = size > 100
            send(handler, tree, *((status,) if long else ()), raw=said.encode() if long else None)

        server.answer = answer
        [completion] = sample(policy, LONG)
        assert (completion.finish, completion.message.content) == ("context", "")
        # the reason phrase of 413 says it
        sent = [3] if (status, said) == (413, "") else [3, 1]
        assert [len(body["messages"]) for body in server.bodies[before:]] == sent


def test_an_unknown_rejection_of_short_prompts_too_ends_the_run():
    with serving() as server:
        policy = opened(server)
        server.answer = lambda handler, body, tree: send(handler, {"error": "no"}, 400)
        with pytest.raises(RroError, match="rejects the request"):
            sample(policy, LONG)


def test_a_filter_that_rejects_a_prompt_is_a_failure():
    with serving() as server:
        policy = opened(server)
        error = {"error": {"message": "filtered by our content management policy"}}
        server.answer = lambda handler, body, tree: send(handler, error, 400)
        with pytest.raises(PolicyError, match="withheld"):
            sample(policy, LONG)


# -- parameters


@pytest.mark.parametrize("refused", ["top_p", "temperature", "seed", "stop", "n", "min_p"])
@pytest.mark.parametrize("wording", ["names one", "lists all", "with an id", "by param"])
def test_a_server_that_refuses_one_parameter_loses_that_one(refused, wording, caplog):
    ids = count(1000)

    def answer(handler, body, tree):
        if refused not in body:
            return send(handler, {**tree, "choices": tree["choices"][:1]})
        error = {"message": f"Unsupported parameter: {refused}"}
        if wording == "lists all":
            allowed = "temperature, top_p, seed, stop, n, stream, top_k, min_p"
            error["message"] = f"bad request; allowed: {allowed}"
        if wording == "with an id":
            error["message"] += f" or seed or top_k (request id abc{next(ids)})"
        if wording == "by param":
            error = {"message": "seed top_p temperature: not allowed here", "param": refused}
        return send(handler, {"error": error}, 400)

    def good(handler, body, tree):
        content = f"word {body.get('seed')} {len(server.bodies)}"
        if body.get("temperature", 1) == 0:
            content = "word"
        message = {"role": "assistant", "content": content}
        choice = {"message": message, "finish_reason": "stop", "index": 0}
        answer(handler, body, tree | {"choices": [choice]})

    params = SamplingParams(max_new_tokens=5, stop=("END",))
    with serving(good) as server:
        policy = opened(server)
        [completion] = sample(policy, params=params)
        assert completion.message.content.startswith("word")
        sent = server.bodies[-1]
        others = {"top_p", "temperature", "seed", "stop", "n", "min_p", "top_k"} - {refused}
        assert refused not in sent
        assert others <= set(sent)
        assert refused in policy.client.account()


def test_a_parameter_that_matters_is_not_left_out():
    with serving() as server:
        policy = opened(server)
        server.answer = lambda handler, body, tree: (
            send(handler, {"error": "top_p is not supported"}, 400)
            if "top_p" in body
            else send(handler, tree)
        )
        with pytest.raises(RroError, match="top_p is not supported"):
            sample(policy, params=SamplingParams(top_p=0.5, max_new_tokens=5))


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


# -- our key

HALF = len(KEY) // 2
SHOWN = {
    "plain": KEY,
    "in a header": f"Bearer {KEY}",
    "percent": urllib.parse.quote("".join(f"%{ord(c):02x}" for c in KEY), safe="%"),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "base64, later": base64.b64encode(b"user:" + KEY.encode() + b"!").decode(),
    "base64, url": base64.urlsafe_b64encode(b"Bearer " + KEY.encode()).decode(),
    "hexadecimal": KEY.encode().hex(),
    "backwards": KEY[::-1],
    "upper case": KEY.upper(),
    "with spaces": " ".join(KEY),
    "in two lines": KEY[:HALF] + "\n" + KEY[HALF:],
    "zero width": "\u200b".join(KEY),
    "full width": KEY.translate({code: code + 0xFEE0 for code in range(0x21, 0x7F)}),
    "entities": "".join(f"&#{ord(c)};" for c in KEY),
    "most of it": KEY[:-2],
}


def places(text):
    """Answers that repeat `text`, by where."""
    header = text.encode("ascii", "ignore").decode().replace("\n", " ")

    def of(change=None, status=200, headers=(), reason=None, raw=None):
        def answer(handler, body, tree):
            if change:
                change(tree)
            send(handler, tree, status, headers, reason, raw)

        return answer

    def say(tree):
        tree["choices"][0]["message"]["content"] = text

    def split(tree):
        message = tree["choices"][0]["message"]
        message["content"], message["name"] = text[:HALF], text[HALF:]

    return {
        "content": of(say),
        "two fields": of(split),
        "model": of(lambda tree: tree.update(model="walker" + text)),
        "reason of the end": of(lambda tree: tree["choices"][0].update(finish_reason=text)),
        "role": of(lambda tree: tree["choices"][0]["message"].update(role=text)),
        "field": of(lambda tree: tree.update({text: 1})),
        "not JSON": of(raw=text.encode()),
        "error": of(lambda tree: tree.update(error={"message": text, "code": text}), 500),
        "rejection": of(lambda tree: tree.update(error={"message": text, "type": text}), 400),
        "parameter": of(lambda tree: tree.update(error={"message": "x", "param": text}), 400),
        "who": of(lambda tree: tree.update(error=text), 401),
        "address": of(lambda tree: tree.update(detail=[{"loc": [text]}]), 404),
        "reason": of(None, 500, reason=header, raw=b""),
        "headers": of(None, 503, [("X-Key", header), ("Retry-After", "0")]),
        "encoding": of(None, 200, [("Content-Encoding", header)]),
    }


@pytest.mark.slow
@pytest.mark.parametrize("form", SHOWN)
def test_our_key_is_nowhere_whatever_a_server_answers(form, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    text, shown = SHOWN[form], []
    with serving() as server:
        for number, (place, answer) in enumerate(places(text).items()):
            server.answer = lambda handler, body, tree: send(handler, tree)
            policy = opened(server, retries=0)
            server.answer = answer
            benchmark = TreeBenchmark({"t": {"a": 0.7, "b": 0.7}})
            folder = tmp_path / str(number)
            folder.mkdir()
            try:
                with fresh_journal(folder) as journal:
                    explore(RisingExploration(2, 2), make_context(benchmark, policy, journal))
            except RroError as error:
                shown += [str(error), repr(error.__cause__)]
            try:
                asyncio.run(policy.sample(ASK, 1, PARAMS, 1))
            except (PolicyError, RroError) as error:
                shown += [str(error), repr(error), repr(error.__context__)]
            shown += [policy.client.account(), str(dict(policy.provenance)), place]
            asyncio.run(policy.close())
            shown += [path.read_text() for path in folder.iterdir() if path.is_file()]
    secret = Secret(KEY)
    logged = [record.getMessage() for record in caplog.records]
    for line in (*shown, *logged):
        assert text not in line
        assert KEY not in line
        assert not secret.inside(line), line[:200]


def test_a_placeholder_of_a_key_is_no_secret(monkeypatch):
    for key in ("EMPTY", "none", "word"):
        monkeypatch.setenv("RRO_TEST_KEY", key)
        with serving() as server:
            assert sample(opened(server))[0].message.content.startswith("word")


def test_a_list_of_models_with_our_key_is_refused():
    def models(handler):
        send(handler, {"data": [{"id": "walker", "owned_by": KEY}]})

    Handler.do_GET = models
    try:
        from rro.policies.api.client import connect, disconnect
        from rro.policies.api.endpoint import list_models

        with serving() as server:
            url = f"http://127.0.0.1:{server.server_port}/v1"
            client = connect(OpenAIConfig(base_url=url, key_variable="RRO_TEST_KEY", retries=0))
            with pytest.raises(UsageError) as raised:
                list_models(client)
            disconnect(client)
        assert KEY not in str(raised.value)
    finally:
        del Handler.do_GET


def test_a_retry_date_in_the_past_is_no_wait():
    assert backoff.parse_retry_after(in_http_date(-50)) == 0.0
