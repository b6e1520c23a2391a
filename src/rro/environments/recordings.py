"""Reads recordings of an original system, to be replayed: JSON lines, plain or gzipped.

Knows no benchmark, and nothing of what a record holds.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rro.errors import DataError
from rro.runs.progress import Progress


def replay(file: Path, play: Callable[[Mapping[str, Any]], None], system: str) -> None:
    """Call `play` with each record of a file, in order, with a progress bar. Raises DataError that
    names file and line if a line is not JSON, or `play` finds that it is not of `system`."""
    lines = list(_lines(file))
    with Progress(f"replaying {file.name}", len(lines), "lines") as progress:
        for number, record in lines:
            try:
                play(record)
            except (LookupError, TypeError, AttributeError, ValueError) as error:
                raise DataError(
                    f"{file}, line {number}: not a recording of {system} ({error!r})"
                ) from None
            progress.advance()


def read_bytes(file: Path) -> bytes:
    """The content of a file, plain or gzipped. Raises DataError if it cannot be read."""
    try:
        content = file.read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}") from None


def _lines(file: Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(read_bytes(file).splitlines(), 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except ValueError as error:
            raise DataError(f"{file}, line {number}: not JSON ({error})") from None
