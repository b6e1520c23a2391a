"""A run as its report reads it: which records and pairs belong to which task, and what was written
since the last look. Read-only."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from rro.codec import first_problem, from_plain
from rro.errors import DataError
from rro.evaluation.evaluate import OPENING
from rro.evaluation.results import RewardScale, kept_scale
from rro.exploration.records import TaskRecords, build_tree, read_rollout
from rro.exploration.tree import Tree
from rro.report.credit import Advantages, RunCredit
from rro.runs.folder import RunFolder, stage_records
from rro.runs.journal import Journal
from rro.types import Message, Task, Trajectory


class Exploration(NamedTuple):
    """One task explored once. `group` is what the journal's keys begin with: an iteration, or
    "trend-CHECKPOINT"."""

    group: str
    task: str


Record = dict[str, Any]


@dataclass
class Explored:
    """One task's exploration so far: its tree, the record of the finished task (None while it is
    under way), the rows of its pairs, the advantages of its messages, and which rewards are
    possible."""

    tree: Tree
    end: Mapping[str, Any] | None
    pairs: list[Record]
    advantages: Advantages
    scale: RewardScale


class Play(NamedTuple):
    """One evaluated episode: the policy's checkpoint, the mode, and its number among those of the
    same policy, mode and task."""

    label: str
    mode: str
    number: int
    episode: Trajectory


class RunSource:
    """A run that another process may still be writing. Only keys are held in memory; records are
    read task by task.

    Raises UsageError if `path` is no run folder, DataError if a file in it is damaged."""

    def __init__(self, path: Path) -> None:
        self.folder = RunFolder.open(path)
        self._journal: Journal | None = None
        self._explorations: dict[Exploration, list[tuple[str, str]]] = {}
        self._evaluations: list[str] = []
        self._played: dict[str, list[str]] = {}
        self._pairs, self._credit = PairRows(self.folder), RunCredit(self.folder)
        self._seen = 0
        self.refresh()

    def refresh(self) -> None:
        """Read what was written since the last call."""
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
                self._played.setdefault(key.split("/", 2)[2].rpartition("/")[0], []).append(key)
            elif exploration := _exploration(kind, key):
                self._explorations.setdefault(exploration, []).append((kind, key))
        self._pairs.refresh({exploration.group for exploration in self._explorations})

    @property
    def size(self) -> int:
        """How many records and pairs there are: another number after the run has written."""
        return self._seen + self._pairs.size

    def explorations(self) -> dict[Exploration, int]:
        """All of them, and how many records and pairs each has: iterations first, then trends, each
        in the order of the journal."""
        ordered = sorted(self._explorations, key=lambda exploration: _order(exploration.group))
        return {
            exploration: len(self._explorations[exploration]) + self._pairs.count(exploration)
            for exploration in ordered
        }

    def task(self, exploration: Exploration) -> Explored:
        """Everything that the run has of one exploration."""
        records = TaskRecords()
        for kind, key in self._explorations[exploration]:
            records.add(kind, _rest(kind, key), self._get(kind, key))
        tree = build_tree(records, Task(exploration.task), self.folder.journal)
        credited = exploration.group.isdecimal() and records.end is not None
        advantages = self._credit.advantages(tree) if credited else Advantages()
        return Explored(tree, records.end, self._pairs.of(exploration), advantages, self.scale())

    def evaluations(self, start: int = 0) -> Iterator[tuple[str, str, Record]]:
        """(checkpoint, mode, episode) of each evaluated episode, from number `start` on."""
        for key in self._evaluations[start:]:
            label, mode, _ = key.split("/", 2)
            yield label, mode, self._get("evaluation", key)

    def played(self) -> dict[str, int]:
        """The tasks that were evaluated, and how many episodes each has, in the journal's order."""
        return {task: len(keys) for task, keys in self._played.items()}

    def opening(self, task: str) -> list[Message]:
        """The first messages of an evaluated task; empty where they are not journalled."""
        assert self._journal is not None
        record = self._journal.get(OPENING, task)
        try:
            return [from_plain(Message, row) for row in record["messages"]] if record else []
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{self.place(OPENING, task)}: damaged record") from None

    def plays(self, task: str) -> list[Play]:
        """The evaluated episodes of a task."""
        plays = []
        for key in self._played[task]:
            label, mode, _ = key.split("/", 2)
            number = int(key.rpartition("/")[2])
            record = self._get("evaluation", key)
            try:
                episode = read_rollout(record, ())
            except ValueError as error:
                place = self.place("evaluation", key)
                raise DataError(f"{place}: damaged record ({first_problem(error)})") from None
            plays.append(Play(label, mode, number, episode))
        return plays

    def scale(self) -> RewardScale:
        """Which rewards are possible."""
        return kept_scale(self._journal) if self._journal else RewardScale()

    def stages(self) -> dict[str, Record]:
        """The finished stages, by name."""
        return stage_records(self._journal) if self._journal else {}

    def close(self) -> None:
        if self._journal:
            self._journal.close()

    def place(self, kind: str, key: str) -> str:
        """The file and the line of a record, for an error."""
        assert self._journal is not None
        return self._journal.place(kind, key)

    def _get(self, kind: str, key: str) -> Record:
        assert self._journal is not None
        record = self._journal.get(kind, key)
        assert record is not None, "its key was listed"
        return record


class PairRows:
    """Where each task's rows are in a run's files of pairs. While an iteration is explored they are
    in the order in which its tasks finish, afterwards in the order of its tasks."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._read: dict[str, tuple[Path, int]] = {}
        self._places: dict[str, dict[str, list[int]]] = {}

    @property
    def size(self) -> int:
        """How many rows there are."""
        return sum(len(rows) for places in self._places.values() for rows in places.values())

    def refresh(self, groups: Iterable[str]) -> None:
        """Read what was written since the last call for the iterations among `groups`."""
        for iteration in (int(group) for group in groups if group.isdecimal()):
            finished = self._folder.pairs(iteration)
            path = finished if finished.exists() else self._folder.pairs_so_far(iteration)
            if path.exists():
                self._scan(str(iteration), path)

    def count(self, exploration: Exploration) -> int:
        """How many rows one task has."""
        return len(self._at(exploration))

    def of(self, exploration: Exploration) -> list[Record]:
        """The rows of one task."""
        places = self._at(exploration)
        if not places:
            return []
        with self._read[exploration.group][0].open("rb") as lines:
            return [_row_at(lines, place) for place in places]

    def _at(self, exploration: Exploration) -> list[int]:
        return self._places.get(exploration.group, {}).get(exploration.task, [])

    def _scan(self, group: str, path: Path) -> None:
        known, start = self._read.get(group, (path, 0))
        if known != path or start > path.stat().st_size:
            start = 0
        places = self._places.setdefault(group, {})
        if start == 0:
            places.clear()
        with path.open("rb") as lines:
            lines.seek(start)
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                places.setdefault(_task_of(line, path), []).append(start)
                start += len(line)
        self._read[group] = (path, start)


def _task_of(line: bytes, path: Path) -> str:
    try:
        return str(json.loads(line)["task"])
    except (ValueError, KeyError, TypeError):
        raise DataError(
            f"{path}: a row is damaged: remove the file to see the report without pairs"
        ) from None


def _row_at(lines: BinaryIO, place: int) -> Record:
    lines.seek(place)
    row: Record = json.loads(lines.readline())
    return row


_PARTS_AFTER_TASK = {"task": 0, "candidate": 1, "prediction": 1, "rollout": 2, "episode": 2}


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
