"""GGUF files: as the model that was written into them, made once, and refused where damaged."""

import json
import random
import shutil
import struct

import forked
import pytest
import torch

from rro.cli.main import main
from rro.config import ModelConfig, TinyConfig
from rro.errors import UsageError
from rro.models.chat import ChatFormat
from rro.models.finding import find_model
from rro.models.gguf_header import read_header
from rro.models.loading import build_tiny, load_model
from rro.models.sizes import model_size
from rro.types import Message

pytest.importorskip("gguf", reason="the extra gguf is not installed")

from gguf_toys import write_gguf

SIZE = TinyConfig(
    hidden_size=32,
    intermediate_size=48,
    layers=2,
    heads=2,
    kv_heads=1,
    vocabulary=300,
    context=128,
    split_digits=False,
)
TEXTS = ["search[red shoes 10]", "click[b0912345]", "Thought: it costs 12.50 dollars"] * 4
IDS = torch.arange(20, 60)[None]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rro"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "tiny"
    build_tiny(SIZE, TEXTS, 5, folder)
    return load_model(ModelConfig(device="cpu"), folder, train=True)


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits


def loaded(path, **settings):
    config = ModelConfig(name=str(path), device="cpu", dtype="float32", **settings)
    return load_model(config, None, train=False)


def test_a_file_is_the_model_that_was_written(source, tmp_path, cache):
    path = write_gguf(tmp_path / "toy.gguf", *source)
    config = ModelConfig(name=str(path), device="cpu")
    assert find_model(config).endswith("toy.gguf (llama, 0 M parameters)")
    model, tokenizer = loaded(path)
    assert torch.allclose(logits(model), logits(source[0]), atol=1e-5)
    assert model.config.tie_word_embeddings
    assert model.lm_head.weight is model.model.embed_tokens.weight
    count = sum(parameter.numel() for parameter in model.parameters())
    assert model_size(config).parameters == count
    turns = [Message("user", "search it: b0912345, 12.50 €"), Message("assistant", "click[red]")]
    ours, theirs = ChatFormat(tokenizer), ChatFormat(source[1])
    assert ours.encode(turns, False) == theirs.encode(turns, False)
    assert ours.end_of_turn == theirs.end_of_turn
    [folder] = cache.iterdir()
    assert folder.name.startswith("toy-")
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"


def test_an_output_matrix_of_its_own_stays_untied(source, tmp_path):
    model, tokenizer = source
    torch.manual_seed(0)
    output = torch.randn_like(model.lm_head.weight)
    untied, _ = loaded(write_gguf(tmp_path / "own.gguf", model, tokenizer, output=output))
    assert not untied.config.tie_word_embeddings
    assert torch.equal(untied.lm_head.weight, output)
    assert torch.equal(untied.model.embed_tokens.weight, model.model.embed_tokens.weight)
    twice = write_gguf(tmp_path / "twice.gguf", model, tokenizer, output=model.lm_head.weight)
    tied, _ = loaded(twice)
    assert tied.config.tie_word_embeddings
    assert tied.lm_head.weight is tied.model.embed_tokens.weight


def test_a_file_is_converted_once_wherever_it_is(source, tmp_path, cache):
    path = write_gguf(tmp_path / "toy.gguf", *source)
    loaded(path)
    [folder] = cache.iterdir()
    made = (folder / "config.json").stat().st_mtime_ns
    copy = tmp_path / "elsewhere" / "toy.gguf"
    copy.parent.mkdir()
    shutil.copy(path, copy)
    loaded(copy)
    assert [entry.name for entry in cache.iterdir()] == [folder.name]
    assert (folder / "config.json").stat().st_mtime_ns == made
    # other weights under the same name are another model
    with torch.no_grad():
        changed = load_model(ModelConfig(device="cpu"), folder, train=True)[0]
        changed.model.norm.weight.mul_(2)
    write_gguf(path, changed, source[1])
    assert torch.allclose(logits(loaded(path)[0]), logits(changed), atol=1e-5)
    assert len(list(cache.iterdir())) == 2


def test_what_a_killed_conversion_left_is_removed(source, tmp_path, cache):
    path = write_gguf(tmp_path / "toy.gguf", *source)
    left = cache / "toy-0123.partial-abcd"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    loaded(path)
    assert not left.exists()
    assert len(list(cache.iterdir())) == 1


@pytest.mark.slow
def test_processes_may_convert_at_once(source, tmp_path, cache):
    path = write_gguf(tmp_path / "toy.gguf", *source)
    script = tmp_path / "convert.py"
    script.write_text(
        "import sys; from pathlib import Path; from rro.models.gguf import gguf_folder\n"
        "print(gguf_folder(Path(sys.argv[1])))"
    )
    both = [forked.start(script, path, script=True) for _ in "12"]
    assert [process.ended().returncode for process in both] == [0, 0]
    folders = {process.ended().stdout.strip() for process in both}
    [folder] = cache.iterdir()
    assert folders == {str(folder)}


