"""InterCode-SQL: questions answered by running SQL, on an embedded engine that answers as MySQL
does.

InterCode is by Yang et al. (arXiv 2306.14898; princeton-nlp/intercode); the questions and databases
are those of Spider's development set. docs/intercode-sql.md says what is reproduced."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from rro.environments.base import Agent, Benchmark
from rro.environments.data_sets import data_folder
from rro.errors import UsageError
from rro.intercode_sql.data import (
    DUMP_FILE,
    HASHES,
    NAME,
    SqlTask,
    read_splits,
    read_tasks,
    shares_answer,
    split_tasks,
    valid_tasks,
)
from rro.intercode_sql.embedded.sqlite import SqliteEngine
from rro.intercode_sql.engine import Engine
from rro.intercode_sql.environment import INSTRUCTION, Compat, IntercodeSqlEnvironment
from rro.intercode_sql.expert import SqlExpert
from rro.intercode_sql.reward import RewardKind
from rro.types import Task

__all__ = ["IntercodeSqlBenchmark", "IntercodeSqlEnvironment", "open_intercode_sql"]


class IntercodeSqlBenchmark(Benchmark):
    """The tasks by split, and the engine that all episodes share."""

    name = NAME
    reward_range = (-1.0, 1.0)

    def __init__(
        self,
        engine: Engine,
        all_tasks: Sequence[SqlTask],
        splits: Mapping[str, Sequence[int]],
        instruction: str = INSTRUCTION,
        reward: RewardKind = "published",
        compat: Compat = "none",
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.engine, self.all_tasks = engine, all_tasks
        self._splits, self._instruction, self._reward, self._compat = (
            splits,
            instruction,
            reward,
            compat,
        )
        self._provenance = dict(provenance or {})

    def tasks(self, split: str) -> Sequence[Task]:
        """Tasks named like "dev-17", whose data is the index."""
        if split not in self._splits:
            raise UsageError(
                f"intercode-sql has no split {split!r}: choose one of {', '.join(self._splits)}"
            )
        return [Task(self.all_tasks[index].id, index) for index in self._splits[split]]

    def make(self) -> IntercodeSqlEnvironment:
        return IntercodeSqlEnvironment(
            self.engine, self.all_tasks, self._instruction, self._reward, self._compat
        )

    def expert(self, task: Task, noise: float = 0.0, seed: int = 0) -> Agent:
        return SqlExpert(self.all_tasks[task.data], noise, seed)

    def provenance(self) -> Mapping[str, Any]:
        return {
            **self._provenance,
            "engine": self.engine.name,
            "reward": self._reward,
            "compat": self._compat,
        }


def open_intercode_sql(
    data: str | Path | None = None,
    engine: str = "sqlite",
    reward: RewardKind = "published",
    compat: Compat = "none",
    exclude_test_golds: bool = False,
    system: str | None = None,
    cache: str | Path | None = None,
    allow_writer: bool = False,
) -> IntercodeSqlBenchmark:
    """The InterCode-SQL benchmark.

    `data`: a folder with its files (None: where `rro data fetch intercode-sql` puts them).
    `engine`: "sqlite", embedded; or mysql://user@host:port of a server that `rro data load
    intercode-sql` has filled, with the password in $RRO_SQL_PASSWORD (a recipe is written into
    every run's folder, so it must not hold one); `allow_writer`: with an account that has more
    rights than to read. `reward`: "published" (overlap times order) or "iou" (overlap). `compat`
    "ipr" brings back the quirks of IPR's parser. `exclude_test_golds` leaves out of train the tasks
    whose database and gold a test task has, too. `system`: the opening turn that tells the rules
    (None: the built-in text; "": none, and no "OK"). `cache`: a folder for the built databases
    (None: the user's). Raises UsageError or DataError for what does not fit."""
    _check(reward, get_args(RewardKind), "reward")
    _check(compat, get_args(Compat), "compat")
    folder = data_folder(NAME) if data is None else Path(data)
    tasks = read_tasks(folder)
    runs = open_engine(engine, folder, None if cache is None else Path(cache), allow_writer)
    splits = read_splits(folder, len(tasks)) or split_tasks(valid_tasks(folder, tasks))
    if exclude_test_golds:
        shared = shares_answer(tasks, splits["test"])
        splits["train"] = [index for index in splits["train"] if index not in shared]
    files = {file: hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in HASHES}
    instruction = INSTRUCTION if system is None else system
    return IntercodeSqlBenchmark(runs, tasks, splits, instruction, reward, compat, {"files": files})


def open_engine(
    engine: str,
    folder: Path,
    cache: Path | None = None,
    allow_writer: bool = False,
    password_in_url: bool = False,
) -> Engine:
    """The engine called "sqlite" or by the URL of a server. Raises UsageError for another, and for
    a URL with a password where that is not allowed."""
    if engine == "sqlite":
        return SqliteEngine(folder / DUMP_FILE, cache)
    if "://" not in engine:
        raise UsageError("intercode-sql option engine must be sqlite or mysql://user@host:port")
    from rro.intercode_sql.server import PASSWORD_VARIABLE, ServerEngine, has_password

    if has_password(engine) and not password_in_url:
        raise UsageError(
            f"the engine's URL must not hold the password: put it into ${PASSWORD_VARIABLE}"
        )
    return ServerEngine(engine, allow_writer)


def _check(value: str, known: Sequence[str], option: str) -> None:
    if value not in known:
        raise UsageError(
            f"intercode-sql option {option} must be one of {', '.join(known)}, not {value!r}"
        )
