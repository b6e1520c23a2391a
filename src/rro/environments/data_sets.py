"""Where benchmark data lies, and how it gets there: `rro data fetch NAME [--from FOLDER]`.

Knows no benchmark: each lists its data sets as DATA_SETS in its own `data` module.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rro.errors import DataError, UsageError
from rro.plugins import DATA_SETS, did_you_mean


@dataclass(frozen=True)
class DataSet:
    """How one data set is had. `files` in the order they are needed; `obtain(file, folder)`
    downloads or makes one of them in `folder`, where those before it lie already; `check(folder)`
    raises DataError where the whole is not usable. `optional` files come along where the source has
    them; `derive(folder)` makes others of what is there."""

    files: tuple[str, ...]
    obtain: Callable[[str, Path], None]
    check: Callable[[Path], None]
    optional: tuple[str, ...] = ()
    derive: Callable[[Path], None] = lambda folder: None


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
    """Put data set `name` into `target` (default: data_root()/name) and return that folder.

    Files that `source` has are copied; with no source all are downloaded or made; what a source
    lacks is, too. The folder appears whole or not at all, and a complete one is left as it is.
    Raises UsageError for an unknown name, DataError for files that cannot be had or are not what
    they should be."""
    plugin = DATA_SETS.find(name) if name in DATA_SETS.names() else None
    if plugin is None:
        raise UsageError(f"unknown data set {name!r}: {did_you_mean(name, DATA_SETS.names())}")
    if source is not None and not source.is_dir():
        raise DataError(f"{source} is not a folder with the files of {name}")
    data_set: DataSet = plugin.factory()
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
    """Gather the files beside the target, check them, and move them in place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        folder = Path(scratch) / target.name
        folder.mkdir()
        for file in (*data_set.files, *data_set.optional):
            given = next(
                (place / file for place in (source, target) if place and (place / file).exists()),
                None,
            )
            if given is not None:
                shutil.copyfile(given, folder / file)
            elif file in data_set.files:
                data_set.obtain(file, folder)
        data_set.check(folder)
        data_set.derive(folder)
        if not target.exists():
            folder.rename(target)
            return
        for ready in sorted(folder.iterdir()):
            os.replace(ready, target / ready.name)


def download(url: str) -> bytes:
    """What lies at `url`. Raises DataError that says how to do without the network."""
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return bytes(answer.read())
    except OSError as error:
        raise DataError(
            f"{url} could not be downloaded ({error}): run rro data fetch with --from FOLDER"
        ) from None
