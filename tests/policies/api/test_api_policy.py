"""What is probed of a server, what is refused, what requests contain and what they cost."""

import asyncio

import pytest
from bad_server import serving
from fakes import TreeBenchmark, uniform

from rro.config import Config, PricesConfig, check_plugins, parse_config
from rro.environments.registry import open_environment
from rro.errors import UsageError
from rro.models.chat import ChatFormat
from rro.models.loading import build_tiny, load_tokenizer
from rro.pipeline.run import Run
from rro.pipeline.weights import Policies, open_policy
from rro.policies.api.client import RequestRejected, connect, disconnect
from rro.policies.api.endpoint import ServedModel
from rro.policies.api.opening import open_served
from rro.policies.api.policy import room_left
from rro.policies.api.settings import OpenAIConfig
from rro.policies.prices import price, priced
from rro.runs.folder import RunFolder
from rro.runs.journal import Journal
from rro.types import Message, SamplingParams, Usage

ASK = (Message("user", "at : go left right up down here there"),)
PARAMS = SamplingParams(max_new_tokens=5)


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    build_tiny(Config().model.tiny, ["open the red door, then the blue one"] * 9, 0, folder)
    return ChatFormat(load_tokenizer(Config().model, folder))


def settings(server, **changes):
    return OpenAIConfig(**{"base_url": server.base_url, "retries": 1, **changes})


def sampled(server, n=1, seed=1, params=PARAMS, **changes):
    """Provenance, answers, and the requests that they took."""
    policy = open_served(settings(server, **changes), ServedModel("walker"), "run/sft", None)
    before = len(server.bodies)

    async def body():
        try:
            return await policy.sample(ASK, n, params, seed)
        finally:
            await policy.close()

    return policy.provenance, asyncio.run(body()), server.bodies[before:]


def texts(completions):
    return [completion.message.content for completion in completions]


# -- what a server can do


def test_a_server_that_can_do_everything():
    with serving() as server:
        provenance, five, bodies = sampled(server, n=5)
        assert [body["n"] for body in bodies] in ([4, 1], [1, 4])
        assert provenance == {
            "backend": "openai", "base_url": server.base_url, "server": "unknown",
            "model": "walker", "served_as": "walker", "way": "chat", "token_ids": False,
            "logprobs": False, "seeds": True, "greedy": True, "answers_per_request": 4,
            "left_out": "", "context": None,
        }  # fmt: skip
        assert len(set(texts(five))) > 1
        for n in range(1, 5):
            assert (
                texts(sampled(server, n=n)[1]) == texts(five)[:n]
            )  # sample i depends on the seed and i alone
        assert all(completion.message.token_ids is None for completion in five)


def test_the_servers_own_truncation_is_switched_off():
    with serving() as server:
        _, _, [body] = sampled(server, params=SamplingParams(0.7, 0.9, 5, stop=("X",)))
        asked = {"temperature": 0.7, "top_p": 0.9, "max_tokens": 5, "stop": ["X"]}
        neutral = {"top_k": -1, "min_p": 0.0}
        assert {name: body[name] for name in asked | neutral} == asked | neutral
        assert 0 <= body["seed"] < 2**31


@pytest.mark.parametrize("n", ["ignored", "shifty"])
def test_a_server_that_ignores_n_gets_parallel_requests(n):
    with serving(n=n) as server:
        provenance, five, bodies = sampled(server, n=5)
        assert provenance["answers_per_request"] == 1
        assert [body["n"] for body in bodies] == [1] * 5
        assert len({body["seed"] for body in bodies}) == 5
        assert texts(sampled(server, n=2)[1]) == texts(five)[:2]


def test_a_server_that_does_not_sample_is_refused():
    with serving(draw="nothing") as server, pytest.raises(UsageError, match="it does not sample"):
        sampled(server)


def test_a_server_that_ignores_seeds_is_recorded(caplog):
    with serving(draw="call") as server:
        provenance, five, bodies = sampled(server, n=5)
        assert not provenance["seeds"]
        assert "ignores seeds" in caplog.text
        assert len(five) == 5
        assert len(bodies) == 2


