"""A split's tasks, or a slice of them: `train[:-200]` to learn from and `train[-200:]` to choose
settings by, where an environment has no validation split of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rro.environments.base import Benchmark
from rro.types import Task

_SLICE = re.compile(r"(?P<split>.+)\[(?P<start>-?\d{0,9}):(?P<stop>-?\d{0,9})\]")


def tasks_of(benchmark: Benchmark, split: str) -> Sequence[Task]:
    """The tasks of a split in their order. `split` is a name, or a name with a slice as Hugging
    Face Datasets writes it: `train[100:]`, `train[:-200]`, `test[20:40]`.

    Raises UsageError for an unknown split."""
    match = _SLICE.fullmatch(split)
    if match is None:
        return benchmark.tasks(split)
    start, stop = (int(end) if end.strip("-") else None for end in match.group("start", "stop"))
    return benchmark.tasks(match["split"])[start:stop]
