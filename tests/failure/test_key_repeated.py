"""A server that repeats our key, in any form and at any place: it is shown and written nowhere."""

import asyncio
import base64
import logging
import urllib.parse

import pytest
from bad_server import KEY
from fakes import TreeBenchmark, explore, fresh_journal, make_context
from hostile_server import ASK, PARAMS, Handler, opened, sample, send, serving

from rro.errors import PolicyError, RroError, UsageError
from rro.exploration.strategies.rising import RisingExploration
from rro.policies.api.secret import Secret
from rro.policies.api.settings import OpenAIConfig

pytestmark = pytest.mark.usefixtures("short_waits")


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
            policy = opened(server, retries=0, timeout=60)
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
            assert sample(opened(server, timeout=60))[0].message.content.startswith("word")


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
