"""An open policy takes over other weights: it then answers as one that was opened with them."""

import asyncio
from dataclasses import replace

import pytest
import torch
from tiny_model import SAMPLED, make_tiny

from rro.config import ModelConfig, TinyConfig
from rro.errors import RroError, UsageError
from rro.models.loading import build_tiny, load_model
from rro.policies.local.policy import TransformersPolicy
from rro.policies.local.replicas import ReplicatedPolicy
from rro.types import Message

MODEL = ModelConfig(device="cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Two checkpoints of one model."""
    folder = tmp_path_factory.mktemp("weights")
    model, tokenizer = make_tiny(folder / "made")
    for name in ("old", "new"):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return folder


def local(folder):
    model, tokenizer = load_model(MODEL, folder, train=False)
    return TransformersPolicy(model, tokenizer, folder.name)


async def ask(policy):
    asked = [policy.sample([Message("user", f"red shoes {n}")], 2, SAMPLED, n) for n in range(6)]
    answers = [answer for row in await asyncio.gather(*asked) for answer in row]
    return [(answer.message, answer.policy) for answer in answers]


async def answers_of(policy, *weights):
    """What it answers, asked once before each update and once after the last."""
    try:
        answers = await ask(policy)
        for folder in weights:
            await policy.update(folder, folder.name)
            answers = await ask(policy)
        return answers
    finally:
        await policy.close()


def replicated(folder):
    return ReplicatedPolicy(MODEL, folder, folder.name, 2, 1, {"max_batch": 8})


@pytest.mark.parametrize("opened", [local, pytest.param(replicated, marks=pytest.mark.slow)])
def test_it_answers_as_one_that_was_opened_with_the_new_weights(weights, opened):
    old, new = weights / "old", weights / "new"
    fresh = asyncio.run(answers_of(local(new)))
    assert asyncio.run(answers_of(opened(old), new)) == fresh
    assert asyncio.run(answers_of(local(old))) != fresh


def test_weights_of_another_model_are_refused(weights, tmp_path):
    size = TinyConfig(hidden_size=32, intermediate_size=64, layers=1, heads=2, kv_heads=2)
    build_tiny(size.model_copy(update={"vocabulary": 300}), ["other"], 0, tmp_path / "other")
    with pytest.raises(UsageError, match="another model's weights"):
        asyncio.run(answers_of(local(weights / "old"), tmp_path / "other"))


def test_weights_do_not_change_under_an_answer(weights):
    async def both():
        policy = local(weights / "old")
        long = replace(SAMPLED, max_new_tokens=200)
        asked = asyncio.ensure_future(policy.sample([Message("user", "red")], 4, long, 0))
        try:
            await asyncio.sleep(0)
            with pytest.raises(RroError, match="is answering"):
                await policy.update(weights / "new", "new")
        finally:
            await policy.close()
            await asyncio.gather(asked, return_exceptions=True)

    asyncio.run(both())
