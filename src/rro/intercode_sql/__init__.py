"""InterCode-SQL: questions about databases that an agent answers by running SQL.

An embedded engine answers as MySQL does; a MySQL or MariaDB server can take its place. InterCode is
by Yang et al. (arXiv 2306.14898; princeton-nlp/intercode); questions and databases are those of
Spider's development set. docs/intercode-sql.md lists what is reproduced and how to check it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rro.environments.base import Agent, Benchmark
from rro.environments.data_sets import data_folder
from rro.environments.splits import VALIDATION, WITHOUT_VALIDATION, held_back
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
from rro.intercode_sql.embedded.store import cache_folder
from rro.intercode_sql.engine import Engine
from rro.intercode_sql.environment import (
    INSTRUCTION,
    TOOL_INSTRUCTION,
    Compat,
    IntercodeSqlEnvironment,
    actions_of,
)
from rro.intercode_sql.expert import SqlExpert
from rro.intercode_sql.options import IntercodeSqlOptions
from rro.intercode_sql.reward import RewardKind
from rro.intercode_sql.sample import sample_databases, sample_tasks, write_dump
from rro.intercode_sql.schema import Schema
from rro.types import Message, Task

__all__ = [
    "IntercodeSqlBenchmark",
    "IntercodeSqlEnvironment",
    "IntercodeSqlOptions",
    "open_engine",
    "open_intercode_sql",
]

LICENCE = "CC-BY-SA-4.0, that of Spider"
"""Of the questions and databases: those of Spider's development set."""
SAMPLE_LICENCE = "Apache-2.0"
"""Of the generated databases: rro's."""


class IntercodeSqlBenchmark(Benchmark):
    """The tasks by split, and the engine that all episodes share.

    `splits` lists indices into `all_tasks`. `instruction`, `reward`, `compat`, `tools` and
    `schema` are as in `IntercodeSqlEnvironment`; `provenance` describes the data, for the run
    folder.
    """

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
        tools: bool = False,
        schema: Schema = "none",
    ) -> None:
        self._tools, self._schema = tools, schema
        self.engine, self.all_tasks = engine, all_tasks
        self._splits, self._instruction = splits, instruction
        self._reward, self._compat = reward, compat
        self._provenance = dict(provenance or {})

    def tasks(self, split: str) -> Sequence[Task]:
        """The tasks of "train", "test", "validation" or "train-without-validation", which has no
        answer in common with validation. A task's data is its index, and its id is such as
        "dev-17". Raises UsageError for another split."""
        if split not in self._splits:
            raise UsageError(
                f"intercode-sql has no split {split!r}: choose one of {', '.join(self._splits)}"
            )
        return [Task(self.all_tasks[index].id, index) for index in self._splits[split]]

    def make(self) -> IntercodeSqlEnvironment:
        """A new environment on the shared engine."""
        return IntercodeSqlEnvironment(
            self.engine,
            self.all_tasks,
            self._instruction,
            self._reward,
            self._compat,
            tools=self._tools,
            schema=self._schema,
        )

    def action_of(self, message: Message) -> str:
        """The SQL of an answer, "" for a submit, or the whole of what is neither."""
        actions = actions_of(message, self._compat)
        return message.text if None in actions else "\n".join(filter(None, actions))

    def expert(self, task: Task, noise: float = 0.0, seed: int = 0) -> Agent:
        """A scripted analyst that knows the task's gold query (see `SqlExpert`)."""
        return SqlExpert(self.all_tasks[task.data], noise, seed, tools=self._tools)

    def provenance(self) -> Mapping[str, Any]:
        """Hashes of the data and their licence, the engine's name and version, the reward."""
        return {
            **self._provenance,
            "engine": self.engine.name,
            "reward": self._reward,
            "compat": self._compat,
            **({"tools": True} if self._tools else {}),
            **({"schema": self._schema} if self._schema != "none" else {}),
        }


def open_intercode_sql(options: IntercodeSqlOptions) -> IntercodeSqlBenchmark:
    """Open the InterCode-SQL benchmark, e.g. `open_intercode_sql(IntercodeSqlOptions())`.

    Raises DataError if the data folder is missing or its files are not InterCode's. For a server,
    raises UsageError if its account may write or PyMySQL is not installed, RroError if it cannot be
    reached.
    """
    if options.questions == "sample":
        return _open_sample(options)
    folder = options.data or data_folder(NAME)
    tasks = read_tasks(folder)
    engine = open_engine(options.engine, folder, options.cache, options.allow_writer)
    splits = read_splits(folder, len(tasks)) or split_tasks(valid_tasks(folder, tasks))
    hashes = {file: hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in HASHES}
    return _benchmark(options, engine, tasks, splits, {"files": hashes, "license": LICENCE})


def _open_sample(options: IntercodeSqlOptions) -> IntercodeSqlBenchmark:
    seed, size = options.sample_seed, options.sample
    databases = sample_databases(seed, size)
    dump = write_dump(databases, cache_folder(options.cache))
    made = {"sample_seed": seed, **size.model_dump(), "dump": dump.stem, "license": SAMPLE_LICENCE}
    engine = SqliteEngine(dump, options.cache)
    return _benchmark(options, engine, *sample_tasks(databases, seed, size), made)


def _benchmark(
    options: IntercodeSqlOptions,
    engine: Engine,
    tasks: Sequence[SqlTask],
    splits: dict[str, list[int]],
    provenance: Mapping[str, Any],
) -> IntercodeSqlBenchmark:
    if options.exclude_test_golds:
        shared = shares_answer(tasks, splits["test"])
        splits["train"] = [index for index in splits["train"] if index not in shared]
    without, validation = held_back(splits["train"])
    shared = shares_answer(tasks, validation)
    splits[VALIDATION] = list(validation)
    splits[WITHOUT_VALIDATION] = [index for index in without if index not in shared]
    instruction = TOOL_INSTRUCTION if options.tools else INSTRUCTION
    return IntercodeSqlBenchmark(
        engine,
        tasks,
        splits,
        instruction if options.system is None else options.system,
        options.reward,
        options.compat,
        provenance,
        options.tools,
        options.show_schema,
    )


def open_engine(
    engine: str, folder: Path, cache: Path | None = None, allow_writer: bool = False
) -> Engine:
    """The embedded engine ("sqlite") on the dump in `folder`, or the server at a URL.

    Unlike in a recipe, the URL may hold the password. Raises UsageError or RroError as
    `open_intercode_sql` does.
    """
    if engine == "sqlite":
        return SqliteEngine(folder / DUMP_FILE, cache)
    from rro.intercode_sql.server import ServerEngine

    return ServerEngine(engine, allow_writer)
