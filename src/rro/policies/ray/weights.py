"""A checkpoint's way to other nodes: through the cluster's object store, in pieces, each of which
reaches a node once. Of one that was trained by a LoRA adapter, the adapter alone goes to replicas
that have what it was trained on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rro.models.adapters import adapter_on, merge

# Bytes of a piece.
_PIECE = 64 << 20
# Adapters in a row, after which the whole model is shipped anew.
_MOST_ADAPTERS = 16


Files = Mapping[str, Sequence[Any]]
"""Files by name, each with references to its pieces."""


class Shipped(NamedTuple):
    """A checkpoint in the object store: the files of a whole model, and those of the adapters that
    are merged into it, one after the other."""

    model: Files
    adapters: tuple[Files, ...] = ()


def ship(checkpoint: Path) -> Shipped:
    """Put the files of a checkpoint into the object store. What it keeps beside the weights, in
    folders of its own, stays here."""
    return Shipped(_files(checkpoint))


def ship_next(checkpoint: Path, before: Path, shipped: Shipped) -> Shipped:
    """As `ship`, of a checkpoint that was trained on `before`, which is there as `shipped`: where
    it was trained by an adapter, that is put there alone."""
    adapter = adapter_on(before, checkpoint)
    if adapter is None or len(shipped.adapters) == _MOST_ADAPTERS:
        return ship(checkpoint)
    return shipped._replace(adapters=(*shipped.adapters, _files(adapter)))


def _files(folder: Path) -> Files:
    return {file.name: _pieces(file) for file in sorted(folder.iterdir()) if file.is_file()}


def _pieces(file: Path) -> list[Any]:
    import numpy as np
    import ray

    size = file.stat().st_size
    content = np.memmap(file, np.uint8, "r") if size else np.empty(0, np.uint8)
    return [ray.put(np.asarray(content[at : at + _PIECE])) for at in range(0, size, _PIECE)]


@contextmanager
def received(weights: Shipped | Path | None) -> Iterator[Path | None]:
    """The checkpoint as a folder of this node, while it is read."""
    if not isinstance(weights, Shipped):
        yield weights
        return
    with tempfile.TemporaryDirectory(prefix="rro-weights-", ignore_cleanup_errors=True) as place:
        folders = [Path(place) / str(number) for number in range(1 + len(weights.adapters))]
        for folder, files in zip(folders, (weights.model, *weights.adapters), strict=True):
            folder.mkdir()
            for name, pieces in files.items():
                _write(folder / name, pieces)
        if weights.adapters:
            merge(folders[1:], folders[0])
        yield folders[0]


def _write(file: Path, pieces: Sequence[Any]) -> None:
    import ray

    with file.open("wb") as out:
        for piece in pieces:
            out.write(memoryview(ray.get(piece)))
