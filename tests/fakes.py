"""Small fakes: environments over explicit trees whose values are known, and policies that walk
them.

A tree is a reward (the episode ends there) or a mapping from action texts to trees. The environment
shows where it stands and what can be done ("at b/x: go y z"), so a policy needs nothing but the
conversation."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rro.config import Config, CreditConfig
from rro.environments.base import Benchmark, Environment
from rro.episodes.loop import Limits, play_task
from rro.exploration import explorer
from rro.exploration.records import read_trees
from rro.exploration.sampler import ExplorationContext, Sampler
from rro.exploration.strategies.base import Strategy
from rro.exploration.tree import Tree
from rro.learning.credit.base import Credit, CreditContext
from rro.learning.credit.choosing import credit_of
from rro.policies.base import Policy, PolicyContext
from rro.policies.scripted import ScriptedPolicy
from rro.runs.journal import Journal
from rro.runs.progress import Progress
from rro.types import (
    Completion,
    Message,
    SamplingParams,
    Source,
    StepResult,
    Task,
    Trajectory,
    Usage,
)

Branch = float | Mapping[str, Any]
Fault = Callable[[str, str], None]  # (path, action): may raise or wait; action "" is a reset
TREE = {
    "a": {"x": 0.2, "y": {"p": 0.9, "q": 0.1}},
    "b": {"x": 0.6, "y": {"p": 0.5, "q": 0.3}},
    "c": 0.5,
}
PROPOSE, ROLL_OUT = SamplingParams(temperature=0.5), SamplingParams(temperature=1.0)


@dataclass
class Calls:
    """What environments really did."""

    made: int = 0
    closed: int = 0
    steps: int = 0
    resets: int = 0
    restores: int = 0
    most_open: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str) -> None:
        with self.lock:
            setattr(self, what, getattr(self, what) + 1)
            self.most_open = max(self.most_open, self.made - self.closed)


class TreeEnvironment(Environment):
    """Walks a tree; has no snapshot, so it is forked by replay."""

    def __init__(self, benchmark: TreeBenchmark) -> None:
        self.benchmark, self.blocking = benchmark, benchmark.blocking
        self.task, self.path, self.ended = "", (), False
        benchmark.calls.count("made")

    def reset(self, task: Task, seed: int = 0) -> Sequence[Message]:
        self.benchmark.calls.count("resets")
        self.benchmark.fault("", "")
        self.task, self.path, self.ended = task.id, (), False
        return [Message("system", "Walk."), Message("user", self.show())]

    def step(self, action: Message) -> StepResult:
        assert not self.ended, "an episode that ended is never stepped again"
        self.benchmark.calls.count("steps")
        self.benchmark.fault("/".join(self.path), action.content)
        branches = self.here()
        if action.content not in branches:
            return StepResult(self.show(), invalid=True)
        self.path = (*self.path, action.content)
        here = self.here()
        if not isinstance(here, Mapping):
            self.ended = True
            return StepResult("the end", reward=here, done=True)
        return StepResult(self.show())

    def truncated_reward(self) -> float:
        return self.benchmark.truncated

    def close(self) -> None:
        self.benchmark.calls.count("closed")

    def here(self) -> Any:
        branch = self.benchmark.trees[self.task]
        for action in self.path:
            branch = branch[action]
        return branch

    def show(self) -> str:
        return f"at {'/'.join(self.path)}: go {' '.join(self.here())}"


class ForkableTreeEnvironment(TreeEnvironment):
    """The same with snapshot and restore."""

    def snapshot(self) -> tuple[str, tuple[str, ...]]:
        return self.task, self.path

    def restore(self, snapshot: tuple[str, tuple[str, ...]]) -> None:
        self.benchmark.calls.count("restores")
        self.task, self.path = snapshot
        self.ended = False


class TreeBenchmark(Benchmark):
    """One task per tree. `fault` is called before every step and reset."""

    def __init__(
        self,
        trees: Mapping[str, Branch],
        environment: type[TreeEnvironment] = ForkableTreeEnvironment,
        *,
        blocking: bool = False,
        fault: Fault = lambda path, action: None,
        truncated: float = 0.0,
        max_steps: int = 10,
    ) -> None:
        self.name, self.trees, self.calls = "trees", trees, Calls()
        self.environment, self.blocking, self.fault = environment, blocking, fault
        self.truncated, self.max_steps = truncated, max_steps

    def tasks(self, split: str = "train") -> list[Task]:
        return [Task(name) for name in self.trees]

    def make(self) -> Environment:
        return self.environment(self)


def value(branch: Branch) -> float:
    """The exact value of a tree under the policy that takes each action equally often."""
    if not isinstance(branch, Mapping):
        return branch
    return sum(map(value, branch.values())) / len(branch)


def place(messages: Sequence[Message]) -> tuple[str, list[str]]:
    """Where the conversation stands: the path, and the actions there."""
    path, _, actions = messages[-1].content.removeprefix("at ").partition(": go ")
    return path, actions.split()


def any_action(messages: Sequence[Message], rng: random.Random) -> str:
    """Each action equally often."""
    return rng.choice(place(messages)[1])


def uniform(name: str = "uniform") -> ScriptedPolicy:
    """Takes each action equally often, by the request's seed alone."""
    return ScriptedPolicy(any_action, name)


