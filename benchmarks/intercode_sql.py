"""How fast InterCode-SQL answers in one process: `python -m benchmarks.intercode_sql [--data
FOLDER] [--episodes FILE]`.

Plays the SQL of recorded episodes (see `rro verify intercode-sql`) as an agent's answers, from
parsing the answer to the cut observation, with a submission and its reward at the end of each
episode; prints one JSON object. "cold": nothing ran before, every statement is translated and
executed when it is first met. "warm": all have been met. "distinct": each statement once, cold,
which is the cost of a new statement. Rates are medians of the repeats, with lowest and highest."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rro.intercode_sql import (
    IntercodeSqlBenchmark,
    IntercodeSqlOptions,
    open_intercode_sql,
)
from rro.intercode_sql.embedded.sqlite import SqliteEngine
from rro.types import Message, Task

SHARED = Path(os.environ.get("RRO_SHARED", Path(__file__).parents[2] / "shared"))
Episode = tuple[Task, list[Message]]


def main() -> None:
    arguments = _arguments()
    episodes = _episodes(arguments.episodes)
    with tempfile.TemporaryDirectory() as cache:
        options = IntercodeSqlOptions(data=arguments.data, cache=Path(cache))
        build = _seconds(lambda: open_intercode_sql(options).engine.close())
        reopen = _seconds(lambda: open_intercode_sql(options).engine.close())
        benchmark = open_intercode_sql(options)
        steps = sum(len(answers) + 1 for _, answers in episodes)
        cold = [
            _rate(lambda: _play(benchmark, episodes), steps)
            for _ in _cleared(benchmark, arguments.repeats)
        ]
        warm = [_rate(lambda: _play(benchmark, episodes), steps) for _ in range(arguments.repeats)]
        single = _distinct(episodes)
        distinct = [
            _rate(lambda: _play(benchmark, single), len(single))
            for _ in _cleared(benchmark, arguments.repeats)
        ]
        forks = _forks(benchmark, episodes[0][0])
    report = {
        "steps": steps,
        "steps_per_second_cold": round(statistics.median(cold)),
        "steps_per_second_cold_range": _range(cold),
        "steps_per_second_warm": round(statistics.median(warm)),
        "steps_per_second_warm_range": _range(warm),
        "distinct_statements": len(single),
        "distinct_per_second": round(statistics.median(distinct)),
        "snapshot_and_restore_microseconds": round(forks * 1e6, 2),
        "build_seconds": round(build, 2),
        "open_seconds": round(reopen, 2),
        "peak_resident_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print(json.dumps(report, indent=2))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed of the InterCode-SQL environment.")
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "intercode-sql")
    parser.add_argument(
        "--episodes",
        type=Path,
        default=SHARED / "conformance" / "intercode-sql" / "episodes.jsonl.gz",
    )
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


def _episodes(file: Path) -> list[Episode]:
    records = map(json.loads, gzip.decompress(file.read_bytes()).splitlines())
    return [
        (
            Task(str(number), record["task_index"]),
            [_answer(turn["executed"]) for turn in record["turns"] if turn["executed"]],
        )
        for number, record in enumerate(records)
    ]


def _answer(sql: str) -> Message:
    return Message("assistant", f"Thought: I run this.\nAction: \n```sql\n{sql}\n```")


def _distinct(episodes: Sequence[Episode]) -> list[Episode]:
    """One episode of one statement for each statement of a task."""
    found = {
        (task.data, answer.content): (task, [answer])
        for task, answers in episodes
        for answer in answers
    }
    return list(found.values())


def _play(benchmark: IntercodeSqlBenchmark, episodes: Sequence[Episode]) -> None:
    environment = benchmark.make()
    submit = Message("assistant", "Thought: Done.\nAction: submit")
    for task, answers in episodes:
        environment.reset(task)
        for answer in answers:
            environment.step(answer)
        environment.step(submit)


def _cleared(benchmark: IntercodeSqlBenchmark, repeats: int) -> Iterator[int]:
    """So many rounds, each with an empty cache of statements."""
    assert isinstance(benchmark.engine, SqliteEngine)
    for number in range(repeats):
        benchmark.engine.cache.clear()
        yield number


def _forks(benchmark: IntercodeSqlBenchmark, task: Task) -> float:
    """Seconds of one snapshot with its restoring in another environment."""
    one, other, times = benchmark.make(), benchmark.make(), 100_000
    one.reset(task)
    one.run("SELECT 1")

    def fork() -> None:
        for _ in range(times):
            other.restore(one.snapshot())

    return _seconds(fork) / times


def _seconds(work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _rate(work: Callable[[], None], count: int) -> float:
    return count / _seconds(work)


def _range(rates: Sequence[float]) -> list[int]:
    return [round(min(rates)), round(max(rates))]


if __name__ == "__main__":
    main()
