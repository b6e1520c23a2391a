"""InterCode-SQL's data: the 1,034 questions of Spider's development set, and their splits.

The files are those of the original repository, and `splits.json`, which lists the tasks by split
and is written when it is missing. Knows nothing of episodes or rewards.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rro.environments.data_sets import DataSet, download
from rro.errors import DataError

NAME = "intercode-sql"
TASKS_FILE, DUMP_FILE, SPLITS_FILE = "ic_spider_dev.json", "ic_spider_dbs.sql", "splits.json"
# Recorded expert episodes, in the form of ETO's and IPR's files.
RECORDED_FILE = "experts.json.gz"
# Those that succeed in this environment, with its observations.
EXPERTS_FILE = "experts.jsonl"
COMMIT = "6945762813e0521a3963aa799201ce99b677984b"
SOURCE = f"https://raw.githubusercontent.com/princeton-nlp/intercode/{COMMIT}/data/sql/spider"
HASHES = {
    TASKS_FILE: "68c9ecb0692c80770f46c724cc073ea76be4f301a294caa532c050546948128e",
    DUMP_FILE: "61f6e8000cb5bb696f123fa55e111acdcd8da7eca64f452a36fd1a6e5fb1781a",
}
# The test split is the first 200 tasks whose gold query runs.
TEST_TASKS = 200


@dataclass(frozen=True, slots=True)
class SqlTask:
    """A question about a database, and the gold query that answers it.

    `id` is "dev-" with the task's index. `hardness` is Spider's: easy, medium, hard or extra.
    """

    id: str
    database: str
    question: str
    gold: str
    hardness: str


def read_tasks(folder: Path) -> list[SqlTask]:
    """All tasks, in the file's order. Raises DataError that names the file, and the entry if one
    is not a task."""
    file = folder / TASKS_FILE
    entries = _read_json(file)
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{file}: not InterCode's list of tasks")
    return [_task(entry, number, file) for number, entry in enumerate(entries)]


def _task(entry: Any, number: int, file: Path) -> SqlTask:
    try:
        database, *texts = (str(entry[key]) for key in ("db", "query", "gold", "hardness"))
    except (KeyError, TypeError):
        raise DataError(
            f"{file}, entry {number}: db, query, gold and hardness are required"
        ) from None
    return SqlTask(f"dev-{number}", database.lower(), *texts)


def split_tasks(valid: Sequence[int]) -> dict[str, list[int]]:
    """Split the tasks whose gold query runs: the first 200 for testing, the rest for training."""
    return {"test": list(valid[:TEST_TASKS]), "train": list(valid[TEST_TASKS:])}


def read_splits(folder: Path, count: int) -> dict[str, list[int]] | None:
    """The splits that the folder lists, or None if it has no list. Raises DataError if an index is
    not that of one of `count` tasks."""
    file = folder / SPLITS_FILE
    if not file.exists():
        return None
    listed = _read_json(file)
    try:
        splits = {
            "test": list(listed["test_dev_indices"]),
            "train": list(listed["nontest_dev_indices"]),
        }
    except (KeyError, TypeError):
        raise DataError(
            f"{file}: the lists test_dev_indices and nontest_dev_indices are required"
        ) from None
    for index in splits["test"] + splits["train"]:
        if type(index) is not int or not 0 <= index < count:
            raise DataError(f"{file}: {index!r} is not the index of a task in {TASKS_FILE}")
    return splits


def shares_answer(tasks: Sequence[SqlTask], test: Sequence[int]) -> set[int]:
    """Indices of the tasks with the same database and gold query as one of the `test` tasks.
    Training on them would leak answers."""
    answers = {_answer(tasks[index]) for index in test}
    return {index for index, task in enumerate(tasks) if _answer(task) in answers}


def _answer(task: SqlTask) -> tuple[str, str]:
    return task.database, " ".join(task.gold.lower().split()).rstrip("; ")


def _obtain(file: str, folder: Path) -> None:
    if file == SPLITS_FILE:
        splits = split_tasks(valid_tasks(folder, read_tasks(folder)))
        listed = {"test_dev_indices": splits["test"], "nontest_dev_indices": splits["train"]}
        (folder / file).write_text(json.dumps(listed), encoding="utf-8")
        return
    content = download(f"{SOURCE}/{file}")
    if hashlib.sha256(content).hexdigest() != HASHES[file]:
        raise DataError(
            f"{SOURCE}/{file} is not the expected file: run rro data fetch {NAME} --from FOLDER"
        )
    (folder / file).write_bytes(content)


def _check(folder: Path) -> None:
    read_splits(folder, len(read_tasks(folder)))


def _derive(folder: Path) -> None:
    if (folder / RECORDED_FILE).exists():
        from rro.intercode_sql.recorded import write_experts

        write_experts(folder, folder / RECORDED_FILE, folder / EXPERTS_FILE)


def intercode_sql() -> DataSet:
    """InterCode-SQL's questions and the dump of its databases, for `rro data fetch`."""
    return DataSet((TASKS_FILE, DUMP_FILE, SPLITS_FILE), _obtain, _check, (RECORDED_FILE,), _derive)


def valid_tasks(folder: Path, tasks: Sequence[SqlTask]) -> list[int]:
    """Indices of the tasks whose gold query runs without an error on the embedded engine. MySQL
    agrees on all of them."""
    from rro.intercode_sql.embedded.sqlite import SqliteEngine

    with tempfile.TemporaryDirectory() as scratch:
        engine = SqliteEngine(folder / DUMP_FILE, Path(scratch))
        try:
            results = (engine.execute(task.database, task.gold) for task in tasks)
            return [index for index, result in enumerate(results) if result.error is None]
        finally:
            engine.close()


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise DataError(f"{file}: not JSON ({error})") from None
