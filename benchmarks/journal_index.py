"""What the journal's own index is worth:
`python -m benchmarks.journal_index [--records 200000] [--repeats 3]`.

Opens the same journal with it and with a dict of keys in its place, in processes of their own, and
looks up every record once. Prints seconds and memory beyond the start as one JSON object, with the
spread."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rro.runs import journal
from rro.runs.journal import Journal


class DictIndex:
    """The same as rro.runs.journal_index.Index, by a dict whose keys are held in memory."""

    def __init__(self, name_at: Callable[[int, int], tuple[str, str]]) -> None:
        self._places: dict[tuple[str, str], tuple[int, int]] = {}

    def put(self, kind: str, key: str, start: int, length: int) -> None:
        self._places[kind, key] = start, length

    def find(self, kind: str, key: str) -> tuple[int, int] | None:
        return self._places.get((kind, key))

    def places(self, kind: str | None = None, start: int = 0) -> Iterator[tuple[int, int]]:
        for (known, _), place in list(self._places.items())[start:]:
            if kind is None or known == kind:
                yield place


def keys(count: int) -> Iterator[str]:
    """Keys as an exploration makes them."""
    return (f"1/synthetic-{n // 80}/0.{n % 4}.{n % 7}.{n % 3}/{n}" for n in range(count))


def write(path: Path, count: int) -> None:
    """A journal of so many small records."""
    lines = [{"kind": "journal", "key": "", "schema": journal.SCHEMA}]
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(lines[0]) + "\n")
        for key in keys(count):
            file.write(json.dumps({"kind": "rollout", "key": key, "reward": 1.0}) + "\n")


def measure(path: Path, count: int, own: bool, answer: Any) -> None:
    """Open the journal, look up all records, and send what it took."""
    if not own:
        journal.Index = DictIndex  # type: ignore[misc, assignment]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.process_time()
    with Journal(path, read_only=True) as opened:
        open_seconds = time.process_time() - begun
        begun = time.process_time()
        assert all(("rollout", key) in opened for key in keys(count))
        look_up_seconds = time.process_time() - begun
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    answer.send((open_seconds, look_up_seconds, grown / 1024))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    names, found = ("open_cpu_s", "look_up_cpu_s", "memory_mib"), dict[str, list[Any]]()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        write(path, options.records)
        for own in [True, False] * options.repeats:
            receiver, sender = multiprocessing.Pipe(duplex=False)
            arguments = (path, options.records, own, sender)
            process = multiprocessing.get_context("spawn").Process(target=measure, args=arguments)
            process.start()
            found.setdefault("own" if own else "dict", []).append(receiver.recv())
            process.join()
    print(json.dumps({name: spread(names, rows) for name, rows in found.items()}, indent=1))


def spread(names: tuple[str, ...], rows: list[tuple[float, ...]]) -> dict[str, list[float]]:
    """Minimum, median and maximum of each figure."""
    columns = zip(names, zip(*rows, strict=True), strict=True)
    return {
        name: [round(value, 2) for value in (min(column), statistics.median(column), max(column))]
        for name, column in columns
    }


if __name__ == "__main__":
    main()
