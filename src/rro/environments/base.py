"""What acts: the contract of an environment and of the benchmark that owns it. Knows nothing of
policies.

An `Environment` is one episode at a time; a `Benchmark` holds what all its episodes share read-only
(catalogue, index, databases), the tasks by split, and where there is one a scripted expert. Agents'
actions are untrusted text: an environment answers a bad one (`StepResult.invalid`), it never raises
for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from rro.errors import UsageError
from rro.types import Completion, Message, SamplingParams, StepResult, Task


class Environment(ABC):
    """One episode. Deterministic given the task, the seed and the actions.

    It is called from a thread of the engine's, each call within a time limit; never twice at once,
    but beside others of its class. Set `blocking` where a step waits for something (a server, a
    disc), so that others are not held up (rro.environments.calls)."""

    blocking: bool = False

    @abstractmethod
    def reset(self, task: Task, seed: int = 0) -> Sequence[Message]:
        """Start `task` anew; returns the opening of the conversation (system text, first
        observation ...), which ends with a user message."""

    @abstractmethod
    def step(self, action: Message) -> StepResult:
        """Carry out one assistant message. Not called again once a result was `done`."""

    def truncated_reward(self) -> float:
        """The outcome reward when the episode is cut off at its step or context limit."""
        return 0.0

    def close(self) -> None:
        """Release what the episode holds."""

    @property
    def unwrapped(self) -> Environment:
        """This environment, or the one that a wrapper like rro.exploration.forks.Watched holds."""
        return self


@runtime_checkable
class Forkable(Protocol):
    """An environment whose state is a small immutable value that compares by ==. `restore` must
    bring back all that later steps depend on, the random stream included, in this or another
    instance of the same benchmark."""

    def snapshot(self) -> Any: ...

    def restore(self, snapshot: Any) -> None: ...


class ExpertPolicy(Protocol):
    """What `Benchmark.expert` returns: the sampling half of a policy (see rro.policies.base), with
    the goal inside."""

    name: str

    async def sample(
        self, messages: Sequence[Message], n: int, params: SamplingParams, seed: int
    ) -> list[Completion]: ...


class Benchmark(ABC):
    """Tasks, and environments to act in them."""

    name: str
    max_steps: int = 10
    success_reward: float = 1.0  # an episode at or above this counts as a success
    reward_range: tuple[float, float] = (
        0.0,
        1.0,
    )  # of outcomes: what adaptive exploration reckons with
    action_prefix: str = ""  # what stands before an action in a message, for a person who plays

    @abstractmethod
    def tasks(self, split: str) -> Sequence[Task]:
        """The tasks of a split in a fixed order. Raises UsageError that lists the splits for an
        unknown name."""

    @abstractmethod
    def make(self) -> Environment:
        """A new environment; cheap, as the shared part is held by the benchmark."""

    def action_of(self, message: Message) -> str:
        """The part of a message that the environment carries out: messages that agree in it do the
        same. Consulted only where there are no snapshots to compare."""
        return message.content

    def expert(self, task: Task, noise: float, seed: int) -> ExpertPolicy:
        """A scripted expert for `task` that errs with probability `noise` where it has a choice."""
        raise UsageError(
            f"{self.name} has no scripted expert: give expert trajectories in a file (experts.file)"
        )

    def provenance(self) -> Mapping[str, Any]:
        """What decides the tasks and rewards beyond the code (data hashes, seeds); goes into the
        run folder."""
        return {}


class TaskList(Benchmark):
    """A benchmark from an environment class and lists of tasks: enough for most environments of
    one's own.

    >>> TaskList("guess", GuessNumber, {"train": [Task("a", 3)], "test": [Task("b", 5)]})
    """

    def __init__(
        self,
        name: str,
        environment: Callable[[], Environment],
        tasks: Mapping[str, Sequence[Task]],
        max_steps: int = 10,
        success_reward: float = 1.0,
        expert: Callable[[Task, float, int], ExpertPolicy] | None = None,
        reward_range: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        self.name, self.max_steps, self.success_reward, self.reward_range = (
            name,
            max_steps,
            success_reward,
            reward_range,
        )
        self._environment, self._tasks, self._expert = environment, tasks, expert

    def tasks(self, split: str) -> Sequence[Task]:
        if split not in self._tasks:
            raise UsageError(
                f"{self.name} has no split {split!r}: choose one of {', '.join(self._tasks)}"
            )
        return self._tasks[split]

    def make(self) -> Environment:
        return self._environment()

    def expert(self, task: Task, noise: float, seed: int) -> ExpertPolicy:
        return (
            self._expert(task, noise, seed) if self._expert else super().expert(task, noise, seed)
        )