class Planned:
    """Proposes what is planned for a path, in that order, and rolls out by a fixed choice per path
    (default: the first)."""

    def __init__(
        self, proposals: Mapping[str, Sequence[str]], choices: Mapping[str, str] | None = None
    ) -> None:
        self.name, self.choices = "planned", choices or {}
        self.left = {path: list(actions) for path, actions in proposals.items()}

    async def sample(
        self, messages: Sequence[Message], n: int, params: SamplingParams, seed: int
    ) -> list[Completion]:
        path, actions = place(messages)
        planned = self.left[path] if params == PROPOSE else [self.choices.get(path, actions[0])] * n
        texts = [planned.pop(0) for _ in range(n)]
        usage = Usage(policy_calls=1)
        return [
            Completion(Message("assistant", text, Source.POLICY), "stop", self.name, usage)
            for text in texts
        ]

    async def close(self) -> None:
        """Nothing to release."""


class Counted:
    """A policy around another that counts its calls, keeps others waiting a little, and may fail
    (`fault(calls, seed)`)."""

    def __init__(
        self, inner: Policy, fault: Callable[[int, int], None] = lambda calls, seed: None
    ) -> None:
        self.inner, self.name, self.fault = inner, inner.name, fault
        self.calls, self.seeds = 0, Counter[int]()

    async def sample(
        self, messages: Sequence[Message], n: int, params: SamplingParams, seed: int
    ) -> list[Completion]:
        self.calls += n
        self.seeds[seed] += 1
        for _ in range(seed % 5):  # others overtake
            await asyncio.sleep(0)
        self.fault(self.calls, seed)
        return await self.inner.sample(messages, n, params, seed)

    async def close(self) -> None:
        await self.inner.close()


class Overflowing:
    """A policy whose context is full once the conversation has more than `limit` messages."""

    def __init__(self, inner: Policy, limit: int) -> None:
        self.inner, self.name, self.limit = inner, inner.name, limit

    async def sample(
        self, messages: Sequence[Message], n: int, params: SamplingParams, seed: int
    ) -> list[Completion]:
        if len(messages) <= self.limit:
            return await self.inner.sample(messages, n, params, seed)
        empty = Message("assistant", "", Source.POLICY)
        return [Completion(empty, "context", self.name, Usage(prompt_tokens=1))] * n

    async def close(self) -> None:
        await self.inner.close()


