"""A run's journal as its report reads it: which records belong to which task, and what has come
since. Read-only."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rro.runs.folder import RunFolder
from rro.runs.journal import Journal


class Exploration(NamedTuple):
    """One task explored once. `group` is what the journal's keys begin with: an iteration, or
    "trend-CHECKPOINT"."""

    group: str
    task: str


Record = dict[str, Any]


@dataclass
class TaskRecords:
    """One exploration's records: candidates by node, rollouts by node and number, whole episodes,
    and its end."""

    candidates: dict[str, Record] = field(default_factory=dict)
    rollouts: dict[str, dict[int, Record]] = field(default_factory=dict)
    episodes: dict[int, Record] = field(default_factory=dict)
    end: Record | None = None  # the "task" record; None while it is being explored


class RunSource:
    """A run that another process may still be writing. Holds keys alone; records are read task by
    task.

    Raises UsageError where `path` is no run folder, DataError where its journal is damaged."""

    def __init__(self, path: Path) -> None:
        self.folder = RunFolder.open(path)
        self._journal: Journal | None = None
        self._explorations: dict[Exploration, list[tuple[str, str]]] = {}
        self._evaluations: list[str] = []
        self._seen = 0
        self.refresh()

    def refresh(self) -> None:
        """Take in what was written since."""
        if self._journal is None:
            if not self.folder.journal.exists():  # a run that is only just beginning
                return
            self._journal = Journal(self.folder.journal, read_only=True)
        else:
            self._journal.refresh()
        for kind, key in self._journal.keys(self._seen):
            self._seen += 1
            if kind == "evaluation":
                self._evaluations.append(key)
            elif exploration := _exploration(kind, key):
                self._explorations.setdefault(exploration, []).append((kind, key))

    @property
    def size(self) -> int:
        """How many records there are; grows with the run."""
        return self._seen

    def explorations(self) -> dict[Exploration, int]:
        """All of them, and how many records each has: iterations first, then trends, each in the
        order of the journal."""
        ordered = sorted(self._explorations, key=lambda exploration: _order(exploration.group))
        return {exploration: len(self._explorations[exploration]) for exploration in ordered}

    def task(self, exploration: Exploration) -> TaskRecords:
        """Everything that the journal has of one exploration."""
        records = TaskRecords()
        for kind, key in self._explorations[exploration]:
            record = self._get(kind, key)
            node, _, number = _rest(kind, key).partition("/")
            if kind == "candidate":
                records.candidates[node] = record
            elif kind == "rollout":
                records.rollouts.setdefault(node, {})[int(number)] = record
            elif kind == "episode":
                records.episodes[int(number)] = record
            else:
                records.end = record
        return records

    def evaluations(self, start: int = 0) -> Iterator[tuple[str, str, Record]]:
        """(checkpoint, mode, episode) of each evaluated episode, from number `start` on."""
        for key in self._evaluations[start:]:
            label, mode, _ = key.split("/", 2)
            yield label, mode, self._get("evaluation", key)

    def stages(self) -> dict[str, Record]:
        """The finished stages, by name."""
        return (
            {record["key"]: record for record in self._journal.records("stage")}
            if self._journal
            else {}
        )

    def close(self) -> None:
        if self._journal:
            self._journal.close()

    def _get(self, kind: str, key: str) -> Record:
        assert self._journal is not None
        record = self._journal.get(kind, key)
        assert record is not None, "its key was listed"
        return record


_PARTS_AFTER_TASK = {"task": 0, "candidate": 1, "rollout": 2, "episode": 2}


def _exploration(kind: str, key: str) -> Exploration | None:
    """Whose record it is. A task's id may hold slashes; what comes before and after it may not."""
    if kind not in _PARTS_AFTER_TASK:
        return None
    group, _, rest = key.partition("/")
    return Exploration(
        group, rest.rsplit("/", _PARTS_AFTER_TASK[kind])[0] if _PARTS_AFTER_TASK[kind] else rest
    )


def _rest(kind: str, key: str) -> str:
    """What follows the task's id: "0.1", "0.1/3" or nothing."""
    parts = _PARTS_AFTER_TASK[kind]
    return "/".join(key.rsplit("/", parts)[1:]) if parts else ""


def _order(group: str) -> float:
    return int(group) if group.isdecimal() else math.inf