def test_fields_that_a_server_rejects_are_left_out(caplog):
    with serving(refuses=("top_k", "repetition_penalty", "seed"), draw="call") as server:
        provenance, _, [body] = sampled(server)
        assert provenance["left_out"] == "repetition_penalty, seed, top_k"
        assert not {"top_k", "repetition_penalty", "seed"} & set(body)
        assert "min_p" in body
        assert "does not accept repetition_penalty, top_k" in caplog.text


def test_a_server_that_ignores_temperature_0_gets_no_greedy_requests():
    with (
        serving(greedy=False) as server,
        pytest.raises(UsageError, match=r"evaluate\.greedy = false"),
    ):
        sampled(server, params=SamplingParams(0.0))
    with serving() as server:
        _, three, bodies = sampled(server, n=3, params=SamplingParams(0.0))
        assert len(set(texts(three))) == 1
        assert [body["n"] for body in bodies] == [1, 1, 1]


def test_what_a_server_cannot_do_is_refused_with_a_hint():
    with serving() as server:
        with pytest.raises(
            UsageError, match=r"cannot be asked by token ids: the run's tokenizer is unavailable"
        ):
            sampled(server, tokens="require")
        with pytest.raises(UsageError, match="gives no log-probabilities"):
            sampled(server, params=SamplingParams(logprobs=True))


def test_a_server_that_answers_as_another_model_is_refused():
    with (
        serving(fault=lambda number, body: "other model") as server,
        pytest.raises(UsageError, match="answered as 'stranger'"),
    ):
        sampled(server)


def test_a_server_without_token_ids_is_asked_by_chat(chat):
    with serving() as server:
        policy = open_served(settings(server), ServedModel("walker"), "run/sft", chat)
        assert policy.provenance["way"] == "chat"
        asyncio.run(policy.close())
        with pytest.raises(UsageError, match="it rejects them"):
            open_served(settings(server, tokens="require"), ServedModel("walker"), "run/sft", chat)


# -- a context that is full


@pytest.mark.parametrize(
    ("status", "text", "code", "room"),
    [
        (400, "request (1100 tokens) exceeds the available context size (512 tokens), "
         "try increasing it", "exceed_context_size_error", 0),
        (400, "This model's maximum context length is 4097 tokens. However, you requested 4100 "
         "tokens (4000 in the messages, 100 in the completion). Please reduce the length of the "
         "messages or completion.", "context_length_exceeded", 97),
        (400, "'max_tokens' or 'max_completion_tokens' is too large: 5000. This model's maximum "
         "context length is 4096 tokens and your request has 30 input tokens (5000 > 4096 - 30).",
         "BadRequestError", 4066),
        (400, "This model's maximum context length is 512 tokens. However, your prompt contains "
         "600 input tokens.", "", 0),
        (400, "max_tokens is too large: 5000. This model supports at most 4096 completion tokens",
         "invalid_value", None),
        (400, "top_k must be positive", "", None),
        (500, "context length", "", None),
    ],
)  # fmt: skip
def test_the_room_that_a_rejection_reports(status, text, code, room):
    assert room_left(RequestRejected(status, text, code)) == room


# -- money


def test_prices():
    prices = PricesConfig(prompt=2.0, cached=0.5, generated=10.0)
    usage = Usage(1, prompt_tokens=100, cached_tokens=60, generated_tokens=3)
    assert price(usage, prices).cost == pytest.approx((40 * 2 + 60 * 0.5 + 3 * 10) / 1e6)
    assert price(usage, PricesConfig(prompt=2.0)).cost == pytest.approx(100 * 2 / 1e6)
    policy = uniform()
    assert priced(policy, PricesConfig()) is policy
    [completion] = asyncio.run(priced(policy, prices).sample(ASK, 1, PARAMS, 0))
    assert completion.usage.cost > 0
    assert priced(policy, prices).provenance == policy.provenance


