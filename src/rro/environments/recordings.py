"""Reads recordings of an original system, to be replayed: JSON lines, plain or gzipped.

Knows no benchmark, and nothing of what a record holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rro.errors import DataError
from rro.jsonl import read_rows
from rro.runs.progress import Progress


def replay(file: Path, play: Callable[[Mapping[str, Any]], None], system: str) -> None:
    """Call `play` with each record of a file, in order, with a progress bar. Raises DataError that
    names file and line if a line is not JSON, or `play` finds that it is not of `system`."""
    rows = list(read_rows(file))
    with Progress(f"replaying {file.name}", len(rows), "lines") as progress:
        for place, record in rows:
            try:
                play(record)
            except (LookupError, TypeError, AttributeError, ValueError) as error:
                raise DataError(f"{place}: not a recording of {system} ({error!r})") from None
            progress.advance()
