"""The dialects of servers: what is sent, and what is read from responses, complete or not."""

import pytest

from rro.config import Config
from rro.errors import PolicyError
from rro.models.chat import ChatFormat
from rro.models.loading import build_tiny, load_tokenizer
from rro.policies.api.backoff import TransientError
from rro.policies.api.dialects import Chat, LlamaTokens, SamplingRequest, VllmTokens
from rro.types import Message, SamplingParams

PARAMS = SamplingParams()


def request(limit, params=PARAMS):
    return SamplingRequest([1, 2], limit, params)


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    build_tiny(Config().model.tiny, ["open the red door, then the blue one"] * 9, 0, folder)
    return ChatFormat(load_tokenizer(Config().model, folder))


def vllm(ids, finish="stop", logprobs=None, **more):
    choice = {
        "index": 0,
        "token_ids": ids,
        "finish_reason": finish,
        "text": "",
        "logprobs": logprobs,
    }
    return {"model": "m", "choices": [choice], "usage": {"prompt_tokens": 7}, **more}


def test_vllms_answers_keep_their_ids_and_end_with_the_turn(chat):
    dialect, ids = (
        VllmTokens("m", chat),
        chat.tokenizer.encode("open the red door", add_special_tokens=False),
    )
    end = chat.end_of_turn
    params = SamplingParams(max_new_tokens=50, logprobs=True)
    rest = {"token_logprobs": [-0.5] * (len(ids) + 3)}
    reply = dialect.read(vllm([*ids, end, 5, 6], "length", rest), request(50, params))
    [answer] = reply.answers
    assert (answer.ids, answer.text, answer.finish) == ((*ids, end), "open the red door", "stop")
    assert answer.logprobs == (-0.5,) * (len(ids) + 1)
    body = dialect.body(request(50, params))
    assert (body["prompt"], body["return_token_ids"], body["stop_token_ids"]) == (
        [1, 2],
        True,
        sorted(chat.end_ids),
    )
    message = Message("assistant", answer.text, token_ids=answer.ids)
    history = (Message("user", "go"),)
    assert chat.encode((*history, message), False).ids[
        len(chat.encode(history, True).ids) :
    ] == list(answer.ids)


def test_stop_strings_cut_tokens_text_and_logprobs_alike(chat):
    ids = chat.tokenizer.encode("open the red door", add_special_tokens=False)
    params = SamplingParams(max_new_tokens=50, logprobs=True, stop=(" red",))
    tree = vllm(ids, "stop", {"token_logprobs": [-0.5] * len(ids)})
    [answer] = VllmTokens("m", chat).read(tree, request(50, params)).answers
    assert (answer.text, answer.finish) == ("open the", "stop")
    assert answer.ids == tuple(ids[: len(answer.ids)])
    assert chat.decode(answer.ids).startswith("open the")
    assert not chat.decode(answer.ids[:-1]).startswith("open the")
    assert len(answer.logprobs) == len(answer.ids)
    # it would cut off the log-probabilities alone
    assert "stop" not in LlamaTokens("m", chat).body(request(50, params))


def test_an_answer_cut_at_its_limit(chat):
    ids = chat.tokenizer.encode("open the red door", add_special_tokens=False)
    [answer] = VllmTokens("m", chat).read(vllm(ids, "length"), request(3)).answers
    assert (answer.ids, answer.finish) == (tuple(ids[:3]), "length")


@pytest.mark.parametrize(
    "tree",
    [
        [], {}, {"choices": []}, {"choices": ["x"]},
        vllm(None), vllm([]), vllm(["a"]), vllm([-1]), vllm([5], None),
        vllm([5], "length", {"token_logprobs": [None]}),
        vllm([5, 6], "length", {"token_logprobs": [-1.0]}),
    ],
)  # fmt: skip
def test_an_incomplete_answer_is_a_transient_error(chat, tree):
    with pytest.raises(TransientError):
        VllmTokens("m", chat).read(tree, request(9, SamplingParams(logprobs=True)))


def test_llama_cpps_answers(chat):
    ids = [*chat.tokenizer.encode("open", add_special_tokens=False), chat.end_of_turn]
    tree = {
        "stop": True,
        "stop_type": "eos",
        "tokens": ids,
        "tokens_evaluated": 9,
        "timings": {"cache_n": 4},
        "model": "m",
    }
    reply = LlamaTokens("m", chat).read(tree, request(9))
    assert (reply.answers[0].ids, reply.answers[0].finish, reply.answers[0].text) == (
        tuple(ids),
        "stop",
        "open",
    )
    assert (reply.prompt_tokens, reply.cached_tokens, reply.generated_tokens) == (9, 4, len(ids))
    for broken in ({"stop": False}, {"stop_type": None}, {"tokens": None}):
        with pytest.raises(TransientError):
            LlamaTokens("m", chat).read({**tree, **broken}, request(9))
    with pytest.raises(PolicyError):
        LlamaTokens("m", chat).read({**tree, "stop_type": "odd"}, request(9))


def test_a_stop_string_that_a_server_leaves_in_and_lone_surrogates():
    choice = {"finish_reason": "length", "message": {"content": "go \ud800 left STOP right"}}
    asked = request(9, SamplingParams(stop=("STOP",)))
    [answer] = Chat("m").read({"choices": [choice]}, asked).answers
    assert (answer.text, answer.finish) == ("go ? left ", "stop")
