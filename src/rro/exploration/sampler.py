"""A strategy's hands: draws candidates, rolls out forks, estimates actions. The only place where cost
is counted.

Every finished draw and rollout is a journal record under a key that says what it is (iteration,
task, node, number), with a seed derived from the same key. On resume the strategy simply runs
again, and the sampler answers from the journal what was done before: nothing is repeated, and the
rest comes out as if nothing had happened."""

from __future__ import annotations

import asyncio
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Hashable,
    Iterable,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from rro.codec import from_plain, to_plain
from rro.environments.base import (
    Benchmark,
    Environment,
    Forkable,
    Watched,
    immutable_snapshot,
    replay_checked,
    restore_checked,
)
from rro.environments.calls import call_with_timeout
from rro.episodes.loop import (
    Limits,
    attempt_episode,
    open_environment,
    reset_checked,
    run_episode,
    step_checked,
    truncated_reward,
)
from rro.errors import RestoreError, RroError
from rro.exploration.budget import Budget, BudgetSpent
from rro.exploration.tree import Node, RolloutSuffix, Tree
from rro.policies.base import Policy
from rro.runs.journal import Journal
from rro.seeds import derive_seed
from rro.types import (
    Message,
    ProcessReward,
    SamplingParams,
    Step,
    StopReason,
    Task,
    Trajectory,
    Usage,
)

T = TypeVar("T")


class TaskFailed(RroError):
    """Something that a strategy needs could not be had after all retries: the task is missing."""


class ContextFull(Exception):
    """The history leaves the policy no room for another action: the trajectory ends where it
    stands."""


@dataclass(frozen=True)
class ExplorationContext:
    """What the samplers of one exploration share. `rollout_policy` rolls out (the policy itself unless a
    frozen model estimates); `budget` is asked before each new piece of work, and told its cost."""

    benchmark: Benchmark
    policy: Policy
    rollout_policy: Policy
    journal: Journal
    params: SamplingParams
    proposal_params: SamplingParams
    limits: Limits
    seed: int
    iteration: int = 0
    namespace: str = ""  # of the journal's keys and the seeds; the iteration where empty
    budget: Budget = field(default_factory=Budget)

    def key(self, task: Task, *parts: object) -> str:
        return "/".join(str(part) for part in (self.namespace or self.iteration, task.id, *parts))


