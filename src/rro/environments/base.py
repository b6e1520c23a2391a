"""The contract of an environment and of the benchmark that makes it. Knows nothing of policies.

An `Environment` is one episode at a time; a `Benchmark` holds what all its episodes share read-only
(catalogue, index, databases), the tasks by split and, if there is one, a scripted expert. Actions
are untrusted text: an environment answers a bad one (`StepResult.invalid`) and never raises for
it."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from rro.errors import UsageError
from rro.types import Completion, Message, SamplingParams, StepResult, Task


class Environment(ABC):
    """One episode. Deterministic given the task, the seed and the actions.

    Called from other threads than the one that made it, within a time limit; never twice at once,
    but at the same time as others of its class. Set `blocking` if a step waits for something (a
    server, a disk), so that it does not delay others.

    Every method may be a coroutine (`async def`): all are awaited in one event loop, which they
    must not block. A class whose `reset` or `step` is one counts as `blocking`."""

    blocking: bool = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if inspect.iscoroutinefunction(cls.reset) or inspect.iscoroutinefunction(cls.step):
            cls.blocking = True

    @abstractmethod
    def reset(self, task: Task, seed: int = 0) -> Sequence[Message] | Awaitable[Sequence[Message]]:
        """Start `task` again; returns the opening messages, which end with a user's."""

    @abstractmethod
    def step(self, action: Message) -> StepResult | Awaitable[StepResult]:
        """Carry out one assistant message. Not called again after a result that is `done`."""

    def tools(self) -> Sequence[Any]:
        """The tools that the episode offers, asked after `reset`: functions or schemas. None by
        default; rro.environments.tools.ToolEnvironment has some."""
        return ()

    def truncated_reward(self) -> float | Awaitable[float]:
        """The outcome reward when the episode is cut off at its step or context limit."""
        return 0.0

    def close(self) -> Awaitable[None] | None:
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

    def snapshot(self) -> Any:
        """The state: immutable, so that no later step can change it."""
        ...

    def restore(self, snapshot: Any) -> Awaitable[None] | None:
        """Take on a state that `snapshot` gave."""
        ...


class Agent(Protocol):
    """What acts in an episode: the sampling half of a policy (see rro.policies.base). A scripted
    expert is one that knows the goal."""

    name: str

    async def sample(
        self, messages: Sequence[Message], n: int, params: SamplingParams, seed: int
    ) -> list[Completion]:
        """Draw `n` assistant messages after `messages`, as `Policy.sample` does."""
        ...


class Benchmark(ABC):
    """Tasks, and environments to act in them.

    `max_steps` limits an episode's actions where a recipe does not; an episode whose outcome is at
    least `success_reward` counts as a success; `reward_range` bounds the outcomes, as adaptive
    exploration needs to know. A person who plays need not type the `action_prefix` that a message
    has before its action."""

    name: str
    max_steps: int = 10
    success_reward: float = 1.0
    reward_range: tuple[float, float] = (0.0, 1.0)
    action_prefix: str = ""

    @abstractmethod
    def tasks(self, split: str) -> Sequence[Task]:
        """The tasks of a split in a fixed order. Raises UsageError that lists the splits for an
        unknown name."""

    @abstractmethod
    def make(self) -> Environment:
        """A new environment. Cheap, as the benchmark holds what is shared."""

    def action_of(self, message: Message) -> str:
        """The part of a message that decides its effect. Used where there are no snapshots to
        compare."""
        return message.text

    def expert(self, task: Task, noise: float, seed: int) -> Agent:
        """A scripted expert for `task` that errs with probability `noise` where it has a choice.
        Raises UsageError if the benchmark has none."""
        raise UsageError(
            f"{self.name} has no scripted expert: give expert trajectories in a file (experts.file)"
        )

    def provenance(self) -> Mapping[str, Any]:
        """What decides tasks and rewards beyond the code (data hashes, seeds), for the records, and
        as "license" that of the data, for the cards of exports."""
        return {}


class TaskList(Benchmark):
    """A benchmark made of an environment class and lists of tasks: enough for most environments
    that you write yourself.

    >>> TaskList("guess", GuessNumber, {"train": [Task("a", 3)], "test": [Task("b", 5)]})
    """

    def __init__(
        self,
        name: str,
        environment: Callable[[], Environment],
        tasks: Mapping[str, Sequence[Task]],
        max_steps: int = 10,
        success_reward: float = 1.0,
        expert: Callable[[Task, float, int], Agent] | None = None,
        reward_range: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        self.name, self.max_steps = name, max_steps
        self.success_reward, self.reward_range = success_reward, reward_range
        self._environment, self._expert = environment, expert
        self._tasks = {split: list(listed) for split, listed in tasks.items()}

    def tasks(self, split: str) -> Sequence[Task]:
        if split not in self._tasks:
            raise UsageError(
                f"{self.name} has no split {split!r}: choose one of {', '.join(self._tasks)}"
            )
        return self._tasks[split]

    def make(self) -> Environment:
        return self._environment()

    def expert(self, task: Task, noise: float, seed: int) -> Agent:
        make = self._expert or super().expert
        return make(task, noise, seed)
