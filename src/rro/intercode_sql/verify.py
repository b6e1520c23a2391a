"""Replays recordings of MySQL and of the original InterCode-SQL: `rro verify intercode-sql`.

docs/intercode-sql.md describes the files. Of a recording only the original's input is used; all its
output is compared.
"""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rro.environments.recordings import replay
from rro.intercode_sql import IntercodeSqlBenchmark, open_engine
from rro.intercode_sql.data import read_tasks
from rro.intercode_sql.embedded.syntax import parsed
from rro.intercode_sql.engine import Result, SqlError, cleaned
from rro.intercode_sql.environment import OBSERVATION_LENGTH, graded
from rro.intercode_sql.reward import RewardKind

_TOLERANCE = 1e-9
_REWARDS: dict[str, RewardKind] = {
    "iou": "iou",
    "iou_kendall": "published",
    "published": "published",
}


@dataclass
class StatementCounts:
    """How many statements were replayed, and how many have the recorded reward and observation.
    `nonzero` counts those whose recorded reward is not 0."""

    statements: int = 0
    reward_equal: int = 0
    nonzero: int = 0
    nonzero_equal: int = 0
    observation_equal: int = 0


@dataclass
class EpisodeCounts:
    """How many episodes were replayed, their turns with a recorded reward, and how many of these
    have the recorded reward and observation."""

    episodes: int = 0
    steps: int = 0
    reward_equal: int = 0
    observation_equal: int = 0


@dataclass
class AnswerCounts:
    """How many statements were run, and how many are answered as recorded: with rows or with an
    error (`kind_equal`), and of those recorded `with_rows`, with the same rows."""

    statements: int = 0
    kind_equal: int = 0
    with_rows: int = 0
    rows_equal: int = 0


def verify_statements(benchmark: IntercodeSqlBenchmark, file: Path) -> dict[str, int]:
    """Run each statement of a file in its database and compare; returns `StatementCounts`. Raises
    DataError that names file and line for a record of another form."""
    counts = StatementCounts()

    def play(record: Mapping[str, Any]) -> None:
        result = benchmark.engine.execute(record["db"].lower(), record["sql"])
        reward = graded(
            benchmark.engine, benchmark.all_tasks[record["task_index"]], result, "published"
        )
        equal = abs(reward - record["mysql97_reward"]) < _TOLERANCE
        counts.statements += 1
        counts.reward_equal += equal
        counts.nonzero += record["mysql97_reward"] != 0
        counts.nonzero_equal += equal and record["mysql97_reward"] != 0
        counts.observation_equal += _same_text(result, record["mysql97_obs"])

    replay(file, play, "InterCode-SQL")
    return asdict(counts)


def verify_episodes(benchmark: IntercodeSqlBenchmark, file: Path) -> dict[str, int]:
    """Replay the turns of each episode of a file and compare; returns `EpisodeCounts`. Raises
    DataError that names file and line for a record of another form."""
    counts = EpisodeCounts()

    def play(record: Mapping[str, Any]) -> None:
        task = benchmark.all_tasks[record["task_index"]]
        kind = _REWARDS[record["reward_version"]]
        last = Result(task.database)
        counts.episodes += 1
        for turn in record["turns"]:
            if turn["executed"] is not None and not turn["submit"]:
                last = benchmark.engine.execute(last.database, turn["executed"])
            if turn["reward"] is None:
                continue
            understood = turn["executed"] is not None or turn["submit"]
            reward = graded(benchmark.engine, task, last, kind) if understood else 0.0
            counts.steps += 1
            counts.reward_equal += abs(reward - turn["reward"]) < _TOLERANCE
            counts.observation_equal += understood and _same_text(last, turn["observation"])

    replay(file, play, "InterCode-SQL")
    return asdict(counts)


def verify_answers(benchmark: IntercodeSqlBenchmark, file: Path) -> dict[str, int]:
    """Run each statement of a file of {"db", "sql", "rows" or "error"} and compare; returns
    `AnswerCounts`.

    "rows" is Python's text of the rows, "error" MySQL's number, of which only the presence is
    compared. Rows are compared in order if the statement sorts them at its top level. Raises
    DataError that names file and line for a record of another form."""
    counts = AnswerCounts()

    def play(record: Mapping[str, Any]) -> None:
        result = benchmark.engine.execute(record["db"].lower(), record["sql"])
        expected = None if "error" in record else _rows(record["rows"])
        counts.statements += 1
        counts.with_rows += expected is not None
        if (result.error is None) == (expected is not None):
            counts.kind_equal += 1
            counts.rows_equal += expected is not None and _same_rows(
                record["sql"], _rows(result.text or "[]"), expected
            )

    replay(file, play, "a server")
    return asdict(counts)


def run_verify(
    data: Path,
    statements: Path | None = None,
    episodes: Path | None = None,
    engine: str = "sqlite",
    cache: Path | None = None,
    answers: Path | None = None,
) -> bool:
    """Replay the given files and print the counts of each as one line of JSON. True if all rewards,
    and all kinds of answers, were equal.

    `engine` is as in `open_engine`. A server's account may have the right to write: replaying only
    reads."""
    runs = open_engine(engine, data, cache, allow_writer=True)
    benchmark = IntercodeSqlBenchmark(runs, read_tasks(data), {})
    same = True
    for file, verify, total, equal in (
        (statements, verify_statements, "statements", "reward_equal"),
        (episodes, verify_episodes, "steps", "reward_equal"),
        (answers, verify_answers, "statements", "kind_equal"),
    ):
        if file is not None:
            counts = verify(benchmark, file)
            print(json.dumps(counts))
            same &= counts[equal] == counts[total]
    return same


def _same_text(result: Result, recorded: str) -> bool:
    """Whether the observation is the recorded one, which may be truncated."""
    text, recorded = result.text.strip(), recorded.strip()
    return recorded in (text, f"{text[:OBSERVATION_LENGTH]}...")


def _rows(text: str) -> list[str]:
    """Each row of Python's text of a list of rows, in one spelling."""
    try:
        rows = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise ValueError(error) from None
    if not isinstance(rows, ast.List):
        raise ValueError(f"not a list of rows: {text[:80]}")
    return list(map(ast.unparse, rows.elts))


def _same_rows(sql: str, rows: list[str], expected: list[str]) -> bool:
    return rows == expected if _is_sorted(sql) else Counter(rows) == Counter(expected)


def _is_sorted(sql: str) -> bool:
    """Whether a statement has an ORDER BY outside of all brackets."""
    try:
        return parsed(cleaned(sql)).tree.part("order") is not None
    except SqlError:
        return False
