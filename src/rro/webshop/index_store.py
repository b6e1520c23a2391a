"""Storage of a catalogue's arrays: in memory, or as .npy files in a folder that is mapped into
memory.

A folder is complete or absent: it is written under a temporary name and then renamed. Its
`schema.json` lists the files with type and length and is checked on opening. Knows nothing of
products, terms or scores.
"""

from __future__ import annotations

import json
import os
import shutil
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from rro.errors import DataError, RroError

Array = npt.NDArray[Any]

SCHEMA_FILE = "schema.json"
_HINT = "delete the folder and build the search index again"


class StringTable:
    """A sequence of byte strings, stored one after another in `blob`. `offsets` has the start of
    each, and at its end the length of the blob."""

    def __init__(self, blob: Array, offsets: Array) -> None:
        # Single look-ups in memory views are several times faster than in arrays.
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

    @classmethod
    def named(cls, name: str, arrays: Mapping[str, Array]) -> Self:
        """The table that `Store.table` put among `arrays`."""
        return cls(arrays[f"{name}_blob"], arrays[f"{name}_offsets"])

    @staticmethod
    def pack(strings: Iterable[bytes]) -> tuple[Array, Array]:
        """The arrays (blob, offsets) of `strings`."""
        blob, offsets = bytearray(), array("q", [0])
        for string in strings:
            blob += string
            offsets.append(len(blob))
        return np.frombuffer(blob, np.uint8), np.array(offsets)


class Store(Protocol):
    """Makes named arrays, and keeps them by name in `arrays`."""

    arrays: dict[str, Array]

    def new(self, name: str, dtype: npt.DTypeLike, length: int) -> Array:
        """A new one-dimensional array, which the caller fills."""
        ...

    def table(self, name: str, strings: Iterable[bytes]) -> None:
        """Store strings for `StringTable.named`."""
        ...

    def scratch(self) -> AbstractContextManager[Path | None]:
        """A folder for the time of a computation; None where it has to use memory."""
        ...


class MemoryStore:
    """Arrays in memory."""

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}

    def new(self, name: str, dtype: npt.DTypeLike, length: int) -> Array:
        """As `Store.new`."""
        self.arrays[name] = np.empty(length, dtype)
        return self.arrays[name]

    def table(self, name: str, strings: Iterable[bytes]) -> None:
        """As `Store.table`."""
        self.arrays[f"{name}_blob"], self.arrays[f"{name}_offsets"] = StringTable.pack(strings)

    def scratch(self) -> AbstractContextManager[None]:
        """As `Store.scratch`."""
        return nullcontext()


class FolderStore:
    """Arrays in .npy files of `folder`. Its methods raise OSError if the disk has no room."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.arrays: dict[str, Array] = {}

    def new(self, name: str, dtype: npt.DTypeLike, length: int) -> Array:
        """As `Store.new`."""
        path = self._path(name)
        mapped = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=(length,))
        # Otherwise a full disk would kill the process at a write to the mapping.
        if hasattr(os, "posix_fallocate"):
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        self.arrays[name] = np.asarray(mapped)
        return self.arrays[name]

    def table(self, name: str, strings: Iterable[bytes]) -> None:
        """As `Store.table`; holds one string at a time."""
        offsets, path = array("q", [0]), self._path(f"{name}_blob")
        with path.open("w+b") as file:
            _write_header(file, 0)
            for string in strings:
                file.write(string)
                offsets.append(offsets[-1] + len(string))
            file.seek(0)
            # As long as before: NumPy leaves room for a greater length.
            _write_header(file, offsets[-1])
        self.arrays[f"{name}_blob"] = np.asarray(np.load(path, mmap_mode="r"))
        put(self, f"{name}_offsets", np.array(offsets))

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """As `Store.scratch`."""
        folder = self.folder / "scratch"
        folder.mkdir()
        yield folder
        shutil.rmtree(folder)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npy"


def put(store: Store, name: str, values: Array) -> None:
    """Store an array."""
    store.new(name, values.dtype, len(values))[:] = values


def _write_header(file: IO[bytes], length: int) -> None:
    form = {"descr": "|u1", "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(file, form)


@contextmanager
def new_folder(folder: Path, header: Mapping[str, Any]) -> Iterator[FolderStore]:
    """A store whose files become `folder` when the block ends, and are deleted if it raises.

    `header` goes into the schema. Raises DataError if `folder` exists, RroError if it cannot be
    written.
    """
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
    """The arrays of a folder, mapped read-only. Raises DataError unless its schema has all entries
    of `header` and its files are as in the schema."""
    try:
        schema = json.loads((folder / SCHEMA_FILE).read_text(encoding="utf-8"))
        files = dict(schema["arrays"])
    except (OSError, UnicodeDecodeError):
        raise DataError(
            f"{folder} has no search index ({SCHEMA_FILE} cannot be read): build it first"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{folder / SCHEMA_FILE} is damaged: {_HINT}") from None
    for key, value in header.items():
        if schema.get(key) != value:
            raise DataError(
                f"{folder} has {key} {schema.get(key)!r}, this version of rro reads {value!r}: "
                f"{_HINT}"
            )
    return {name: _open_array(folder / f"{name}.npy", form) for name, form in files.items()}


def _open_array(path: Path, form: list[Any]) -> Array:
    try:
        array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError):
        raise DataError(f"{path} is missing or damaged: {_HINT}") from None
    if [array.dtype.str, *array.shape] != form:
        raise DataError(f"{path} does not match {SCHEMA_FILE}: {_HINT}")
    return array
