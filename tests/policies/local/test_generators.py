"""Generators against the model itself: the same log-probabilities, whatever shares the batch."""

import random
from collections import deque
from typing import Any

import pytest
import torch
from tiny_model import SAMPLED, expected_logprobs
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from rro.policies.local.generators import (
    SHARE_FROM,
    EqualLengthGenerator,
    GeneratorOptions,
    make_generator,
)
from rro.policies.local.kv_slots import plain_layout
from rro.policies.local.prefix_cache import BLOCK, PrefixCache
from rro.policies.local.sampling import Generator, Row
from rro.policies.local.slot_generator import SlotGenerator, SlotOptions


@pytest.mark.parametrize(
    "options",
    [
        SlotOptions(256, BLOCK),
        SlotOptions(256),
        SlotOptions(256, BLOCK, prompt_tokens=7),
        SlotOptions(256, BLOCK, packed=False),
    ],
)
def test_growing_and_branching_histories_get_the_models_own_probabilities(
    tiny: tuple[Any, Any], options: SlotOptions
) -> None:
    """Shared prefixes, equal prompts, evictions, rows that come and go and prompts that take
    several passes, against one plain forward pass per row."""
    model, generator = tiny[0], random.Random(4)
    with torch.inference_mode():
        layout = plain_layout(model(torch.tensor([[1, 2]]), use_cache=True).past_key_values, 256)
        slots = SlotGenerator(
            model, frozenset(), lambda ids: "", 6, layout, PrefixCache(400), options
        )
        histories = [
            tuple(generator.choices(range(260), k=generator.randrange(1, 70))) for _ in range(4)
        ]
        waiting, finished, made = deque[Row](), [], 0
        while made < 40 or waiting or slots.rows:
            if made < 40 and generator.random() < 0.5:
                history = generator.choice(histories)
                for _ in range(generator.choice([1, 1, 3])):
                    waiting.append(Row(history, SAMPLED, made, generator.randrange(1, 9)))
                    made += 1
            for row in slots.admit(waiting) + slots.step():
                finished.append(row)
                histories.append(
                    (*row.ids, *generator.choices(range(260), k=generator.randrange(1, 25)))
                )
                histories = [history for history in histories if len(history) < 200]
        assert slots.prefixes.tokens <= 400
    assert len(finished) == made
    for row in finished:
        assert torch.allclose(
            torch.tensor(row.logprobs), expected_logprobs(model, row.prompt, row.tokens), atol=1e-4
        )


def test_an_abandoned_row_leaves_its_prompt_to_those_that_wait_for_it(
    tiny: tuple[Any, Any],
) -> None:
    with torch.inference_mode():
        layout = plain_layout(tiny[0](torch.tensor([[1, 2]]), use_cache=True).past_key_values, 256)
        options = SlotOptions(256, BLOCK, prompt_tokens=7)
        slots = SlotGenerator(
            tiny[0], frozenset(), lambda ids: "", 6, layout, PrefixCache(400), options
        )
        rows = [Row(tuple(range(3, 43)), SAMPLED, seed, 4) for seed in range(3)]
        waiting, done = deque(rows), slots.admit(deque())
        while waiting or slots.rows:
            done += slots.admit(waiting) + slots.step()
            rows[0].finish = "length"  # while its prompt is being computed
    assert sorted(map(id, done)) == sorted(map(id, rows))
    for row in rows[1:]:
        assert torch.allclose(
            torch.tensor(row.logprobs),
            expected_logprobs(tiny[0], row.prompt, row.tokens),
            atol=1e-4,
        )


SIZE = {"vocab_size": 200, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0}
HEADS = {"intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}


def architectures() -> dict[str, tuple[Any, type[Generator]]]:
    torch.manual_seed(0)
    return {
        "softcap, window never slides": (
            Gemma2ForCausalLM(
                Gemma2Config(**SIZE, **HEADS, sliding_window=128, query_pre_attn_scalar=8)
            ),
            SlotGenerator,
        ),
        "sliding window": (
            MistralForCausalLM(MistralConfig(**SIZE, **HEADS, sliding_window=10)),
            EqualLengthGenerator,
        ),
        "state space": (
            MambaForCausalLM(MambaConfig(**SIZE, state_size=4, num_heads=2)),
            EqualLengthGenerator,
        ),
    }


@pytest.mark.parametrize("kind", ["softcap, window never slides", "sliding window", "state space"])
def test_any_architecture_is_sampled_correctly(kind: str) -> None:
    """Its generator is chosen by its cache and by trying, not from a list of names."""
    model, wanted = architectures()[kind]
    model.eval()
    with torch.inference_mode():
        generator = make_generator(
            model, frozenset(), lambda ids: "", GeneratorOptions(3, 128, 10_000)
        )
        assert type(generator) is wanted
        rows = [
            Row(tuple(range(3, 3 + length)), SAMPLED, seed, 7)
            for seed, length in enumerate((9, 20, 9, 9, 9, 20))
        ]
        waiting, done = deque(rows), []
        while waiting or generator.rows:
            done += generator.admit(waiting) + generator.step()
    assert sorted(map(id, done)) == sorted(map(id, rows))
    for row in rows:
        assert torch.allclose(
            torch.tensor(row.logprobs), expected_logprobs(model, row.prompt, row.tokens), atol=1e-4
        )


@pytest.mark.parametrize("share", [True, False])
def test_a_plain_model_gets_slots_and_on_a_cpu_shared_prefixes(
    tiny: tuple[Any, Any], share: bool
) -> None:
    model = tiny[0]
    with torch.inference_mode():
        options = GeneratorOptions(3, 128, shared_prefixes=share)
        generator = make_generator(model, frozenset(), lambda ids: "", options)
    assert isinstance(generator, SlotGenerator)
    shares = share and model.device.type == "cpu"
    assert generator.options.share_from == (SHARE_FROM if shares else None)
    assert model.config._attn_implementation == "sdpa"