class Sampler:
    """One task's window on policy, environment and journal. Coroutines of one task may run
    concurrently."""

    def __init__(self, context: ExplorationContext, task: Task) -> None:
        self.context, self.task = context, task
        self._environment_seed = derive_seed(context.seed, "environment", task.id)
        self._timeout = context.limits.step_timeout
        self.tree = Tree(task, Node("0", None))

    async def start(self) -> None:
        """Reset the task: the root gets its opening. Once, before anything else. Raises TaskFailed."""
        root = self.tree.root
        root.opening, root.snapshot = await self._retried(self._begin, "start")

    def is_open(self, node: Node) -> bool:
        """Whether another action can follow."""
        return node.stop is None and node.depth < self.context.limits.max_steps

    async def propose(self, node: Node) -> Node:
        """Draw one candidate a_t ~ pi(. | h_t) and carry it out in a fork. Raises ContextFull,
        BudgetSpent."""
        child, seed = self._child(node), self._seed("candidate", node.id, _drawn(node))
        node.children.append(child)
        record = self._known("candidate", child.id)
        if record is None:
            try:
                with self.context.budget.reserve("candidate"):
                    record = await self._draw(node, child, seed)
            except BudgetSpent:
                node.children.remove(child)
                raise
            self._keep("candidate", child.id, record)
        return self._settle(child, record)

    async def propose_and_estimate(self, node: Node, candidates: int, rollouts: int) -> list[Node]:
        """Draw `candidates` at once and estimate each as soon as it is drawn. Raises ContextFull."""

        async def one() -> Node:
            candidate = await self.propose(node)
            await self.estimate(candidate, rollouts)
            return candidate

        return await gather_all(one() for _ in range(candidates))

    async def follow(self, node: Node, action: Message) -> Node:
        """Carry out a given action (an expert's) as a candidate."""
        child = self._child(node)
        node.children.append(child)
        record = self._known("candidate", child.id)
        if record is None:
            carry_out = partial(self._carry_out, node, child, action, action.source.value, Usage())
            record = await self._retried(carry_out, f"candidate {child.id}")
            self._keep("candidate", child.id, record)
        return self._settle(child, record)

    async def roll_out(self, node: Node, number: int, *, keep_states: bool = False) -> Trajectory:
        """Rollout `number` from a node: its episode continued to the end in a fork, by the model
        that estimates. Its reward is None if it failed. `keep_states` spares what is recycled of it a
        replay where the environment has snapshots."""
        if number not in node.rollouts:
            policy, params = self.context.rollout_policy, self.context.params
            states: list[Any] | None = [] if keep_states else None
            node.rollouts[number] = await self._episode(
                "rollout", node, number, policy, params, states
            )
            node.states[number] = tuple(states or ())
        return node.rollouts[number]

    def recycle(self, node: Node) -> list[Node]:
        """The first actions of all rollouts through a node as candidates, each text once; the rest
        of each rollout is a rollout of its candidate. Costs nothing. A second call adds what has
        come since."""
        recycled = {child.id: child for child in node.children if child.recycled}
        for child in recycled.values():
            child.inherited = []
        for suffix in node.suffixes():
            if suffix.next is None:
                continue
            child_id = f"{node.id}.~{_digest(suffix.next.action.content)}"
            if child_id not in recycled:
                recycled[child_id] = self._recycled_child(child_id, node, suffix, suffix.next)
                node.children.append(recycled[child_id])
            self._must_agree(recycled[child_id], suffix.next)
            recycled[child_id].inherited.append(replace(suffix, start=suffix.start + 1))
        return list(recycled.values())

    async def outcome_of(self, node: Node) -> Hashable:
        """What an action did: equal for two candidates of one node that the environment cannot tell
        apart from here on.

        With snapshots: observation, reward and state. Without: what the benchmark says that a
        message does."""
        assert node.step is not None
        seen = (node.step.observation, node.step.reward, node.stop, node.reward)
        if node.stop is not None:
            return seen
        if self.tree.root.snapshot is None:
            return (*seen, self.context.benchmark.action_of(node.action))
        await self._retried(partial(self._ensure_snapshot, node), f"the state of {node.id}")
        return (*seen, node.snapshot)

    def estimate_from(self, node: Node, suffixes: Sequence[RolloutSuffix]) -> None:
        """r(h_t, a_t) from all that has been seen to follow it, here or after an action that does
        the same."""
        if node.stop is not None and node.reward is not None:
            node.estimate = ProcessReward((node.reward,), node.policy, exact=True)
        elif suffixes:
            node.estimate = ProcessReward(
                tuple(suffix.reward for suffix in suffixes), self.context.rollout_policy.name
            )

    async def play(self, number: int) -> Trajectory:
        """Episode `number` of the policy itself, from the start, drawn as candidates are. Its
        reward is None if it failed."""
        episodes, root = self.tree.episodes, self.tree.root
        if number not in episodes:
            policy, params = self.context.policy, self.context.proposal_params
            episodes[number] = await self._episode("episode", root, number, policy, params)
        return episodes[number]

    async def estimate(self, node: Node, n: int) -> ProcessReward | None:
        """r(h_t, a_t) from `n` rollouts; the outcome itself where the action ended the episode.
        None: all failed."""
        if node.stop is not None:
            if node.reward is not None:
                node.estimate = ProcessReward((node.reward,), node.policy, exact=True)
            return node.estimate
        await gather_all(
            self.roll_out(node, number) for number in range(n) if number not in node.rollouts
        )
        rewards = tuple(
            r for r in (node.rollouts[number].reward for number in range(n)) if r is not None
        )
        node.estimate = (
            ProcessReward(rewards, self.context.rollout_policy.name) if rewards else None
        )
        return node.estimate

    def commit(self, node: Node, *, rose: bool) -> None:
        """Extend the chosen trajectory by this candidate."""
        node.committed, node.rose = True, rose

    # -- below: forks, failures and the journal; strategies never see them

    def _child(self, node: Node) -> Node:
        self._must_be_open(node)
        return Node(f"{node.id}.{_drawn(node)}", node)

    def _recycled_child(self, child_id: str, node: Node, suffix: RolloutSuffix, step: Step) -> Node:
        child = Node(child_id, node, step=step, policy=suffix.rollout.policy, recycled=True)
        if suffix.is_last:
            child.stop, child.reward = suffix.rollout.stop, suffix.reward
        elif suffix.start < len(suffix.states):
            child.snapshot = suffix.states[suffix.start]
        return child

    def _must_agree(self, child: Node, again: Step) -> None:
        first = child.step
        assert first is not None
        if (first.observation, first.reward, first.done) != (
            again.observation,
            again.reward,
            again.done,
        ):
            what = f"task {self.task.id}: the same action at node {child.id} had two answers"
            raise RestoreError(f"{what}; the environment is not deterministic")

    def _must_be_open(self, node: Node) -> None:
        if not self.is_open(node):
            raise ValueError(
                f"node {node.id} of task {self.task.id} has ended; it takes no further action"
            )

    async def _draw(self, node: Node, child: Node, seed: int) -> dict[str, Any]:
        what, context = f"candidate {child.id}", self.context
        sample = partial(context.policy.sample, node.history(), 1, context.proposal_params, seed)
        completion = (await self._retried(sample, what))[0]
        if completion.finish == "context":
            return {"step": None, "policy": completion.policy, "usage": to_plain(completion.usage)}
        carry_out = partial(
            self._carry_out, node, child, completion.message, completion.policy, completion.usage
        )
        return {**await self._retried(carry_out, what), "logprobs": completion.logprobs}

    async def _carry_out(
        self, node: Node, child: Node, action: Message, policy: str, usage: Usage
    ) -> dict[str, Any]:
        begun, reward = time.perf_counter(), None
        async with self._fork(node) as (environment, replayed):
            result = await step_checked(environment, action, self._timeout)
            ended = result.done or node.depth + 1 >= self.context.limits.max_steps
            if ended:
                reward = (
                    result.reward
                    if result.done
                    else await truncated_reward(environment, self._timeout)
                )
            else:
                child.snapshot = await self._snapshot(environment)
        stop = StopReason.TERMINAL if result.done else StopReason.STEP_LIMIT if ended else None
        usage += Usage(environment_steps=1 + replayed, seconds=time.perf_counter() - begun)
        step = Step(action, result.observation, result.reward, result.done, result.invalid)
        return {
            "step": to_plain(step),
            "policy": policy,
            "reward": reward,
            "stop": stop,
            "usage": to_plain(usage),
        }

    async def _episode(
        self,
        kind: str,
        node: Node,
        number: int,
        policy: Policy,
        params: SamplingParams,
        states: list[Any] | None = None,
    ) -> Trajectory:
        self._must_be_open(node)
        key = f"{node.id}/{number}"
        record = self._known(kind, key)
        if record is None:
            once = partial(
                self._fork_and_run, node, policy, params, self._seed(kind, node.id, number), states
            )
            with self.context.budget.reserve(kind):
                trajectory = await attempt_episode(once, self.context.limits.retries)
            record = to_plain(replace(trajectory, opening=()))
            if trajectory.stop is not StopReason.FAILED:
                self._keep(kind, key, record)
            else:  # a missing one is paid for, but not finished: a resumed run tries again
                self.context.budget.spend(kind, trajectory.usage)
        trajectory = replace(from_plain(Trajectory, _bare(record)), opening=node.history())
        node.usage += trajectory.usage
        return trajectory

    async def _fork_and_run(
        self,
        node: Node,
        policy: Policy,
        params: SamplingParams,
        seed: int,
        states: list[Any] | None,
    ) -> Trajectory:
        task, history, limits = self.task.id, node.history(), self.context.limits
        try:
            async with self._fork(node) as (environment, replayed):
                watched = environment
                if states is not None and isinstance(environment, Forkable):
                    states.clear()  # of a try that failed
                    watched = Watched(environment, states)
                trajectory = await run_episode(
                    watched,
                    policy,
                    history,
                    task=task,
                    params=params,
                    limits=limits,
                    seed=seed,
                    taken=node.depth,
                )
        except RroError:
            raise
        except Exception as error:  # the fork failed, not the episode
            what = f"{type(error).__name__}: {error}"
            return Trajectory(
                task, history, (), None, StopReason.FAILED, policy.name, seed, error=what
            )
        return replace(trajectory, usage=trajectory.usage + Usage(environment_steps=replayed))

    async def _begin(self) -> tuple[tuple[Message, ...], Any]:
        async with self._environment() as environment:
            opening = await reset_checked(
                environment, self.task, self._environment_seed, self._timeout
            )
            return opening, await self._snapshot(environment)

    def _environment(self) -> AbstractAsyncContextManager[Environment]:
        return open_environment(self.context.benchmark, self._timeout)

    @asynccontextmanager
    async def _fork(self, node: Node) -> AsyncIterator[tuple[Environment, int]]:
        """A fresh environment that stands where `node` does, checked, and the number of steps that
        were replayed for it."""
        async with self._environment() as environment:
            if isinstance(environment, Forkable):
                await self._ensure_snapshot(node)
                await call_with_timeout(
                    environment, self._timeout, partial(restore_checked, environment, node.snapshot)
                )
                yield environment, 0
            else:
                await self._replay(environment, node)
                yield environment, node.depth

    async def _ensure_snapshot(self, node: Node) -> None:
        """On resume the nodes have no snapshot until they are forked. Not counted: an undisturbed
        run has no such cost."""
        if node.snapshot is None:
            async with self._environment() as environment:
                await self._replay(environment, node)
                node.snapshot = await self._snapshot(environment)

    async def _replay(self, environment: Environment, node: Node) -> None:
        steps = [step for step in (ancestor.step for ancestor in node.path()) if step is not None]
        opening, seed = self.tree.root.opening, self._environment_seed
        replay = partial(replay_checked, environment, self.task, seed, opening, steps)
        await call_with_timeout(environment, self._timeout * (1 + len(steps)), replay)

    async def _snapshot(self, environment: Environment) -> Any:
        if not isinstance(environment, Forkable):
            return None
        return await call_with_timeout(
            environment, self._timeout, partial(immutable_snapshot, environment)
        )

    async def _retried(self, once: Callable[[], Awaitable[T]], what: str) -> T:
        for attempt in range(1 + self.context.limits.retries):
            try:
                return await once()
            except RroError:
                raise
            except Exception as error:
                if attempt == self.context.limits.retries:
                    raise TaskFailed(
                        f"task {self.task.id}, {what}: {type(error).__name__}: {error}"
                    ) from error
        raise AssertionError("unreachable")

    def _settle(self, child: Node, record: dict[str, Any]) -> Node:
        child.usage += from_plain(Usage, record["usage"])
        child.policy = record["policy"]
        if record["step"] is None:
            assert child.parent is not None
            child.parent.usage += child.usage
            child.parent.children.remove(child)
            raise ContextFull
        child.step = from_plain(Step, record["step"])
        child.reward = record["reward"]
        child.stop = None if record["stop"] is None else StopReason(record["stop"])
        return child

    def _seed(self, *parts: object) -> int:
        return derive_seed(self.context.seed, self.context.key(self.task, *parts))

    def _known(self, kind: str, key: str) -> dict[str, Any] | None:
        return self.context.journal.get(kind, self.context.key(self.task, key))

    def _keep(self, kind: str, key: str, record: dict[str, Any]) -> None:
        self.context.journal.append(kind, self.context.key(self.task, key), record)
        self.context.budget.spend(kind, from_plain(Usage, record["usage"]))


def _drawn(node: Node) -> int:
    """Candidates that were drawn or given, which is what numbers the next one; recycled ones have
    no number."""
    return sum(not child.recycled for child in node.children)


def _digest(text: str) -> str:
    return f"{derive_seed(text):016x}"[:10]


async def gather_all(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run together, let every one come to its end (its work is journalled), then raise the first
    error if any."""
    results = await asyncio.gather(*coroutines, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results  # type: ignore[return-value]


def _bare(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in ("kind", "key")}
