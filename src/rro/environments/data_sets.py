"""Data sets of benchmarks: where they are on disk, and `rro data fetch NAME [--from FOLDER]`.

Knows no benchmark: data sets are found by name through the door `rro.plugins.DATA_SETS`.
"""

from __future__ import annotations

import io
import os
import tempfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rro.errors import DataError, UsageError
from rro.plugins import DATA_SETS, did_you_mean
from rro.runs.progress import Progress

_CHUNK = 1 << 20


@dataclass(frozen=True)
class DataSet:
    """The files of a data set and how to obtain them."""

    files: tuple[str, ...]
    """Names of the required files, in the order in which they are obtained."""
    obtain: Callable[[str, Path], None]
    """`obtain(file, folder)` downloads or makes a file in a folder that holds the ones before it.
    Raises DataError if that fails."""
    check: Callable[[Path], None]
    """`check(folder)` raises DataError if the files cannot be used."""
    optional: tuple[str, ...] = ()
    """Names of files that are copied if the source has them."""
    derive: Callable[[Path], None] = lambda folder: None
    """`derive(folder)` makes further files from the others, after the check."""


def data_root() -> Path:
    """$RRO_DATA, or `data` in the working directory."""
    return Path(os.environ.get("RRO_DATA") or "data")


def data_folder(name: str) -> Path:
    """The folder of a fetched data set. Raises DataError that says how to fetch it."""
    folder = data_root() / name
    if not folder.is_dir():
        raise DataError(
            f"no data at {folder}: run rro data fetch {name} (or set RRO_DATA, or the option data)"
        )
    return folder


def fetch(name: str, source: Path | None = None, target: Path | None = None) -> Path:
    """Put the data set `name` into the folder `target` (default: data_root()/name); returns it.

    Files that the folder `source` has are copied; all others are downloaded or made. The whole
    folder appears or nothing does; a complete one is left unchanged. Raises UsageError for an
    unknown name, DataError if a file cannot be obtained or is not what it should be."""
    if name not in DATA_SETS.names():
        raise UsageError(f"unknown data set {name!r}: {did_you_mean(name, DATA_SETS.names())}")
    if source is not None and not source.is_dir():
        raise DataError(f"{source} is not a folder with the files of {name}")
    data_set: DataSet = DATA_SETS.find(name).factory()
    target = target or data_root() / name
    if all((target / file).exists() for file in data_set.files):
        data_set.check(target)
        return target
    try:
        _fill(data_set, source, target)
    except OSError as error:
        raise DataError(f"{name} could not be put into {target}: {error}") from error
    return target


def _fill(data_set: DataSet, source: Path | None, target: Path) -> None:
    """Gather the files in a folder beside the target, check them, and move them into place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        folder = Path(scratch) / target.name
        folder.mkdir()
        for file in (*data_set.files, *data_set.optional):
            places = [place / file for place in (source, target) if place is not None]
            existing = next((place for place in places if place.exists()), None)
            if existing is not None:
                _copy(existing, folder / file)
            elif file in data_set.files:
                _obtain(data_set, file, folder, source)
        data_set.check(folder)
        data_set.derive(folder)
        if not target.exists():
            folder.rename(target)
            return
        for ready in sorted(folder.iterdir()):
            os.replace(ready, target / ready.name)


def _obtain(data_set: DataSet, file: str, folder: Path, source: Path | None) -> None:
    try:
        data_set.obtain(file, folder)
    except DataError as error:
        if source is None:
            raise
        raise DataError(f"{source} has no {file}; {error}") from None


def download(url: str) -> bytes:
    """The content at `url`. Raises DataError that says how to do without the network."""
    content = io.BytesIO()
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            length = answer.headers.get("Content-Length")
            size = None if length is None else int(length)
            _transfer(answer, content, f"downloading {url.rpartition('/')[2]}", size)
    except OSError as error:
        raise DataError(
            f"{url} could not be downloaded ({error}): run rro data fetch with --from FOLDER, "
            "where the files lie"
        ) from None
    return content.getvalue()


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("wb") as writer:
        _transfer(reader, writer, f"copying {source.name}", source.stat().st_size)


def _transfer(reader: IO[bytes], writer: IO[bytes], what: str, size: int | None) -> None:
    """Copy with progress in MiB. Raises OSError if it ends before `size` bytes."""
    done, total = 0, None if size is None else -(-size // _CHUNK)
    with Progress(what, total, "MiB") as progress:
        while chunk := reader.read(_CHUNK):
            writer.write(chunk)
            done += len(chunk)
            progress.advance(-(-done // _CHUNK) - progress.done)
    if size is not None and done != size:
        raise OSError(f"ended after {done} of {size} bytes")
