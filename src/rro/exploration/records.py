"""Trees to journal records and back.

The journal gets one record for each finished candidate, rollout and episode, and one "task" record
for each finished tree: every node by id, with its estimate and the numbers of its rollouts. Texts
stand in the candidate, rollout and episode records alone, so a tree is read from all of them.
Pairs, demonstrations and tables are not journalled: they are computed from trees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from rro.codec import from_plain, to_plain, usage_of
from rro.errors import DataError
from rro.exploration.tree import Node, RolloutSuffix, Tree, recycled_child
from rro.runs.journal import Journal
from rro.types import FINITE, Message, ProcessReward, Step, StopReason, Task, Trajectory, Usage

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CandidateRecord:
    """A drawn or given action and what it did. `step` is None where the context was full; `reward`
    and `stop` are set where the action ended the episode."""

    __pydantic_config__: ClassVar = FINITE

    step: Step | None
    policy: str
    usage: Usage
    reward: float | None = None
    stop: StopReason | None = None
    logprobs: tuple[float, ...] | None = None

    def put_on(self, node: Node) -> None:
        """Enter it into its node."""
        node.step, node.policy, node.logprobs = self.step, self.policy, self.logprobs
        node.reward, node.stop = self.reward, self.stop
        node.cost += self.usage


def put_prediction(node: Node, record: Record) -> None:
    """Enter what a process reward model said of a node's action."""
    node.predicted = float(record["value"])
    node.cost += usage_of(record)


def work_record(finished: CandidateRecord | Trajectory) -> dict[str, Any]:
    """The record of a candidate, a rollout or an episode. A rollout's opening is its node's
    history, so it is left out."""
    if isinstance(finished, Trajectory):
        finished = replace(finished, opening=())
    return to_plain(finished)


def read_candidate(record: Record) -> CandidateRecord:
    """A candidate from its record."""
    return from_plain(CandidateRecord, record)


def read_rollout(record: Record, opening: tuple[Message, ...]) -> Trajectory:
    """A rollout or an episode from its record; `opening` is the history of its node."""
    return replace(from_plain(Trajectory, record), opening=opening)


def tree_record(tree: Tree, strategy: str, cut: bool, seconds: float) -> dict[str, Any]:
    """The "task" record of a finished tree. `cut` says that the budget ended it, `seconds` is the
    wall time that it took."""
    return {
        "strategy": strategy,
        "cut": cut,
        "opening": [to_plain(message) for message in tree.root.opening],
        "opening_state": tree.root.opening_state,
        "nodes": {node.id: _node_record(node) for node in tree.root.walk()},
        "episodes": sorted(tree.episodes),
        "overflowed": sorted(tree.overflowed),
        "failed": list(failed_rows(tree)),
        "usage": to_plain(tree.usage()),
        "usage_by_step": [to_plain(usage) for usage in tree.usage_by_step()],
        "seconds": seconds,
    }


def _node_record(node: Node) -> dict[str, Any]:
    estimate = node.estimate
    record: dict[str, Any] = {
        "committed": node.committed,
        "rose": node.rose,
        "recycled": node.recycled,
        "source": None if node.step is None else node.action.source,
        "estimate": None if estimate is None else to_plain(estimate),
        "rollouts": sorted(node.rollouts),
    }
    if node.episodes and node.parent is not None:  # the root's stand in the tree's record
        record["episodes"] = sorted(node.episodes)
    if node.predicted is not None:
        record["predicted"] = node.predicted
    if node.origin is not None:
        record["origin"] = _place(node.origin)
        record["inherited"] = [_place(suffix) for suffix in node.inherited]
    return record


def _place(suffix: RolloutSuffix) -> list[Any]:
    """[the node where the rollout began, its number there, its steps before this place]"""
    return [suffix.began_at, suffix.number, suffix.start]


def failed_rows(tree: Tree) -> Iterator[dict[str, Any]]:
    """The rollouts and episodes that failed, which have no record of their own."""
    numbered = []
    for node in tree.root.walk():
        for kind, runs in (("rollout", node.rollouts), ("episode", node.episodes)):
            numbered += [(kind, node.id, number, run) for number, run in runs.items()]
    for kind, node_id, number, run in sorted(numbered, key=lambda row: row[:3]):
        if run.stop is StopReason.FAILED:
            yield {
                "kind": kind,
                "node": node_id,
                "number": number,
                "policy": run.policy,
                "seed": run.seed,
                "error": run.error,
                "usage": to_plain(run.usage),
            }