def test_the_usage_of_several_answers_counts_the_prompt_once():
    with serving() as server:
        _, four, _ = sampled(server, n=4)
        assert [(one.usage.prompt_tokens, one.usage.cached_tokens) for one in four] == [
            (100, 60)
        ] + [(0, 0)] * 3
        assert sum(one.usage.generated_tokens for one in four) == 12
        assert sum(one.usage.policy_calls for one in four) == 4


# -- in a run


@pytest.mark.parametrize(
    "url",
    [
        "http://me:pass-word@host/v1",
        "https://host/v1?api-key=pass-word",
        "http://host/v1#pass-word",
    ],
)
def test_an_address_with_a_secret_is_refused_without_printing_it(url):
    with pytest.raises(
        UsageError, match=r"base_url: write an address without user, password"
    ) as raised:
        check_plugins(parse_config({"policy": {"openai": {"base_url": url}}}, "r"), "r")
    assert "pass-word" not in str(raised.value)


def test_an_address_without_a_scheme_is_refused():
    with pytest.raises(UsageError, match="must be an http"):
        connect(OpenAIConfig(base_url="localhost:8000"))


@pytest.fixture
def make_run(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "rro.pipeline.run.open_environment",
        lambda section: TreeBenchmark({"t": {"a": 1.0, "b": 0.0}}),
    )
    assert open_environment  # what is replaced exists

    def make(server, **options):
        config = Config.model_validate(
            {"policy": {"backend": "openai", "openai": {"base_url": server.base_url, **options}}}
        )
        folder = RunFolder.create(config, tmp_path / f"run{len(list(tmp_path.iterdir()))}")
        return Run(folder, Journal(folder.journal))

    return make


def served(run, label=None):
    policy = open_policy(run, label or run.label(0))
    asyncio.run(policy.close())
    return policy.provenance["model"]


def test_which_model_is_used(make_run):
    with serving(models=("walker", "runner")) as server:
        with pytest.raises(
            UsageError, match=r"lists walker, runner: choose one in policy\.openai\.model"
        ):
            served(make_run(server))
        with pytest.raises(UsageError, match=r"has no model 'flyer'; it lists walker, runner"):
            served(make_run(server, model="flyer"))
        assert served(make_run(server, model="runner")) == "runner"
        assert served(make_run(server, models={"base": "walker"})) == "walker"
    with serving() as server:
        assert served(make_run(server)) == "walker"


def test_weights_of_this_run_must_be_served_by_name(make_run):
    with serving(models=("walker", "rro-1")) as server:
        run = make_run(server, model="walker", tokens="none")
        run.journal.append("stage", "sft", {})
        with pytest.raises(
            UsageError, match=r"policy\.openai\.models\.sft, or .* policy\.backend = \"vllm\""
        ):
            served(run)
        assert served(run, "rro-1") == "rro-1"
        mapped = make_run(server, models={"sft": "walker"}, tokens="none")
        mapped.journal.append("stage", "sft", {})
        assert served(mapped) == "walker"


def test_explorer_and_pricer_share_a_pool_and_are_journalled(make_run):
    with serving(models=("walker", "runner")) as server:
        run = make_run(server, models={"sft": "walker", "rro-1": "runner"}, tokens="none")
        run.journal.append("stage", "sft", {})
        for _ in range(2):  # a resumed stage meets the same, and adds nothing
            policies = Policies(run, "rro-1", "explore-2", frozen_pricer=True)
            assert policies.explorer.client is policies.pricer.client
            policies.close()
        records = {record["key"]: record for record in run.journal.records("policy")}
        assert list(records) == ["explore-2/explorer/0", "explore-2/pricer/0"]
        assert records["explore-2/explorer/0"]["model"] == "runner"
        assert records["explore-2/pricer/0"]["policy"] == "run/sft"
        assert records["explore-2/pricer/0"]["token_ids"] is False
        assert len({id(connection) for connection in server.connections}) < 40
        with pytest.raises(UsageError):
            open_policy(run, "rro-2")
        settings = OpenAIConfig(**run.config.policy.model_extra["openai"])
        link = connect(settings)  # nothing was left open
        assert link.requests == 0
        disconnect(link)
