"""ScienceWorld: experiments of primary school in a text world, on the original engine.

ScienceWorld is by Wang et al. (arXiv 2203.07540; allenai/ScienceWorld). docs/scienceworld.md says
how scores, limits and forks follow it, and with what sources.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from rro.environments.base import Agent, Benchmark
from rro.environments.splits import VALIDATION, WITHOUT_VALIDATION
from rro.errors import RroError, UsageError
from rro.plugins import did_you_mean
from rro.scienceworld.engine import SPLITS, Engine, EngineFailed, check_installed, engine_version
from rro.scienceworld.environment import ScienceWorldEnvironment, action_text
from rro.scienceworld.expert import GoldExpert
from rro.scienceworld.options import ScienceWorldOptions
from rro.scienceworld.pool import Engines
from rro.types import Message, Task

__all__ = [
    "ScienceWorldBenchmark",
    "ScienceWorldEnvironment",
    "ScienceWorldOptions",
    "open_scienceworld",
]


# Engines that list tasks and find gold paths, so that no episode loses its own for that.
_FINDERS = 2


class ScienceWorldBenchmark(Benchmark):
    """The tasks, as the engine divides them, and the engines that all episodes share.

    Raises UsageError where ScienceWorld or Java is not installed."""

    name = "scienceworld"
    max_steps = 100
    action_prefix = "Action: "

    def __init__(self, options: ScienceWorldOptions) -> None:
        check_installed()
        self.options = options
        start = partial(Engine, options.timeout)
        self.engines, self._finders = Engines(options.engines, start), Engines(_FINDERS, start)
        self._variations: dict[str, dict[str, list[int]]] | None = None
        self._gold: dict[tuple[str, int], list[str]] = {}
        self._lock = threading.Lock()

    def tasks(self, split: str) -> Sequence[Task]:
        """The tasks of "train", "dev" or "test": the first variation of each task type, then the
        second of each, and so on. "validation" is "dev". A task's data is its type and the number
        of its variation, and its id is such as "melt-3". Raises UsageError for another split, or
        for a task type that does not exist."""
        names = {**{name: name for name in SPLITS}, VALIDATION: "dev", WITHOUT_VALIDATION: "train"}
        if split not in names:
            raise UsageError(
                f"scienceworld has no split {split!r}: choose one of {', '.join(names)}"
            )
        columns = [splits[names[split]] for splits in self._chosen().values()]
        kinds = list(self._chosen())
        longest = max(map(len, columns), default=0)
        rounds = range(min(longest, self.options.variations or longest))
        return [
            Task(f"{kind}-{column[turn]}", (kind, column[turn]))
            for turn in rounds
            for kind, column in zip(kinds, columns, strict=True)
            if turn < len(column)
        ]

    def make(self) -> ScienceWorldEnvironment:
        """A new environment, which takes an engine when it is reset."""
        return ScienceWorldEnvironment(self.engines, self.options)

    def action_of(self, message: Message) -> str:
        """The action of an answer as the engine reads it; "" where there is none."""
        return (action_text(message.content) or "").lower()

    def expert(self, task: Task, noise: float = 0.0, seed: int = 0) -> Agent:
        """An agent that knows the task's gold path (see `GoldExpert`)."""
        return GoldExpert(partial(self.gold, task), noise, seed)

    def gold(self, task: Task) -> Sequence[str]:
        """The actions that solve a task, as the engine finds them, which takes seconds. They may
        take more moves than the limit allows."""
        kind, variation = task.data
        with self._lock:
            if (kind, variation) in self._gold:
                return self._gold[kind, variation]
        with self._finders.lend(None) as engine:
            path = engine.gold(kind, variation, self.options.simplifications)
        with self._lock:
            self._gold[kind, variation] = path
        return path

    def provenance(self) -> Mapping[str, Any]:
        """The engine's version and licence, and all options that decide tasks and rewards."""
        kept = {"tasks", "variations", "simplifications", "move_limit", "score"}
        return {
            "scienceworld": engine_version(),
            "license": "Apache-2.0",
            **self.options.model_dump(mode="json", include=kept),
        }

    def _chosen(self) -> dict[str, dict[str, list[int]]]:
        """Each task type's variations by split."""
        if self._variations is None:
            try:
                with self._finders.lend(None) as engine:
                    self._variations = engine.variations()
            except EngineFailed as error:
                hint = "on a busy machine, raise environment.options.timeout"
                raise RroError(f"{error}: {hint}") from error
        everything = self._variations
        for name in self.options.tasks:
            if name not in everything:
                raise UsageError(
                    f"environment.options.tasks: ScienceWorld has no task type {name!r}: "
                    f"{did_you_mean(name, list(everything))}"
                )
        return {name: everything[name] for name in self.options.tasks or everything}


def open_scienceworld(options: ScienceWorldOptions) -> ScienceWorldBenchmark:
    """Open the ScienceWorld benchmark, e.g. `open_scienceworld(ScienceWorldOptions())`.

    Raises UsageError where ScienceWorld or Java is not installed."""
    return ScienceWorldBenchmark(options)
