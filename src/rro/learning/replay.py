"""The successes that a policy gradient replays, kept over rounds in a file beside the checkpoint.

Knows neither tokens nor models."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from rro.codec import from_plain, to_plain
from rro.errors import DataError
from rro.learning.successes import Success, shortest
from rro.types import WeightedEpisode

FILE = "successes.jsonl"
"""Its name inside a checkpoint's folder."""


def pooled(
    kept: Iterable[Success], episodes: Iterable[WeightedEpisode], per_task: int
) -> list[Success]:
    """The successes to replay from now on, of those kept and of new episodes; ordered by task."""
    new = (Success(row.task, row.messages) for row in episodes if row.success)
    return sorted(shortest((*kept, *new), per_task), key=lambda success: success.task)


def read_successes(checkpoint: Path | None) -> list[Success]:
    """Those beside a checkpoint; none where there is no such file. Raises DataError for a line that
    is not one."""
    file = checkpoint and checkpoint / FILE
    if not file or not file.is_file():
        return []
    successes = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            successes.append(from_plain(Success, json.loads(line)))
        except ValueError as error:
            raise DataError(f"{file}, line {number}: not a success: {error}") from None
    return successes


def write_successes(successes: Sequence[Success], folder: Path) -> None:
    """Write them to the file in `folder`."""
    lines = (json.dumps(to_plain(success)) + "\n" for success in successes)
    (folder / FILE).write_text("".join(lines), encoding="utf-8")
