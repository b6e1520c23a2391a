"""A benchmark of rro as OpenEnv's classes. Imports OpenEnv; only `openenv_server` imports this."""

from __future__ import annotations

from typing import Any

from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, EnvironmentMetadata, Observation, State
from pydantic import Field

from rro.adapters.served_episodes import Episode, Snapshots
from rro.environments.base import Benchmark, Forkable
from rro.errors import UsageError

_SPLITS = ("train", "test", "validation", "all")


class TextAction(Action):  # type: ignore[misc]
    """One assistant message."""

    message: str


class TextObservation(Observation):  # type: ignore[misc]
    """What the environment answers. `messages`: the opening, after a reset."""

    text: str
    messages: list[dict[str, str]] = Field(default_factory=list)


class Served(Environment[TextAction, TextObservation, State]):  # type: ignore[misc]
    """A session. What it tells in `metadata` is for clients of rro's; others ignore it."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self, benchmark: Benchmark, snapshots: Snapshots) -> None:
        super().__init__()
        self._benchmark, self._episode = benchmark, Episode(benchmark, snapshots)
        self._id: str | None = None

    def reset(
        self,
        seed: int | None = None,
        episode_id: str | None = None,
        split: str = "train",
        index: int | None = None,
        task: str | None = None,
        snapshot: str | None = None,
        keep: bool = False,
        **ignored: Any,
    ) -> TextObservation:
        """Start the task of that id, or of that place in the split; without either, the seed
        chooses. `snapshot`: go to that one instead. `keep`: tell the name of a snapshot."""
        self._id = episode_id
        if snapshot is not None:
            self._episode.restore(snapshot)
            return TextObservation(text="", metadata=self._metadata(keep))
        opening = self._episode.reset(seed, self._episode.task_of(split, index, seed, task))
        return TextObservation(
            text=opening[-1].content,
            messages=[message.chat() for message in opening],
            metadata=self._metadata(keep),
        )

    def step(
        self, action: TextAction, timeout_s: float | None = None, **ignored: Any
    ) -> TextObservation:
        """Carry out one action; `keep` in its metadata as for `reset`."""
        step = self._episode.step(action.message)
        metadata = self._metadata(bool(action.metadata.get("keep")))
        return TextObservation(
            text=step.observation,
            reward=step.reward,
            done=step.done,
            metadata={**metadata, "invalid": step.invalid, "info": dict(step.info)},
        )

    @property
    def state(self) -> State:
        """The task, and how many steps were taken."""
        return State(episode_id=self._id, step_count=self._episode.steps, task=self._episode.task)

    def get_metadata(self) -> EnvironmentMetadata:
        """Name and description."""
        name = self._benchmark.name
        return EnvironmentMetadata(name=name, description=f"{name}, served by rro")

    def list_splits(self) -> list[str]:
        """Those that the benchmark has of the usual ones."""
        return [split for split in _SPLITS if self._has(split)]

    def num_tasks(self, split: str) -> int:
        """How many tasks a split has."""
        return len(self._benchmark.tasks(split))

    def get_task(self, split: str, index: int) -> dict[str, Any]:
        """Id and place of a task."""
        return {"id": self._episode.task_of(split, index, None, None).id, "index": index}

    def list_tasks(self, split: str) -> list[dict[str, Any]]:
        """Ids and places of a split's tasks."""
        tasks = self._benchmark.tasks(split)
        return [{"id": task.id, "index": index} for index, task in enumerate(tasks)]

    def get_task_range(
        self, split: str, start: int | None = None, stop: int | None = None
    ) -> list[dict[str, Any]]:
        """Those of a slice."""
        return self.list_tasks(split)[start:stop]

    def close(self) -> None:
        """Release the environment."""
        self._episode.close()

    def _metadata(self, keep: bool) -> dict[str, Any]:
        episode = self._episode
        known: dict[str, Any] = {
            "task": episode.task,
            "snapshots": isinstance(episode.environment, Forkable),
        }
        if episode.open:
            known["truncated_reward"] = episode.truncated_reward()
        if keep:
            known["snapshot"] = episode.keep()
        return known

    def _has(self, split: str) -> bool:
        try:
            self._benchmark.tasks(split)
        except UsageError:
            return False
        return True
