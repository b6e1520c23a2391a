"""The tasks: InterCode's 1,034 questions of Spider's development set, their splits, and recorded
experts.

Files are those of the original repository; `splits.json` lists the tasks by split, which the
original does not, and is written when it is missing."""

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
RECORDED_FILE = "experts.json.gz"  # expert episodes as others recorded them, where there are any
EXPERTS_FILE = "experts.jsonl"  # those that can be learned from, as this environment answers them
COMMIT = "6945762813e0521a3963aa799201ce99b677984b"
SOURCE = f"https://raw.githubusercontent.com/princeton-nlp/intercode/{COMMIT}/data/sql/spider"
HASHES = {
    TASKS_FILE: "68c9ecb0692c80770f46c724cc073ea76be4f301a294caa532c050546948128e",
    DUMP_FILE: "61f6e8000cb5bb696f123fa55e111acdcd8da7eca64f452a36fd1a6e5fb1781a",
}
TEST_TASKS = 200  # the first with a gold that runs


@dataclass(frozen=True, slots=True)
class SqlTask:
    """A question about a database and the query that answers it. `id` is "dev-" and its place in
    the file."""

    id: str
    database: str
    question: str
    gold: str
    hardness: str


def read_tasks(folder: Path) -> list[SqlTask]:
    """All tasks, in the file's order. Raises DataError that names the file and the entry."""
    file = folder / TASKS_FILE
    entries = _read_json(file)
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{file}: not InterCode's list of tasks")
    tasks = []
    for number, entry in enumerate(entries):
        try:
            parts = [str(entry[key]) for key in ("db", "query", "gold", "hardness")]
        except (KeyError, TypeError):
            raise DataError(
                f"{file}, entry {number}: db, query, gold and hardness are needed"
            ) from None
        tasks.append(SqlTask(f"dev-{number}", parts[0].lower(), *parts[1:]))
    return tasks


def split_tasks(valid: Sequence[int]) -> dict[str, list[int]]:
    """Splits of the tasks whose gold runs: the first 200 are for testing, the rest for training."""
    return {"test": list(valid[:TEST_TASKS]), "train": list(valid[TEST_TASKS:])}


def read_splits(folder: Path, count: int) -> dict[str, list[int]] | None:
    """The splits as listed in the folder, None without a list. Raises DataError for one that does
    not fit `count` tasks."""
    file = folder / SPLITS_FILE
    if not file.exists():
        return None
    listed = _read_json(file)
    try:
        splits = {"test": listed["test_dev_indices"], "train": listed["nontest_dev_indices"]}
        fits = all(
            type(index) is int and 0 <= index < count
            for indices in splits.values()
            for index in indices
        )
    except (KeyError, TypeError):
        raise DataError(
            f"{file}: lists test_dev_indices and nontest_dev_indices are needed"
        ) from None
    if not fits:
        raise DataError(f"{file}: an index is not that of one of the {count} tasks in {TASKS_FILE}")
    return {name: list(indices) for name, indices in splits.items()}


def shares_answer(tasks: Sequence[SqlTask], test: Sequence[int]) -> set[int]:
    """The tasks that have database and gold in common with a test task: their answers would
    leak."""
    known = {_answer(tasks[index]) for index in test}
    return {index for index, task in enumerate(tasks) if _answer(task) in known}


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
            f"{SOURCE}/{file} is not the file that was expected: run rro data fetch {NAME} --from FOLDER"
        )
    (folder / file).write_bytes(content)


def _check(folder: Path) -> None:
    read_splits(folder, len(read_tasks(folder)))


def _derive(folder: Path) -> None:
    if (folder / RECORDED_FILE).exists():
        from rro.intercode_sql.recorded import write_experts

        write_experts(folder, folder / RECORDED_FILE, folder / EXPERTS_FILE)


def intercode_sql() -> DataSet:
    """InterCode-SQL's questions and the dump of its databases."""
    return DataSet((TASKS_FILE, DUMP_FILE, SPLITS_FILE), _obtain, _check, (RECORDED_FILE,), _derive)


def valid_tasks(folder: Path, tasks: Sequence[SqlTask]) -> list[int]:
    """The tasks whose gold runs without an error on the embedded engine (MySQL agrees on all of
    them)."""
    from rro.intercode_sql.embedded.sqlite import SqliteEngine

    with tempfile.TemporaryDirectory() as scratch:
        engine = SqliteEngine(folder / DUMP_FILE, Path(scratch))
        try:
            return [
                n
                for n, task in enumerate(tasks)
                if engine.execute(task.database, task.gold).error is None
            ]
        finally:
            engine.close()


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise DataError(f"{file}: not JSON ({error})") from None
