"""Which weights vLLM serves, and with which engine arguments."""

import json
import os
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from rro.config import ModelConfig, PolicyConfig
from rro.errors import UsageError
from rro.models.loading import load_model
from rro.policies.vllm.options import (
    ServedWeights,
    command_line,
    environment,
    find_weights,
    lora_options,
    server_options,
)
from rro.policies.vllm.settings import VllmConfig


def adapter(folder, **settings):
    folder.mkdir()
    settings = {"peft_type": "LORA", "r": 12, "base_model_name_or_path": None} | settings
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def test_arguments_are_what_the_command_line_takes():
    options = {
        "model": "m",
        "enforce_eager": True,
        "enable_chunked_prefill": False,
        "rope": {"a": 1},
        "x": [1, 2],
        "y": None,
    }
    words = [
        "--model",
        "m",
        "--enforce-eager",
        "--no-enable-chunked-prefill",
        "--rope",
        '{"a": 1}',
        "--x",
        "1",
        "2",
    ]
    assert command_line(options) == words


def test_on_a_cpu_prompts_are_not_chunked_and_memory_is_bounded(tiny):
    policy = PolicyConfig(prefix_cache_tokens=5000, max_context=600)
    options = server_options(ModelConfig(device="cpu"), policy, VllmConfig(), str(tiny))
    assert options["enable_chunked_prefill"] is False
    assert options["max_num_batched_tokens"] >= options["max_model_len"] == 600
    assert options["dtype"] == "float32"
    assert (
        options["kv_cache_memory_bytes"] == 5000 * 2 * 2 * 2 * 16 * 4
    )  # layers, keys and values, heads, width, bytes
    huge = server_options(
        ModelConfig(device="cpu"), PolicyConfig(prefix_cache_tokens=10**12), VllmConfig(), str(tiny)
    )
    assert (
        huge["kv_cache_memory_bytes"] < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 3
    )


def test_the_cache_always_holds_two_whole_contexts(tiny):
    options = server_options(
        ModelConfig(device="cpu"), PolicyConfig(prefix_cache_tokens=0), VllmConfig(), str(tiny)
    )
    assert options["enable_prefix_caching"] is False
    assert options["kv_cache_memory_bytes"] == 2 * 1024 * 2 * 2 * 2 * 16 * 4


def test_the_recipe_overrides_engine_arguments(tiny):
    vllm = VllmConfig(dtype="bfloat16", options={"enforce_eager": False, "block_size": 64})
    options = server_options(ModelConfig(device="cpu"), PolicyConfig(), vllm, str(tiny))
    assert (options["dtype"], options["enforce_eager"], options["block_size"]) == (
        "bfloat16",
        False,
        64,
    )


def test_variables_that_the_user_has_set_are_kept(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert "OMP_NUM_THREADS" not in environment(1)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert environment(3)["OMP_NUM_THREADS"] == "3"


# -- weights


def test_a_whole_checkpoint_is_served_unchanged(tiny):
    assert find_weights(ModelConfig(), tiny) == ServedWeights(str(tiny))
    assert lora_options(0) == {}


def test_an_adapter_is_put_on_its_base(tiny, tmp_path):
    folder = adapter(tmp_path / "a", base_model_name_or_path=str(tiny), rank_pattern={"q_proj": 20})
    assert find_weights(ModelConfig(), folder) == ServedWeights(str(tiny), folder, 20)
    assert lora_options(20) == {"enable_lora": True, "max_lora_rank": 32, "max_loras": 2}


@pytest.mark.parametrize(
    "settings",
    [{"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"peft_type": "IA3"}, {"r": 999}],
)
def test_an_adapter_that_vllm_cannot_load_is_refused(tiny, tmp_path, settings):
    folder = adapter(tmp_path / "a", base_model_name_or_path=str(tiny), **settings)
    with pytest.raises(UsageError, match="vLLM cannot load this adapter"):
        find_weights(ModelConfig(), folder)


@pytest.fixture(scope="module")
def iterations(tiny, tmp_path_factory):
    """checkpoints/sft, and two iterations of LoRA from it, as training leaves them."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    shutil.copytree(tiny, folder / "sft")
    torch.manual_seed(0)
    for before, after in (("sft", "rro-1"), ("rro-1", "rro-2")):
        model, tokenizer = load_model(ModelConfig(device="cpu"), folder / before, train=True)
        model = get_peft_model(
            model,
            LoraConfig(r=3, lora_alpha=5, target_modules="all-linear", init_lora_weights=False),
        )
        model.save_pretrained(folder / "adapter")
        model.merge_and_unload().save_pretrained(folder / after)
        tokenizer.save_pretrained(folder / after)
        (folder / "adapter").rename(folder / after / "adapter")
    return folder


@pytest.mark.parametrize(("label", "rank"), [("rro-1", 3), ("rro-2", 6)])
def test_iterations_by_lora_are_one_adapter_on_the_sft_policy(iterations, tmp_path, label, rank):
    moved = tmp_path / "elsewhere"
    shutil.copytree(iterations, moved)
    for _ in range(2):  # the second time the stack is there
        found = find_weights(ModelConfig(device="cpu"), moved / label, moved / "sft")
        assert (found.whole, found.rank) == (str(moved / "sft"), rank)
    ids = torch.tensor([[5, 9, 30, 4, 77]])
    merged, _ = load_model(ModelConfig(device="cpu"), moved / label, train=False)
    base, _ = load_model(ModelConfig(device="cpu"), moved / "sft", train=False)
    with torch.inference_mode():
        alone = base(ids).logits
        adapted = PeftModel.from_pretrained(base, found.adapter)(ids).logits
        assert (adapted - merged(ids).logits).abs().max() < 1e-4
        assert (adapted - alone).abs().max() > 1e-2


def test_without_adapters_between_them_a_checkpoint_is_served_whole(iterations, tiny):
    for checkpoint, start in (
        (iterations / "sft", iterations / "sft"),
        (iterations / "rro-1", tiny),
        (tiny, iterations / "sft"),
    ):
        assert find_weights(ModelConfig(), checkpoint, start) == ServedWeights(str(checkpoint))
