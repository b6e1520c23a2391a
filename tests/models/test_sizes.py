"""How large a model is, without loading it."""

import json

import pytest

from rro.config import ModelConfig, TinyConfig
from rro.models.loading import build_tiny
from rro.models.sizes import model_size

DIMENSIONS = {
    "num_hidden_layers": 26,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_attention_heads": 8,
    "head_dim": 256,
    "num_key_value_heads": 4,
    "vocab_size": 256_000,
    "max_position_embeddings": 8192,
    "attn_logit_softcapping": 50.0,
}


@pytest.fixture(autouse=True)
def no_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Qwen/Qwen2.5-1.5B-Instruct", 1_500_000_000),
        ("google/gemma-2-2b-it", 2_000_000_000),
        ("HuggingFaceTB/SmolLM2-135M", 135_000_000),
        ("owner/llama-3.1-8B_chat", 8_000_000_000),
    ],
)
def test_a_model_that_is_not_at_hand_is_as_large_as_its_name_says(name, parameters):
    size = model_size(ModelConfig(name=name))
    assert (size.parameters, size.counted, size.shape) == (parameters, False, None)


@pytest.mark.parametrize("name", ["openai-community/gpt2", "owner/model-4bit", "no name at all"])
def test_a_name_may_say_nothing(name):
    assert model_size(ModelConfig(name=name)) is None


def test_files_are_counted_whatever_their_precision(tmp_path):
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    folder = tmp_path / "model-7b"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(DIMENSIONS))
    assert model_size(ModelConfig(name=str(folder))).parameters == 7_000_000_000
    for number, dtype in enumerate((torch.bfloat16, torch.float32)):
        weights = {"w": torch.zeros(3, 5, dtype=dtype)}
        save_file(weights, folder / f"model-{number}.safetensors", metadata={"format": "pt"})
    size = model_size(ModelConfig(name=str(folder)))
    assert (size.parameters, size.counted) == (30, True)
    # keys and values of 4 heads of 256 in 26 layers
    assert (size.shape.kv_values, size.shape.softcap) == (2 * 4 * 256 * 26, True)


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({**DIMENSIONS, "hidden_size": None})])
def test_a_damaged_config_leaves_the_dimensions_open(tmp_path, text):
    folder = tmp_path / "toy-1b"
    folder.mkdir()
    (folder / "config.json").write_text(text)
    (folder / "model.safetensors").write_bytes(b"nothing")
    size = model_size(ModelConfig(name=str(folder)))
    assert (size.parameters, size.shape) == (10**9, None)


def test_a_model_from_scratch_is_about_as_large_as_what_is_made(tmp_path):
    sizes = TinyConfig(hidden_size=32, intermediate_size=64, heads=4, kv_heads=4, vocabulary=300)
    build_tiny(sizes, ["some text to learn from"], 0, tmp_path / "tiny")
    stated = model_size(ModelConfig(name="tiny", tiny=sizes))
    made = model_size(ModelConfig(name=str(tmp_path / "tiny")))
    assert made.counted
    assert stated.parameters == pytest.approx(made.parameters, rel=0.05)
    assert stated.shape.kv_values == made.shape.kv_values
