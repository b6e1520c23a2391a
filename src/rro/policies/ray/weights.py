"""A checkpoint's way to other nodes: through the cluster's object store, in pieces, each of which
reaches a node once. Knows nothing of what the files hold."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

# Bytes of a piece.
_PIECE = 64 << 20


class Shipped(NamedTuple):
    """A folder in the object store: its files by name, each with references to its pieces."""

    files: dict[str, list[Any]]


def ship(folder: Path) -> Shipped:
    """Put the files of a checkpoint into the object store. What it keeps beside the weights, in
    folders of its own, stays here."""
    return Shipped(
        {file.name: _pieces(file) for file in sorted(folder.iterdir()) if file.is_file()}
    )


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
    folder = Path(tempfile.mkdtemp(prefix="rro-weights-"))
    try:
        for name, pieces in weights.files.items():
            _write(folder / name, pieces)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(file: Path, pieces: list[Any]) -> None:
    import ray

    with file.open("wb") as out:
        for piece in pieces:
            out.write(memoryview(ray.get(piece)))