@dataclass
class TaskRecords:
    """A journal's records of one task: candidates and predictions by node, rollouts and the
    policy's own episodes by node and number, and the finished tree's own record (None while it is
    being explored)."""

    candidates: dict[str, Record] = field(default_factory=dict)
    predictions: dict[str, Record] = field(default_factory=dict)
    rollouts: dict[tuple[str, int], Record] = field(default_factory=dict)
    episodes: dict[tuple[str, int], Record] = field(default_factory=dict)
    end: Record | None = None

    def add(self, kind: str, name: str, record: Record) -> None:
        """Enter a record of `kind`; `name` is what follows the task in its key."""
        node_id, _, number = name.partition("/")
        if kind == "candidate":
            self.candidates[node_id] = record
        elif kind == "prediction":
            self.predictions[node_id] = record
        elif kind == "rollout":
            self.rollouts[node_id, int(number)] = record
        elif kind == "episode":
            self.episodes[node_id, int(number)] = record
        else:
            self.end = record


def read_tree(journal: Journal, key: str, task: Task) -> Tree | None:
    """The finished tree whose "task" record has this key; None where there is no such record.

    It equals the tree that was explored, except for the environment's snapshots and the steps of
    failed rollouts. Raises DataError where records are missing or damaged."""
    end = journal.get("task", key)
    if end is None:
        return None
    records = TaskRecords(end=end)
    for kind, name in _listed(end):
        record = journal.get(kind, f"{key}/{name}")
        if record is not None:
            records.add(kind, name, record)
    return build_tree(records, task, journal.path)


def read_trees(journal: Journal, keys: Iterable[tuple[str, Task]]) -> Iterator[Tree]:
    """The finished trees among `keys` in their order, one in memory at a time."""
    for key, task in keys:
        if (tree := read_tree(journal, key, task)) is not None:
            yield tree


def _listed(end: Record) -> Iterator[tuple[str, str]]:
    """(kind, rest of the key) of every record that a finished tree is made of."""
    failed = {(row["kind"], row["node"], row["number"]) for row in end["failed"]}
    for node_id, node in end["nodes"].items():
        if node["source"] is not None and not node["recycled"]:
            yield "candidate", node_id
        if "predicted" in node:
            yield "prediction", node_id
        numbers = {"rollout": node["rollouts"], "episode": _episodes(end, node_id)}
        for kind in numbers:
            for number in numbers[kind]:
                if (kind, node_id, number) not in failed:
                    yield kind, f"{node_id}/{number}"
    for node_id in dict.fromkeys(end["overflowed"]):
        yield "candidate", node_id


def _episodes(end: Record, node_id: str) -> list[int]:
    """The numbers of the episodes that began at a node."""
    numbers: list[int] = (end if node_id == "0" else end["nodes"][node_id]).get("episodes", [])
    return numbers


def build_tree(records: TaskRecords, task: Task, path: Path) -> Tree:
    """The tree that these records of the journal `path` describe. If the task is not finished, what
    there is so far: nothing is committed yet, and estimates are those of the finished rollouts.

    Raises DataError where records are missing or damaged."""
    try:
        if records.end is None:
            return _UnfinishedTree(records, task).build()
        return _FinishedTree(records, records.end, task).build()
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: the records of task {task.id!r} do not fit together ({error!r}); restore the "
            "file or start a new run"
        ) from error


