"""The rows that a credit gives on the trees of a run, as files: at any time after the exploration,
with any credit, whatever the run itself learns from."""

from __future__ import annotations

import logging
from pathlib import Path

from rro.errors import UsageError
from rro.learning.credit.choosing import credited
from rro.learning.exports import FORMS, export
from rro.pipeline.choices import Choices
from rro.pipeline.explored import explored_trees, finished, fitted_credit, tasks_of
from rro.pipeline.run import Run

log = logging.getLogger(__name__)


def export_rows(run: Run, iteration: int | None = None, file: Path | None = None) -> Path:
    """Write the rows of the run's credit on the finished trees of an iteration, or of all, to a
    file (default: named after the credit, in the run folder) as JSON lines, and in Parquet beside
    it; returns the file. Raises UsageError where nothing is explored, or for rows of a kind that
    has no form in a file."""
    choices, chosen = Choices(run), range(1, run.config.rounds.count + 1)
    gives, name = choices.credit(1).gives, choices.credit_name
    if gives not in FORMS:
        raise UsageError(
            f"credit {name} gives {gives}, which cannot be written: only {', '.join(FORMS)}"
        )
    numbers = chosen if iteration is None else [iteration]
    if not any(finished(run, tasks_of(run, choices, number), number) for number in numbers):
        raise UsageError(f"{run.folder.path}: nothing is explored yet; run rro explore first")
    rows = (
        row
        for number in numbers
        for credit in [fitted_credit(run, choices, number)]
        for tree in explored_trees(run, choices, number)
        for row in credited(credit, tree)
    )
    file = file or run.folder.path / f"{name.rpartition(':')[2]}.jsonl"
    log.info("%d %s of credit %s", export(gives, rows, file), gives, name)
    return file
