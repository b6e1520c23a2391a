"""Episodes of a benchmark for callers outside rro: an environment each, and snapshots under names.

Knows no protocol."""

from __future__ import annotations

import hmac
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from rro.environments import contract
from rro.environments.base import Benchmark, Environment, Forkable
from rro.environments.coroutines import settled
from rro.types import Message, Step, Task


@dataclass
class Snapshots:
    """The snapshots of all sessions, by names that cannot be guessed. At most `most` are kept: the
    least recently used go. Equal states have equal names."""

    most: int
    _secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    _kept: OrderedDict[str, Any] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, snapshot: Any) -> str:
        """Keep it; returns its name."""
        text = repr(snapshot).encode("utf-8", "replace")
        name = hmac.new(self._secret, text, sha256).hexdigest()
        with self._lock:
            self._kept[name] = snapshot
            self._kept.move_to_end(name)
            while len(self._kept) > self.most:
                self._kept.popitem(last=False)
        return name

    def find(self, name: str) -> Any:
        """The snapshot of that name. Raises KeyError if it is gone."""
        with self._lock:
            if name not in self._kept:
                raise KeyError("this snapshot is unknown, or no longer kept")
            self._kept.move_to_end(name)
            return self._kept[name]


class Episode:
    """One session: an environment, and what OpenEnv's clients may ask of it."""

    def __init__(self, benchmark: Benchmark, snapshots: Snapshots) -> None:
        self._benchmark, self._snapshots = benchmark, snapshots
        self.environment: Environment = benchmark.make()
        self.task, self.seed, self.steps, self.open = "", 0, 0, False

    def reset(self, seed: int | None, task: Task) -> tuple[Message, ...]:
        """Start a task; returns the opening."""
        self.task, self.seed, self.steps, self.open = task.id, seed or 0, 0, False
        opening = contract.reset(self.environment, task, self.seed)
        self.open = True
        return opening

    def step(self, text: str) -> Step:
        """Carry out one action. Raises ValueError where no episode is open."""
        if not self.open:
            raise ValueError("no episode is open: call reset first")
        step = contract.step(self.environment, Message("assistant", text))
        self.steps += 1
        self.open = not step.done
        return step

    def truncated_reward(self) -> float:
        """The outcome if the episode were cut off now."""
        return contract.finite(settled(self.environment.truncated_reward()))

    def close(self) -> None:
        """Release what the environment holds."""
        settled(self.environment.close())

    def restore(self, name: str) -> None:
        """Go to a snapshot, of this session or of another that told its name."""
        if not isinstance(self.environment, Forkable):
            raise ValueError(f"{self._benchmark.name} has no snapshots: replay the actions")
        self.task, self.seed, self.steps, snapshot = self._snapshots.find(name)
        settled(self.environment.restore(snapshot))
        self.open = True

    def keep(self) -> str | None:
        """Keep the state; returns its name, or None where the environment has no snapshots."""
        if not self.open or not isinstance(self.environment, Forkable):
            return None
        snapshot = settled(self.environment.snapshot())
        return self._snapshots.keep((self.task, self.seed, self.steps, snapshot))

    def task_of(self, split: str, index: int | None, seed: int | None, name: str | None) -> Task:
        """The task of that id, or of that place in the split (default: the seed's). Raises
        IndexError, KeyError."""
        tasks = self._benchmark.tasks(split)
        if name is not None:
            named = next((task for task in tasks if task.id == name), None)
            if named is None:
                raise KeyError(f"the split {split} has no task {name!r}")
            return named
        place = (seed or 0) % max(len(tasks), 1) if index is None else index
        if not 0 <= place < len(tasks):
            raise IndexError(f"the split {split} has {len(tasks)} tasks, from 0 on")
        return tasks[place]