class _FinishedTree:
    """Follows the task's own record, which lists every node, parents first."""

    def __init__(self, records: TaskRecords, end: Record, task: Task) -> None:
        self._records, self._end = records, end
        opening = tuple(from_plain(Message, row) for row in end["opening"])
        state = end.get("opening_state", "")
        self._nodes = {"0": Node("0", None, opening=opening, opening_state=state)}
        self._tree = Tree(task, self._nodes["0"], overflowed=list(end["overflowed"]))
        self._failed = {(row["kind"], row["node"], row["number"]): row for row in end["failed"]}

    def build(self) -> Tree:
        for node_id, record in self._end["nodes"].items():
            node = self._node(node_id, record)
            node.committed, node.rose = record["committed"], record["rose"]
            if record["estimate"] is not None:
                node.estimate = from_plain(ProcessReward, record["estimate"])
            episodes = _episodes(self._end, node_id)
            history = node.history() if record["rollouts"] or episodes else ()
            for number in record["rollouts"]:
                node.rollouts[number] = self._run("rollout", node, number, history)
            for number in episodes:
                node.episodes[number] = self._run("episode", node, number, history)
        for node_id in self._tree.overflowed:
            parent = self._nodes[node_id.rpartition(".")[0]]
            parent.cost += usage_of(self._records.candidates[node_id])
        return self._tree

    def _node(self, node_id: str, record: Record) -> Node:
        if node_id in self._nodes:
            return self._nodes[node_id]
        parent = self._nodes[node_id.rpartition(".")[0]]
        if record["recycled"]:
            node = recycled_child(node_id, parent, self._suffix(record["origin"]))
            node.inherited = [self._suffix(place) for place in record["inherited"]]
        else:
            node = Node(node_id, parent)
            read_candidate(self._records.candidates[node_id]).put_on(node)
        if "predicted" in record:
            put_prediction(node, self._records.predictions[node_id])
        parent.children.append(node)
        self._nodes[node_id] = node
        return node

    def _suffix(self, place: tuple[str, int, int]) -> RolloutSuffix:
        began_at, number, start = place
        rollout = self._nodes[began_at].rollouts[number]
        if rollout.reward is None:
            raise ValueError(f"rollout {number} of node {began_at} has no outcome")
        return RolloutSuffix(rollout, rollout.reward, start, (), began_at, number)

    def _run(self, kind: str, node: Node, number: int, history: tuple[Message, ...]) -> Trajectory:
        row = self._failed.get((kind, node.id, number))
        if row is not None:
            task, failed, usage = self._tree.task.id, StopReason.FAILED, usage_of(row)
            policy, seed, error = row["policy"], row["seed"], row["error"]
            return Trajectory(task, history, (), None, failed, policy, seed, usage, error)
        if kind == "rollout":
            return read_rollout(self._records.rollouts[node.id, number], history)
        return read_rollout(self._records.episodes[node.id, number], history)


class _UnfinishedTree:
    """Puts together what a journal has of a task that is still being explored."""

    def __init__(self, records: TaskRecords, task: Task) -> None:
        self._records = records
        self._nodes = {"0": Node("0", None)}
        self._tree = Tree(task, self._nodes["0"])

    def build(self) -> Tree:
        rollouts: dict[str, dict[int, Record]] = {}
        for (node_id, number), record in sorted(self._records.rollouts.items()):
            rollouts.setdefault(node_id, {})[number] = record
        for node_id in sorted({*self._records.candidates, *rollouts}, key=_order):
            if node_id in self._records.candidates:
                self._add_candidate(node_id)
            if (node := self._find(node_id)) is not None:
                for number, record in rollouts.get(node_id, {}).items():
                    node.rollouts[number] = read_rollout(record, ())
        for (node_id, number), record in sorted(self._records.episodes.items()):
            if (node := self._find(node_id)) is not None:
                node.episodes[number] = read_rollout(record, ())
        for node in self._tree.root.walk():
            node.estimate = _estimate_so_far(node)
        return self._tree

    def _add_candidate(self, node_id: str) -> None:
        candidate = read_candidate(self._records.candidates[node_id])
        parent = self._find(node_id.rpartition(".")[0])
        if parent is None:
            return
        if candidate.step is None:
            self._tree.overflowed.append(node_id)
            parent.cost += candidate.usage
            return
        node = self._nodes[node_id] = Node(node_id, parent)
        candidate.put_on(node)
        parent.children.append(node)

    def _find(self, node_id: str) -> Node | None:
        """The node, which may be a step of its parent's rollouts; None where the journal does not
        say what it is."""
        if node_id not in self._nodes and "~" in node_id.rpartition(".")[2]:
            parent = self._find(node_id.rpartition(".")[0])
            for child in self._tree.recycle(parent) if parent is not None else ():
                self._nodes[child.id] = child
        return self._nodes.get(node_id)


def _order(node_id: str) -> tuple[tuple[int, str], ...]:
    """Sorts "0.10" after "0.9", parents before children, and recycled nodes after drawn ones."""
    return tuple(
        (int(part), "") if part.isdecimal() else (1 << 62, part) for part in node_id.split(".")
    )


def _estimate_so_far(node: Node) -> ProcessReward | None:
    suffixes = node.suffixes()
    policy = suffixes[0].rollout.policy if suffixes else ""
    return node.estimated([suffix.reward for suffix in suffixes], policy)
