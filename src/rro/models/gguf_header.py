"""What a GGUF file says of itself: metadata and the list of its tensors, checked against the file's
size, so that a damaged or hostile file is refused before anything is computed with it.

Reads the header alone, and imports neither torch nor Transformers. What a tensor holds is read by
Transformers (`rro.models.gguf`). Format: version 2 and 3 of the specification of GGUF, as llama.cpp
writes it."""

from __future__ import annotations

import importlib.util
import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from rro.errors import UsageError, reason_of

# Types of values, by their numbers, as `struct` names them.
_NUMBERS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_TEXT, _ARRAY = 8, 9
_LENGTH = struct.Struct("<Q")
# Longest name and largest count that a header may have, and its largest size in bytes.
_LONGEST, _MOST, _LARGEST = 1 << 16, 1 << 24, 1 << 29
# Sizes in the metadata that are, or are below, a dimension of a tensor.
_SIZES = (
    "vocab_size",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "rope.dimension_count",
    "expert_count",
    "expert_feed_forward_length",
)


@dataclass(frozen=True)
class GgufHeader:
    """A GGUF file's metadata by key, and the shape of each tensor by its name."""

    metadata: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture."""
        return str(self.metadata["general.architecture"])

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(prod(shape) for shape in self.shapes.values())

    def get(self, key: str) -> Any:
        """A value of the architecture, such as `block_count`; None where there is none."""
        return self.metadata.get(f"{self.architecture}.{key}")


def is_gguf(name: str) -> bool:
    """Whether `model.name` means a GGUF file."""
    return name.lower().endswith(".gguf")


def read_header(path: Path) -> GgufHeader:
    """The header of a file that holds a whole language model. Raises UsageError that names the file
    and what is wrong with it: it is missing, damaged, or something else than a whole model; and
    where the package gguf is not installed."""
    if importlib.util.find_spec("gguf") is None:
        raise UsageError(f"{path} needs the package gguf: pip install gguf")
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            header = _header(_Reader(data), len(data))
    except OSError as error:
        raise UsageError(f"{path}: {reason_of(error)}") from None
    except (ValueError, struct.error, UnicodeDecodeError) as error:
        # an empty file cannot be mapped; struct.error: the file ends inside its header
        reason = "it ends inside its header" if isinstance(error, struct.error) else str(error)
        raise UsageError(f"{path}: not a whole GGUF file: {reason}; fetch it again") from None
    if problem := _unusable(header):
        raise UsageError(f"{path}: {problem}")
    return header


def _header(reader: _Reader, size: int) -> GgufHeader:
    if reader.take(4) != b"GGUF":
        raise ValueError("it does not begin with GGUF")
    version, tensors, pairs = reader.unpack("IQQ")
    if version not in (2, 3):
        raise ValueError(f"version {version} of the format is unknown (2 and 3 are)")
    metadata = {reader.name(): reader.value() for _ in range(_counted(pairs))}
    if not isinstance(metadata.get("general.architecture"), str):
        raise ValueError("it names no architecture")
    entries = [reader.tensor() for _ in range(_counted(tensors))]
    start = _aligned(reader.position, metadata.get("general.alignment", 32))
    ends = (start + offset + _bytes(kind, shape) for _, shape, kind, offset in entries)
    if (end := max(ends, default=0)) > size:
        raise ValueError(f"its tensors take {end} bytes, but it has {size}")
    return GgufHeader(metadata, {name: shape for name, shape, _, _ in entries})


class _Reader:
    """Walks over the bytes of a header. Raises struct.error or ValueError where they make none."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self.position = data, 0

    def take(self, count: int) -> bytes:
        end = self.position + count
        if end > min(len(self._data), _LARGEST):
            raise struct.error
        taken, self.position = self._data[self.position : end], end
        return taken

    def unpack(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack(f"<{layout}", self.take(struct.calcsize(f"<{layout}")))

    def text(self) -> str:
        return self.take(self.unpack("Q")[0]).decode("utf-8", "replace")

    def name(self) -> str:
        (length,) = self.unpack("Q")
        if length > _LONGEST:
            raise ValueError("a name in it is too long")
        return self.take(length).decode("utf-8")

    def value(self) -> Any:
        """A value; of an array of texts, their number alone."""
        (kind,) = self.unpack("I")
        if kind in _NUMBERS:
            return self.unpack(_NUMBERS[kind])[0]
        if kind == _TEXT:
            return self.text()
        if kind != _ARRAY:
            raise ValueError(f"it has a value of the unknown type {kind}")
        kind, count = self.unpack("IQ")
        if kind in _NUMBERS:
            return self.unpack(f"{_counted(count)}{_NUMBERS[kind]}")
        if kind != _TEXT:
            raise ValueError(f"it has an array of the unknown type {kind}")
        at = self.position
        for _ in range(_counted(count)):
            (length,) = _LENGTH.unpack_from(self._data, at)
            at += _LENGTH.size + min(length, _LARGEST)
        self.take(at - self.position)
        return count

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape (fastest dimension first), type and offset."""
        name, (dimensions,) = self.name(), self.unpack("I")
        if not 0 < dimensions <= 4:
            raise ValueError(f"tensor {name} has {dimensions} dimensions")
        shape = self.unpack(f"{dimensions}Q")
        if 0 in shape:
            raise ValueError(f"tensor {name} is empty")
        kind, offset = self.unpack("IQ")
        return name, shape, kind, offset


def _counted(count: int) -> int:
    if count > _MOST:
        raise ValueError(f"it counts {count} entries in its header")
    return count


def _aligned(position: int, alignment: Any) -> int:
    if not isinstance(alignment, int) or not 0 < alignment <= _LONGEST:
        raise ValueError(f"its tensors are aligned to {alignment} bytes")
    return -(-position // alignment) * alignment


def _bytes(kind: int, shape: tuple[int, ...]) -> int:
    """What a tensor takes in the file."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    except (KeyError, ValueError):
        raise ValueError(f"a tensor has the unknown type {kind}") from None
    if shape[0] % block:
        raise ValueError(f"a row of {shape[0]} weights does not fill blocks of {block}")
    return prod(shape) // int(block) * int(size)


def _unusable(header: GgufHeader) -> str | None:
    """Why a file that is whole is no model to start from, or None."""
    kind, parts = header.metadata.get("general.type", "model"), header.metadata.get("split.count")
    if isinstance(parts, int) and parts > 1:
        return f"one of {parts} parts of a model: join them with llama-gguf-split --merge"
    if kind != "model":
        return f"holds no language model, but a part of one ({kind})"
    if "token_embd.weight" not in header.shapes or not header.get("block_count"):
        return "holds no language model: it has no token embeddings or no layers"
    largest = max(max(shape) for shape in header.shapes.values())
    sizes = {"block_count": len(header.shapes), **dict.fromkeys(_SIZES, largest)}
    for key, limit in sizes.items():
        if any(not 0 <= value <= limit for value in _numbers(header.get(key))):
            return f"damaged: its {key} does not fit its tensors"
    return None


def _numbers(value: Any) -> Iterator[float]:
    values = value if isinstance(value, tuple) else () if value is None else (value,)
    for number in values:
        yield number if isinstance(number, int | float) else -1
