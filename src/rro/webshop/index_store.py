"""Where an index's arrays live: in memory, or as .npy files in a folder that is mapped into memory
when opened.

A folder is complete or absent: it is written under a temporary name and renamed. `schema.json` in
it says what the files must be, and is checked on opening. Knows nothing of terms or scores."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rro.errors import DataError, RroError

Array = npt.NDArray[Any]

SCHEMA_FILE = "schema.json"


class StringTable:
    """Strings, stored as UTF-8 one after another with the offsets between them (one more than there
    are strings)."""

    def __init__(self, blob: Array, offsets: Array) -> None:
        # Memory views answer single look-ups several times faster than arrays do.
        self._blob, self._offsets = blob.data, offsets.data

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, position: int) -> bytes:
        return bytes(self._blob[self._offsets[position] : self._offsets[position + 1]])

    def __iter__(self) -> Iterator[bytes]:
        return (self[position] for position in range(len(self)))

    def find(self, text: bytes) -> int | None:
        """The position of `text` in a sorted table, or None."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self[middle] < text:
                low = middle + 1
            else:
                high = middle
        return low if low < len(self) and self[low] == text else None

    @staticmethod
    def pack(strings: Iterable[bytes]) -> tuple[Array, Array]:
        """(blob, offsets) of `strings`."""
        blob, offsets = bytearray(), [0]
        for string in strings:
            blob += string
            offsets.append(len(blob))
        return np.frombuffer(blob, np.uint8), np.array(offsets, np.int64)


class Store(Protocol):
    """Makes named arrays, to be filled by the caller."""

    def new(self, name: str, dtype: npt.DTypeLike, length: int) -> Array: ...


class MemoryStore:
    """Arrays in memory, kept by name in `arrays`."""

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}

    def new(self, name: str, dtype: npt.DTypeLike, length: int) -> Array:
        self.arrays[name] = np.empty(length, dtype)
        return self.arrays[name]


class FolderStore:
    """Arrays in files of `folder`. Raises OSError where the disc has no room for one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.arrays: dict[str, Array] = {}

    def new(self, name: str, dtype: npt.DTypeLike, length: int) -> Array:
        path = self.folder / f"{name}.npy"
        array = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=(length,))
        if hasattr(
            os, "posix_fallocate"
        ):  # else a full disc would kill the process at its first write to the mapping
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        self.arrays[name] = np.asarray(array)
        return self.arrays[name]


@contextmanager
def new_folder(folder: Path, header: Mapping[str, Any]) -> Iterator[FolderStore]:
    """A store whose files become `folder` when the block ends, and vanish if it raises. `header`
    goes into the schema.

    Raises DataError where `folder` exists, RroError where it cannot be written."""
    if folder.exists():
        raise DataError(
            f"{folder} exists already: delete it, or name another folder for the search index"
        )
    work = folder.with_name(f".{folder.name}.building-{os.getpid()}")
    try:
        work.mkdir(parents=True)
        store = FolderStore(work)
        yield store
        files = {name: [array.dtype.str, len(array)] for name, array in store.arrays.items()}
        (work / SCHEMA_FILE).write_text(
            json.dumps({**header, "arrays": files}, indent=1) + "\n", encoding="utf-8"
        )
        work.rename(folder)
    except OSError as error:
        raise RroError(
            f"cannot write the search index {folder}: {error.strerror or error}"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def open_folder(folder: Path, header: Mapping[str, Any]) -> dict[str, Array]:
    """The arrays of a folder, mapped read-only. Raises DataError unless its schema has `header` and
    fits its files."""
    mend = "delete it and build the search index anew"
    try:
        schema = json.loads((folder / SCHEMA_FILE).read_text(encoding="utf-8"))
        files = dict(schema["arrays"])
    except (OSError, UnicodeDecodeError):
        raise DataError(
            f"{folder} holds no search index ({SCHEMA_FILE} cannot be read): build it first"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{folder / SCHEMA_FILE} is damaged: {mend}") from None
    for key, value in header.items():
        if schema.get(key) != value:
            raise DataError(
                f"{folder} has {key} {schema.get(key)!r}, this version of rro reads {value!r}: {mend}"
            )
    return {name: _open_array(folder / f"{name}.npy", form, mend) for name, form in files.items()}


def _open_array(path: Path, form: list[Any], mend: str) -> Array:
    try:
        array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError):
        raise DataError(f"{path} is missing or damaged: {mend}") from None
    if [array.dtype.str, *array.shape] != form:
        raise DataError(f"{path} is not what {SCHEMA_FILE} says: {mend}")
    return array