def make_context(
    benchmark: Benchmark, policy: Policy, journal: Journal, **changes: Any
) -> ExplorationContext:
    """A context with the limits of the benchmark and one retry."""
    limits = Limits(
        benchmark.max_steps,
        step_timeout=changes.pop("step_timeout", 5.0),
        retries=changes.pop("retries", 1),
    )
    context = ExplorationContext(
        benchmark, policy, policy, journal, ROLL_OUT, PROPOSE, limits, seed=7
    )
    return replace(context, **changes)


def policy_context(
    config: Config, checkpoint: Path | None, name: str, logs: Path, start: Path | None = None
) -> PolicyContext:
    """What a run with this configuration tells a policy backend."""
    label = name.partition("/")[2]
    return PolicyContext(
        name, label, config.model, config.policy, lambda: checkpoint, start, config.threads, logs
    )


def grow(strategy: Any, context: ExplorationContext, task: Task | None = None) -> Tree:
    """One task's finished tree."""

    async def work() -> Tree:
        sampler = Sampler(context, task or context.benchmark.tasks("train")[0])
        await sampler.start()
        await strategy.explore(sampler)
        return sampler.tree

    return asyncio.run(work())


@dataclass(frozen=True)
class Folded:
    """A strategy with the credit of its trees."""

    strategy: Strategy
    credit: Callable[[int], Credit]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.strategy, name)

    def pairs(self, tree: Tree, iteration: int = 1) -> list[Any]:
        credit = self.credit(iteration)
        return list(credit.rows(tree)) if credit.gives == "pairs" else []

    def demonstrations(self, tree: Tree) -> list[Any]:
        credit = self.credit(0)
        return list(credit.rows(tree)) if credit.gives == "conversations" else []


def folded(
    strategy: Strategy,
    experts: Mapping[str, Any] | None = None,
    success_reward: float = 0.5,
    reward_range: tuple[float, float] = (0.0, 1.0),
    **section: Any,
) -> Folded:
    """A strategy with its own credit; `section` is the recipe's `[credit]`."""

    def of(iteration: int) -> Credit:
        known = CreditContext(
            experts or {}, reward_range, success_reward, strategy=strategy.name, iteration=iteration
        )
        return credit_of(strategy, known, CreditConfig(**section))

    return Folded(strategy, of)


def pairs_of(strategy: Any, tree: Tree, iteration: int = 1) -> list[Any]:
    """The pairs that the strategy's own credit makes of a tree."""
    credited = folded(strategy) if isinstance(strategy, Strategy) else strategy
    return list(credited.pairs(tree, iteration))


def explore(strategy: Any, context: ExplorationContext, concurrency: int = 4) -> list[str]:
    """Explore all tasks of the context's benchmark; returns the failed ones."""
    tasks = context.benchmark.tasks("train")
    with Progress("explore", len(tasks), "tasks") as progress:
        return list(asyncio.run(explorer.explore(tasks, strategy, context, concurrency, progress)))


@contextmanager
def fresh_journal(folder: Path, name: str = "journal.jsonl"):
    """A journal at folder/name."""
    with Journal(folder / name) as journal:
        yield journal


def timeless(value: Any) -> Any:
    """Without what differs between two equal runs: seconds."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key != "seconds"}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def finished_trees(journal: Journal, prefix: str = "") -> dict[str, Tree]:
    """Every finished task's tree by key, read from the journal."""
    keys = [record["key"] for record in journal.records("task", prefix)]
    trees = read_trees(journal, [(key, Task(key.partition("/")[2])) for key in keys])
    return dict(zip(keys, trees, strict=True))


def task_records(journal: Journal) -> dict[str, Any]:
    """Every task's record by key, without seconds."""
    return {record["key"]: timeless(record) for record in journal.records("task")}


def expert_episode(benchmark: Benchmark, task: Task, noise: float) -> Trajectory:
    """An episode of the benchmark's scripted expert."""
    return asyncio.run(
        play_task(
            benchmark,
            benchmark.expert(task, noise, 3),
            task,
            params=SamplingParams(),
            limits=Limits(),
            seed=5,
            environment_seed=0,
        )
    )
