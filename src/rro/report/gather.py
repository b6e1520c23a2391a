"""From journals to the page's data: a head (overview and list of tasks) and chunks of trees. Knows
no HTML.

The head is small and read at once; a chunk is read when one of its tasks is opened.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rro import __version__
from rro.report.overview import Evaluations, between_runs, run_figures
from rro.report.pack import Chunk
from rro.report.rounds import FIGURES
from rro.report.source import Exploration, RunSource
from rro.report.trees import USAGE, build

# Of the head and the chunks.
SCHEMA = 1


class Gatherer:
    """The data of some runs, which may be in progress and gathered repeatedly.

    Raises UsageError for a path that is no run folder, DataError for a damaged journal."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.sources = [RunSource(path) for path in paths]
        self._evaluations = [Evaluations() for _ in paths]
        self._known: dict[tuple[int, Exploration], tuple[int, dict[str, Any], dict[str, Any]]] = {}

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
        chunks, chunk, tasks = list[str](), Chunk(), list[dict[str, Any]]()
        for run, exploration, _ in self._places():
            view = build(exploration, self.sources[run].task(exploration), chunk.intern)
            place = chunk.add(view.tree)
            tasks.append({**view.listed, "run": run, "chunk": str(len(chunks)), "place": place})
            self._known[run, exploration] = (0, tasks[-1], view.figures)
            if chunk.is_full:
                chunks.append(chunk.packed())
                chunk = Chunk()
        return self._head(tasks), chunks if chunk.is_empty else [*chunks, chunk.packed()]

    def live(self) -> dict[str, Any]:
        """The head alone; chunks are made on request, by the names in it, see `chunk`."""
        tasks = []
        for number, (run, exploration, size) in enumerate(self._places()):
            known = self._known.get((run, exploration))
            if known is None or known[0] != size:
                view = build(exploration, self.sources[run].task(exploration), lambda text: 0)
                known = self._known[run, exploration] = (size, view.listed, view.figures)
            tasks.append({**known[1], "run": run, "chunk": f"{number}-{size}", "place": 0})
        return {**self._head(tasks), "live": True}

    def chunk(self, name: str) -> str | None:
        """The packed chunk of one task, by the name that `live` gave it; None where there is no
        such task."""
        number, _, _ = name.partition("-")
        places = list(self._places())
        if not number.isdecimal() or int(number) >= len(places):
            return None
        run, exploration, _ = places[int(number)]
        chunk = Chunk()
        chunk.add(build(exploration, self.sources[run].task(exploration), chunk.intern).tree)
        return chunk.packed()

    def _places(self) -> Iterator[tuple[int, Exploration, int]]:
        for run, source in enumerate(self.sources):
            for exploration, size in source.explorations().items():
                yield run, exploration, size

    def _head(self, tasks: Sequence[dict[str, Any]]) -> dict[str, Any]:
        runs = []
        for number, (source, evaluations) in enumerate(
            zip(self.sources, self._evaluations, strict=True)
        ):
            evaluations.refresh(source)
            figures = [known[2] for (run, _), known in self._known.items() if run == number]
            runs.append(run_figures(source, evaluations, figures))
        return {
            "schema": SCHEMA,
            "rro": __version__,
            "made": time.strftime("%Y-%m-%d %H:%M:%S"),
            "records": sum(source.size for source in self.sources),
            "usage": USAGE,
            "figures": FIGURES,
            "range": _range(tasks),
            "runs": runs,
            "between": between_runs([evaluations.rewards for evaluations in self._evaluations]),
            "tasks": tasks,
        }


def _range(tasks: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """The range of the colours: 0 to 1, or wider where rewards are."""
    means = [mean / 1000 for task in tasks for mean in task["nodes"][1::3] if mean is not None]
    return min([0.0, *means]), max([1.0, *means])
