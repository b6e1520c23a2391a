"""What a run's exploration gave, as files: at any time after it, with any credit, whatever the run
itself learns from.

Rows of a credit, or all lines of play with their tokens or as conversations. Cards and the Hub are
in rro.pipeline.publishing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rro.config import CreditConfig
from rro.errors import UsageError, counted
from rro.exploration.tree import Tree
from rro.files import replacing
from rro.learning.credit.choosing import credited
from rro.learning.exports import FORMS
from rro.learning.line_rows import (
    Advantages,
    session_lines,
    trace_features,
    trace_row,
    trajectory_features,
    trajectory_rows,
)
from rro.learning.lines_of_play import Line, lines_of
from rro.learning.row_files import write_rows
from rro.models.chat import ChatFormat
from rro.models.loading import load_tokenizer
from rro.pipeline.choices import Choices
from rro.pipeline.explored import explored_trees, finished, fitted_credit, tasks_of
from rro.pipeline.run import Run
from rro.pipeline.weights import weights_after

log = logging.getLogger(__name__)

# What each kind is made with where the user names no credit: all that the trees hold.
_CREDITS = {
    "labels": CreditConfig(name="step_labels", options={"label": "success"}),
    "pairs": CreditConfig(name="pairs", options={"siblings": "all", "off_path": "tree"}),
    "trajectories": CreditConfig(name="tree_advantages"),
}
_GIVES = {"labels": "labels", "pairs": "pairs", "trajectories": "advantages"}
KINDS = (*_CREDITS, "traces")
"""What can be written of any run that has explored."""


def export_rows(run: Run, iteration: int | None = None, file: Path | None = None) -> Path:
    """Write the rows of the run's credit on the finished trees of an iteration, or of all, to a
    file (default: named after the credit, in the run folder) as JSON lines, and in Parquet beside
    it; returns the file. Raises UsageError where nothing is explored, or for rows of a kind that
    has no form in a file."""
    explored = _Explored(run, iteration)
    gives, name = explored.choices.credit(1).gives, explored.choices.credit_name
    if gives not in FORMS:
        raise UsageError(
            f"credit {name} gives {gives}, which cannot be written: only {', '.join(FORMS)}"
        )
    explored.check()
    file = file or run.folder.path / f"{name.rpartition(':')[2]}.jsonl"
    count = FORMS[gives].write(explored.rows(), file)
    log.info("%s of credit %s", counted(count, gives), name)
    return file


def export_as(
    run: Run,
    kind: str,
    iteration: int | None = None,
    file: Path | None = None,
    *,
    own_credit: bool = False,
) -> Path:
    """Write one of `KINDS` of everything that was explored, on the committed paths and beside them,
    as `export_rows` does (default: `RUN/exports/KIND.jsonl`). With `own_credit` its values are
    those of the run's credit, otherwise of one that leaves nothing out. Traces also come as one
    session for each tree, in the folder `sessions` beside the file.

    Raises UsageError where nothing is explored, or the credit gives other rows."""
    run = run if own_credit or kind not in _CREDITS else _with_credit(run, _CREDITS[kind])
    explored, file = (
        _Explored(run, iteration),
        file or run.folder.path / "exports" / f"{kind}.jsonl",
    )
    gives = explored.choices.credit(1).gives
    if _GIVES.get(kind, gives) != gives:
        name = explored.choices.credit_name
        raise UsageError(f"credit {name} gives {gives}, and {kind} need {_GIVES[kind]}")
    explored.check()
    file.parent.mkdir(parents=True, exist_ok=True)
    count = _WRITERS[kind](explored, file)
    log.info("%s", counted(count, kind))
    return file


def _with_credit(run: Run, credit: CreditConfig) -> Run:
    """The same run, as if its recipe had named this credit."""
    config = run.config.model_copy(update={"credit": credit})
    other = Run(replace(run.folder, config=config), run.journal)
    other.benchmark = run.benchmark
    return other


@dataclass
class _Explored:
    """The finished trees of one round, or of all, and what is made of them."""

    run: Run
    iteration: int | None

    @cached_property
    def choices(self) -> Choices:
        return Choices(self.run)

    @property
    def rounds(self) -> list[int]:
        every = range(1, self.run.config.rounds.count + 1)
        return [self.iteration] if self.iteration is not None else list(every)

    def check(self) -> None:
        """Raises UsageError where there are none."""
        run, choices = self.run, self.choices
        if not any(finished(run, tasks_of(run, choices, number), number) for number in self.rounds):
            of_it = "" if self.iteration is None else f" of iteration {self.iteration}"
            raise UsageError(
                f"{run.folder.path}: nothing{of_it} is explored yet; run rro explore first"
            )

    def rows(self) -> Iterator[Any]:
        """The rows of the run's credit."""
        for number in self.rounds:
            credit = fitted_credit(self.run, self.choices, number)
            for tree in explored_trees(self.run, self.choices, number):
                yield from credited(credit, tree)

    def lines(self) -> Iterator[tuple[Tree, list[Line], dict[str, Any]]]:
        """Each tree, its lines, and the columns that say of which round it is."""
        success = self.run.benchmark.success_reward
        for number in self.rounds:
            columns = {"strategy": self.choices.strategy.name, "iteration": number}
            columns["success_reward"] = success
            for tree in explored_trees(self.run, self.choices, number):
                yield tree, list(lines_of(tree)), columns

    def chat(self) -> ChatFormat | None:
        """How the policy's tokenizer encodes; None where it is not on this machine."""
        try:
            start = weights_after(self.run, 0)
            return ChatFormat(load_tokenizer(self.run.config.model, start))
        except UsageError as error:
            log.warning("trajectories without token ids: %s", error)
            return None


def _credit_rows(explored: _Explored, file: Path) -> int:
    return FORMS[explored.choices.credit(1).gives].write(explored.rows(), file)


def _trajectories(explored: _Explored, file: Path) -> int:
    chat, run, choices = explored.chat(), explored.run, explored.choices
    credits = {number: fitted_credit(run, choices, number) for number in explored.rounds}

    def rows() -> Iterator[dict[str, Any]]:
        for tree, lines, columns in explored.lines():
            advantages = Advantages(credited(credits[columns["iteration"]], tree))
            for line in lines:
                yield from trajectory_rows(line, columns, advantages, chat)

    return write_rows(rows(), file, trajectory_features)


def _traces(explored: _Explored, file: Path) -> int:
    sessions = file.with_name("sessions")
    sessions.mkdir(exist_ok=True)

    def rows() -> Iterator[dict[str, Any]]:
        for number, (_, lines, columns) in enumerate(explored.lines(), 1):
            if line := _chosen(lines):
                with replacing(sessions / f"{columns['iteration']}-{number:06}.jsonl") as session:
                    session.writelines(f"{text}\n" for text in session_lines(line, columns))
            yield from (trace_row(line, columns) for line in lines if line.ends)

    return write_rows(rows(), file, trace_features)


def _chosen(lines: list[Line]) -> Line | None:
    """The line that the strategy chose to its end, else the first whole one."""
    whole = [line for line in lines if line.ends and line.reward is not None]
    path = [line for line in whole if line.kind == "candidate" and line.committed]
    return next(iter(path or whole), None)


_WRITERS: dict[str, Callable[[_Explored, Path], int]] = {
    "labels": _credit_rows,
    "pairs": _credit_rows,
    "trajectories": _trajectories,
    "traces": _traces,
}
