"""From journals to the page's data: a head (overview, lists of tasks) and chunks of trees and of
evaluated episodes. Knows no HTML.

The head is small and read at once; a chunk is read when one of its tasks is opened.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rro import __version__
from rro.report.episodes import PlayedTask, played_task
from rro.report.overview import Evaluations, between_runs, run_figures
from rro.report.pack import Chunk, Chunks
from rro.report.rounds import FIGURES
from rro.report.source import Exploration, RunSource
from rro.report.training import TITLES
from rro.report.trees import USAGE, Intern, TaskView, build

# Of the head and the chunks.
SCHEMA = 2

# What the list of tasks shows of one.
_Listed = dict[str, Any]
# The number of a run, and the task that was evaluated there.
_Played = tuple[int, str]


class Gatherer:
    """The data of some runs, which may be in progress and gathered repeatedly.

    Raises UsageError for a path that is no run folder, DataError for a damaged journal."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.sources = [RunSource(path) for path in paths]
        self._evaluations = [Evaluations() for _ in paths]
        self._known: dict[tuple[int, Exploration], tuple[int, _Listed, dict[str, Any]]] = {}
        self._known_plays: dict[_Played, tuple[int, _Listed]] = {}

    def __enter__(self) -> Gatherer:
        return self

    def __exit__(self, *_: object) -> None:
        for source in self.sources:
            source.close()

    def refresh(self) -> int:
        """Read the records written since the last call; returns the number of all records."""
        for source in self.sources:
            source.refresh()
        return sum(source.size for source in self.sources)

    def whole(self) -> tuple[dict[str, Any], list[str]]:
        """The head, and every chunk, packed."""
        chunks, tasks, played = Chunks(), list[_Listed](), list[_Listed]()
        for run, exploration, _ in self._places():
            view = self._view(run, exploration, chunks.intern)
            tasks.append({**view.listed, "run": run, **chunks.add(view.tree)})
            self._known[run, exploration] = (0, tasks[-1], view.figures)
        for run, task, _ in self._plays():
            plays = self._task_plays(run, task, chunks.intern)
            played.append({**plays.listed, "run": run, **chunks.add(plays.plays)})
        return self._head(tasks, played), chunks.packed()

    def live(self) -> dict[str, Any]:
        """The head alone; chunks are made on request, by the names in it, see `chunk`."""
        tasks, played = list[_Listed](), list[_Listed]()
        for number, (run, exploration, size) in enumerate(self._places()):
            known = self._known.get((run, exploration))
            if known is None or known[0] != size:
                view = self._view(run, exploration, lambda text: 0)
                known = self._known[run, exploration] = (size, view.listed, view.figures)
            tasks.append({**known[1], "run": run, "chunk": f"{number}-{size}", "place": 0})
        for number, (run, task, size) in enumerate(self._plays()):
            found = self._known_plays.get((run, task))
            if found is None or found[0] != size:
                listed = self._task_plays(run, task, lambda text: 0).listed
                found = self._known_plays[run, task] = (size, listed)
            played.append({**found[1], "run": run, "chunk": f"e{number}-{size}", "place": 0})
        return {**self._head(tasks, played), "live": True}

    def chunk(self, name: str) -> str | None:
        """The packed chunk of one task, by the name that `live` gave it; None where there is no
        such task."""
        number = name.removeprefix("e").partition("-")[0]
        chunk = Chunk()
        if not number.isdecimal():
            return None
        at = slice(int(number), int(number) + 1)
        if name.startswith("e"):
            for run, task, _ in list(self._plays())[at]:
                chunk.add(self._task_plays(run, task, chunk.intern).plays)
        else:
            for run, exploration, _ in list(self._places())[at]:
                chunk.add(self._view(run, exploration, chunk.intern).tree)
        return None if chunk.is_empty else chunk.packed()

    def _places(self) -> Iterator[tuple[int, Exploration, int]]:
        for run, source in enumerate(self.sources):
            for exploration, size in source.explorations().items():
                yield run, exploration, size

    def _plays(self) -> Iterator[tuple[int, str, int]]:
        for run, source in enumerate(self.sources):
            for task, size in source.played().items():
                yield run, task, size

    def _view(self, run: int, exploration: Exploration, intern: Intern) -> TaskView:
        return build(exploration, self.sources[run].task(exploration), intern)

    def _task_plays(self, run: int, task: str, intern: Intern) -> PlayedTask:
        source = self.sources[run]
        return played_task(task, source.opening(task), source.plays(task), intern)

    def _head(self, tasks: Sequence[_Listed], played: Sequence[_Listed]) -> dict[str, Any]:
        runs = []
        for number, (source, evaluations) in enumerate(
            zip(self.sources, self._evaluations, strict=True)
        ):
            evaluations.refresh(source)
            figures = [known[2] for (run, _), known in self._known.items() if run == number]
            runs.append(run_figures(source, evaluations, figures))
        rewards = [evaluations.rewards for evaluations in self._evaluations]
        return {
            "schema": SCHEMA,
            "rro": __version__,
            "made": time.strftime("%Y-%m-%d %H:%M:%S"),
            "records": sum(source.size for source in self.sources),
            "usage": USAGE,
            "figures": FIGURES,
            "titles": TITLES,
            "range": _range(tasks, played),
            "runs": runs,
            "between": between_runs(rewards),
            "tasks": tasks,
            "played": played,
        }


def _range(tasks: Sequence[_Listed], played: Sequence[_Listed]) -> tuple[float, float]:
    """The range of the colours: 0 to 1, or wider where rewards are."""
    means = [mean / 1000 for task in tasks for mean in task["nodes"][1::3] if mean is not None]
    means += [reward for task in played for *_, reward in task["rewards"]]
    return min([0.0, *means]), max([1.0, *means])