def test_weights_that_are_missing_are_not_made_up(source, tmp_path, cache):
    path = write_gguf(tmp_path / "hole.gguf", *source, left_out="blk.1.ffn_up.weight")
    with pytest.raises(UsageError, match=r"hole.gguf: damaged: it has no weights for .*up_proj"):
        loaded(path)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    "scaled",
    [
        {"extra": {"rope_freqs.weight": torch.linspace(1, 8, 8)}},
        {"extra": {"rope_factors_long.weight": torch.linspace(1, 8, 8)}},
        {"llama__rope__scaling__type": "yarn"},
    ],
)
def test_scaled_rotary_embeddings_are_refused(source, tmp_path, scaled):
    with pytest.raises(UsageError, match="rotary embeddings are scaled"):
        loaded(write_gguf(tmp_path / "scaled.gguf", *source, **scaled))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"general__type": "adapter"}, "holds no language model, but a part of one (adapter)"),
        ({"split__count": 3}, "one of 3 parts of a model: join them"),
        ({"llama__block_count": 2**31}, "its block_count does not fit its tensors"),
        ({"llama__embedding_length": 2**31}, "its embedding_length does not fit"),
        ({"llama__attention__head_count": 2**31}, "its attention.head_count does not fit"),
        ({"llama__feed_forward_length": 2**31}, "its feed_forward_length does not fit"),
        ({"llama__embedding_length": "wide"}, "its embedding_length does not fit"),
    ],
)
def test_metadata_that_cannot_be_right_is_refused(source, tmp_path, fields, reason):
    path = write_gguf(tmp_path / "odd.gguf", *source, **fields)
    with pytest.raises(UsageError) as caught:
        find_model(ModelConfig(name=str(path)))
    assert str(caught.value).startswith(f"{path}: ")
    assert reason in str(caught.value)


def test_sizes_that_do_not_fit_each_other_are_refused(source, tmp_path, cache):
    path = write_gguf(tmp_path / "odd.gguf", *source, llama__embedding_length=16)
    with pytest.raises(UsageError, match=r"odd.gguf cannot be loaded: ") as caught:
        loaded(path)
    assert "\n" not in str(caught.value)
    assert list(cache.iterdir()) == []


def test_a_damaged_file_is_one_sentence(source, tmp_path):
    whole = write_gguf(tmp_path / "whole.gguf", *source).read_bytes()
    path = tmp_path / "torn.gguf"
    for length in (0, 3, 4, 20, 24, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UsageError, match=r"torn.gguf: not a whole GGUF file: ") as caught:
            read_header(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("offset", "content"),
    [
        (4, struct.pack("<I", 9)),  # an unknown version
        (8, struct.pack("<Q", 2**63)),  # tensors without end
        (16, struct.pack("<Q", 2**40)),  # metadata without end
        (24, struct.pack("<Q", 2**60)),  # a name without end
        (8, struct.pack("<Q", 2**24)),
    ],
)
def test_a_hostile_header_is_refused_at_once(source, tmp_path, offset, content):
    path = write_gguf(tmp_path / "bad.gguf", *source)
    data = bytearray(path.read_bytes())
    data[offset : offset + len(content)] = content
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"bad.gguf: not a whole GGUF file: "):
        read_header(path)


def test_any_flipped_byte_of_the_header_is_survived(source, tmp_path):
    path = write_gguf(tmp_path / "toy.gguf", *source)
    whole, draw = path.read_bytes(), random.Random(0)
    end = whole.rindex(b"output_norm.weight") + 40
    refused = []
    for _ in range(400):
        data = bytearray(whole)
        data[draw.randrange(end)] = draw.randrange(256)
        path.write_bytes(data)
        try:
            read_header(path)
        except UsageError as error:
            refused.append(str(error))
    assert len(refused) > 20
    assert not any("\n" in sentence for sentence in refused)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b""), "not a whole GGUF file"),
        (lambda path: path.write_text("version https://git-lfs.github.com"), "does not begin with"),
        (lambda path: path.mkdir(), "no such file"),
    ],
)
def test_rro_check_says_what_is_wrong_with_a_file(tmp_path, capsys, make, reason):
    path = tmp_path / "some.gguf"
    make(path)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'sft = "none"\n[environment]\nname = "webshop"\n[model]\nname = "{path}"\n')
    assert main(["check", str(recipe)]) == 2
    [line] = [line for line in capsys.readouterr().out.splitlines() if "some.gguf" in line]
    assert line.startswith("wrong model: ")
    assert reason in line


def test_a_file_without_a_chat_template_asks_for_one(source, tmp_path):
    model, tokenizer = source
    template, tokenizer.chat_template = tokenizer.chat_template, ""
    try:
        path = write_gguf(tmp_path / "bare.gguf", model, tokenizer)
    finally:
        tokenizer.chat_template = template
    with pytest.raises(UsageError, match=r"name a Jinja file in model.chat_template"):
        find_model(ModelConfig(name=str(path)))
    file = tmp_path / "chat.jinja"
    file.write_text(template)
    assert "bare.gguf" in find_model(ModelConfig(name=str(path), chat_template=file))
    assert loaded(path, chat_template=file)[1].chat_template == template


def test_a_file_needs_a_package(source, tmp_path, monkeypatch):
    path = write_gguf(tmp_path / "toy.gguf", *source)
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs the package gguf: pip install gguf"):
        find_model(ModelConfig(name=str(path)))
