"""vLLM itself on SmolLM2, as a server and in process: what it draws, with what probability, from
which of two models.

Needs an interpreter with vLLM: RRO_VLLM_PYTHON, or .venv-vllm (make vllm)."""

import asyncio
import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from doors import Doors
from fakes import explore, fresh_journal, make_context
from peft import LoraConfig, get_peft_model
from vllm_in_process import QUESTION, ask, recipe

import rro
from rro.environments.base import TaskList
from rro.exploration.strategies.fixed_size import FixedSizeExploration
from rro.models.chat import ChatFormat
from rro.models.loading import load_model, smollm2_folder
from rro.policies.local.policy import TransformersPolicy
from rro.policies.vllm import shared
from rro.policies.vllm.backend import open_vllm
from rro.types import Message, SamplingParams, Source, Task

pytestmark = pytest.mark.slow
HERE, CLOSE = Path(__file__).parent, 1e-3  # nats a token, float32 against float32


@pytest.fixture(scope="module")
def python():
    found = Path(
        os.environ.get("RRO_VLLM_PYTHON", HERE.parents[1] / ".venv-vllm" / "bin" / "python")
    )
    if not found.exists():
        pytest.skip(f"no vLLM at {found}: make vllm, or set RRO_VLLM_PYTHON")
    return found


@pytest.fixture(scope="module")
def base():
    return smollm2_folder()


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    """A LoRA adapter that says other things than its base."""
    folder = tmp_path_factory.mktemp("adapter") / "rro-1"
    torch.manual_seed(0)
    model, _ = load_model(recipe(base, "float32").model, None, train=True)
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.01)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(base, adapter):
    """Transformers' own: the adapter merged into the base, and the base."""
    config = recipe(base, "float32").model.model_copy(update={"dtype": "float32"})
    return {
        "explorer": load_model(config, adapter, train=False),
        "pricer": load_model(config, None, train=False),
    }


@pytest.fixture(scope="module")
def served(python, base, adapter, tmp_path_factory):
    """Explorer and pricer on one server."""
    config, logs = recipe(base, "float32", python), tmp_path_factory.mktemp("logs")
    policies = {
        "explorer": open_vllm(config, adapter, "t/rro-1", logs),
        "pricer": open_vllm(config, None, "t/sft", logs),
    }
    yield policies
    for policy in policies.values():
        asyncio.run(policy.close())
    assert not shared._used


@pytest.fixture(scope="module")
def said(served):
    return {who: asyncio.run(ask(policy)) for who, policy in served.items()}


@pytest.fixture(scope="module")
def in_process(python, base, adapter, tmp_path_factory):
    """The same questions to an engine inside a process of the other environment."""
    out = tmp_path_factory.mktemp("out") / "said.json"
    environment = {**os.environ, "PYTHONPATH": str(Path(rro.__file__).parents[1])}
    command = [python, HERE / "vllm_in_process.py", base, adapter, "float32", out]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1000)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(out.read_text())


def logprobs_of(model, prompt, ids):
    """What the model itself gives each of `ids` after `prompt`, at temperature 1."""
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1].float()
    return torch.log_softmax(logits, -1).gather(-1, torch.tensor(ids)[:, None])[:, 0]


def check(said, model, tokenizer):
    """Everything that both engines promise, of one policy's answers."""
    chat = ChatFormat(tokenizer)
    prompt = chat.encode(QUESTION, True).ids
    for one in (*said["first"], *said["greedy"]):
        ids = list(one["message"]["token_ids"])
        expected = logprobs_of(model, prompt, ids)
        assert (torch.tensor(one["logprobs"]) - expected).abs().max() < CLOSE
        answer = Message("assistant", one["message"]["content"], Source.POLICY, tuple(ids))
        trained = chat.encode([*QUESTION, answer], False)
        assert [
            id_ for id_, in_loss in zip(trained.ids, trained.mask, strict=True) if in_loss
        ] == ids  # no drift
        assert trained.ids[: len(prompt)] == prompt
        assert one["message"]["content"] == chat.decode(ids)
        assert one["finish"] == ("stop" if ids[-1] in chat.end_ids else "length")
    tokens = {
        name: [tuple(one["message"]["token_ids"]) for one in said[name]]
        for name in ("first", "again", "alive")
    }
    assert len(set(tokens["first"])) == 3
    assert tokens["again"] == tokens["first"]  # whatever else is in flight
    assert tokens["alive"] == tokens["first"][:1]  # after an abort, and for another n
    for whole, cut in zip(said["first"], said["stopped"], strict=False):
        assert cut["message"]["content"] == whole["message"]["content"].partition("e")[0]
        assert len(cut["logprobs"]) == len(cut["message"]["token_ids"])
    assert [one["finish"] for one in said["full"]] == ["context"] * 2
    assert said["cancelled"]
    usage = said["known"][0]["usage"]
    assert 150 < usage["cached_tokens"] < usage["prompt_tokens"]


@pytest.mark.parametrize("who", ["explorer", "pricer"])
def test_a_server_draws_from_the_model_that_it_is_asked_for(said, models, who):
    check(said[who], *models[who])


def test_two_policies_share_one_server_and_say_different_things(said, served):
    assert served["explorer"]._engine is served["pricer"]._engine
    assert said["explorer"]["first"] != said["pricer"]["first"]
    assert [policy.provenance["engine"] for policy in served.values()] == ["server", "server"]


@pytest.mark.parametrize("who", ["explorer", "pricer"])
def test_an_engine_in_this_process_does_the_same(in_process, models, who):
    check(in_process[who], *models[who])


def test_in_process_too_one_engine_serves_both_and_ends_with_the_last(in_process):
    assert (in_process["engines"], in_process["shared"], in_process["left"]) == (1, 1, 0)
    assert [one["engine"] for one in in_process["provenance"]] == ["in process"] * 2


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
