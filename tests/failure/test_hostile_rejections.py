"""Rejections that a server may give by mistake or on purpose: absurd waits, a full context in any
wording, parameters that it does not know."""

import asyncio
from itertools import count

import pytest
from bad_server import in_http_date
from hostile_server import ASK, LONG, PARAMS, opened, sample, send, serving

from rro.errors import PolicyError, RroError
from rro.policies.api import backoff
from rro.policies.api.client import RequestRejected
from rro.policies.api.policy import room_left
from rro.types import SamplingParams

pytestmark = pytest.mark.usefixtures("short_waits")


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


def test_a_retry_date_in_the_past_is_no_wait():
    assert backoff.parse_retry_after(in_http_date(-50)) == 0.0
