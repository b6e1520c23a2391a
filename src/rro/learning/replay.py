"""The successes that a policy gradient replays, kept over rounds in a file beside the checkpoint.

Knows neither tokens nor models."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rro.codec import from_plain, to_plain
from rro.errors import DataError
from rro.types import Message, WeightedEpisode

FILE = "successes.jsonl"
"""Its name inside a checkpoint's folder."""


@dataclass(frozen=True, slots=True)
class Success:
    """A whole episode that reached the success reward."""

    task: str
    messages: tuple[Message, ...]

    @property
    def steps(self) -> int:
        """How many actions it took."""
        return sum(message.role == "assistant" for message in self.messages)


def shortest(
    kept: Iterable[Success], episodes: Iterable[WeightedEpisode], per_task: int
) -> list[Success]:
    """The `per_task` successes of each task with the fewest steps, each text once; among equally
    short ones, those that came first. Ordered by task, shortest first."""
    new = (Success(row.task, row.messages) for row in episodes if row.success)
    by_task: dict[str, dict[tuple[str, ...], Success]] = {}
    for success in (*kept, *new):
        text = tuple(message.content for message in success.messages)
        by_task.setdefault(success.task, {}).setdefault(text, success)
    return [
        success
        for _, distinct in sorted(by_task.items())
        for success in sorted(distinct.values(), key=lambda success: success.steps)[:per_task]
    ]


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
