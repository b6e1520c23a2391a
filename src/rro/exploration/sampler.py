"""A strategy's hands: draws candidates, rolls out forks, prices actions. The only place where cost
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
from rro.environments.calls import bounded
from rro.episodes.loop import (
    Limits,
    act,
    attempt_episode,
    begin,
    opened,
    run_episode,
    truncated_reward,
)
from rro.errors import RestoreError, RroError
from rro.exploration.budget import Account, BudgetSpent
from rro.exploration.tree import Node, Passage, Tree
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


class Missing(RroError):
    """Something that a strategy needs could not be had after all retries: the task is missing."""


class ContextFull(Exception):
    """The history leaves the policy no room for another action: the trajectory ends where it
    stands."""


@dataclass(frozen=True)
class Scope:
    """What the samplers of one exploration share. `pricer` rolls out (the policy itself unless a
    frozen model prices); `account` is asked before each new piece of work, and told its cost."""

    benchmark: Benchmark
    policy: Policy
    pricer: Policy
    journal: Journal
    params: SamplingParams
    proposal_params: SamplingParams
    limits: Limits
    seed: int
    iteration: int = 0
    namespace: str = ""  # of the journal's keys and the seeds; the iteration where empty
    account: Account = field(default_factory=Account)

    def key(self, task: Task, *parts: object) -> str:
        return "/".join(str(part) for part in (self.namespace or self.iteration, task.id, *parts))


class Sampler:
    """One task's window on policy, environment and journal. Coroutines of one task may run
    concurrently."""

    def __init__(self, scope: Scope, task: Task) -> None:
        self.scope, self.task = scope, task
        self._environment_seed = derive_seed(scope.seed, "environment", task.id)
        self._timeout = scope.limits.step_timeout
        self.tree = Tree(task, Node("0", None))

    async def start(self) -> None:
        """Reset the task: the root gets its opening. Once, before anything else. Raises Missing."""
        root = self.tree.root
        root.opening, root.snapshot = await self._retried(self._begin, "start")

    def is_open(self, node: Node) -> bool:
        """Whether another action can follow."""
        return node.stop is None and node.depth < self.scope.limits.max_steps

    async def propose(self, node: Node) -> Node:
        """Draw one candidate a_t ~ pi(. | h_t) and carry it out in a fork. Raises ContextFull,
        BudgetSpent."""
        child, seed = self._child(node), self._seed("candidate", node.id, _drawn(node))
        node.children.append(child)
        record = self._known("candidate", child.id)
        if record is None:
            try:
                with self.scope.account.piece("candidate"):
                    record = await self._draw(node, child, seed)
            except BudgetSpent:
                node.children.remove(child)
                raise
            self._keep("candidate", child.id, record)
        return self._settle(child, record)

    async def propose_and_price(self, node: Node, candidates: int, rollouts: int) -> list[Node]:
        """Draw `candidates` at once and price each as soon as it is drawn. Raises ContextFull."""

        async def one() -> Node:
            candidate = await self.propose(node)
            await self.price(candidate, rollouts)
            return candidate

        return await together(one() for _ in range(candidates))

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
        that prices. Its reward is None if it failed. `keep_states` spares what is recycled of it a
        replay where the environment has snapshots."""
        if number not in node.rollouts:
            policy, params = self.scope.pricer, self.scope.params
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
        heirs = {child.id: child for child in node.children if child.recycled}
        for heir in heirs.values():
            heir.inherited = []
        for passage in node.passages():
            if passage.next is None:
                continue
            heir_id = f"{node.id}.~{_digest(passage.next.action.content)}"
            if heir_id not in heirs:
                heirs[heir_id] = self._heir(heir_id, node, passage, passage.next)
                node.children.append(heirs[heir_id])
            self._must_agree(heirs[heir_id], passage.next)
            heirs[heir_id].inherited.append(replace(passage, taken=passage.taken + 1))
        return list(heirs.values())

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
            return (*seen, self.scope.benchmark.action_of(node.action))
        await self._retried(partial(self._ensure_snapshot, node), f"the state of {node.id}")
        return (*seen, node.snapshot)

    def reprice(self, node: Node, passages: Sequence[Passage]) -> None:
        """r(h_t, a_t) from all that has been seen to follow it, here or after an action that does
        the same."""
        if node.stop is not None and node.reward is not None:
            node.price = ProcessReward((node.reward,), node.policy, exact=True)
        elif passages:
            node.price = ProcessReward(
                tuple(passage.reward for passage in passages), self.scope.pricer.name
            )

    async def play(self, number: int) -> Trajectory:
        """Episode `number` of the policy itself, from the start, drawn as candidates are. Its
        reward is None if it failed."""
        episodes, root = self.tree.episodes, self.tree.root
        if number not in episodes:
            policy, params = self.scope.policy, self.scope.proposal_params
            episodes[number] = await self._episode("episode", root, number, policy, params)
        return episodes[number]

    async def price(self, node: Node, n: int) -> ProcessReward | None:
        """r(h_t, a_t) from `n` rollouts; the outcome itself where the action ended the episode.
        None: all failed."""
        if node.stop is not None:
            if node.reward is not None:
                node.price = ProcessReward((node.reward,), node.policy, exact=True)
            return node.price
        await together(
            self.roll_out(node, number) for number in range(n) if number not in node.rollouts
        )
        rewards = tuple(
            r for r in (node.rollouts[number].reward for number in range(n)) if r is not None
        )
        node.price = ProcessReward(rewards, self.scope.pricer.name) if rewards else None
        return node.price

    def commit(self, node: Node, *, rose: bool) -> None:
        """Extend the chosen trajectory by this candidate."""
        node.committed, node.rose = True, rose

    # -- below: forks, failures and the journal; strategies never see them

    def _child(self, node: Node) -> Node:
        self._must_be_open(node)
        return Node(f"{node.id}.{_drawn(node)}", node)

    def _heir(self, heir_id: str, node: Node, passage: Passage, step: Step) -> Node:
        heir = Node(heir_id, node, step=step, policy=passage.rollout.policy, recycled=True)
        if passage.is_last:
            heir.stop, heir.reward = passage.rollout.stop, passage.reward
        elif passage.taken < len(passage.states):
            heir.snapshot = passage.states[passage.taken]
        return heir

    def _must_agree(self, heir: Node, again: Step) -> None:
        first = heir.step
        assert first is not None
        if (first.observation, first.reward, first.done) != (
            again.observation,
            again.reward,
            again.done,
        ):
            what = f"task {self.task.id}: the same action at node {heir.id} had two answers"
            raise RestoreError(f"{what}; the environment is not deterministic")

    def _must_be_open(self, node: Node) -> None:
        if not self.is_open(node):
            raise ValueError(
                f"node {node.id} of task {self.task.id} has ended; it takes no further action"
            )

    async def _draw(self, node: Node, child: Node, seed: int) -> dict[str, Any]:
        what, scope = f"candidate {child.id}", self.scope
        sample = partial(scope.policy.sample, node.history(), 1, scope.proposal_params, seed)
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
            result = await act(environment, action, self._timeout)
            ended = result.done or node.depth + 1 >= self.scope.limits.max_steps
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
            with self.scope.account.piece(kind):
                trajectory = await attempt_episode(once, self.scope.limits.retries)
            record = to_plain(replace(trajectory, opening=()))
            if trajectory.stop is not StopReason.FAILED:
                self._keep(kind, key, record)
            else:  # a missing one is paid for, but not finished: a resumed run tries again
                self.scope.account.spend(kind, trajectory.usage)
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
        task, history, limits = self.task.id, node.history(), self.scope.limits
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
            opening = await begin(environment, self.task, self._environment_seed, self._timeout)
            return opening, await self._snapshot(environment)

    def _environment(self) -> AbstractAsyncContextManager[Environment]:
        return opened(self.scope.benchmark, self._timeout)

    @asynccontextmanager
    async def _fork(self, node: Node) -> AsyncIterator[tuple[Environment, int]]:
        """A fresh environment that stands where `node` does, checked, and the number of steps that
        were replayed for it."""
        async with self._environment() as environment:
            if isinstance(environment, Forkable):
                await self._ensure_snapshot(node)
                await bounded(
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
        await bounded(environment, self._timeout * (1 + len(steps)), replay)

    async def _snapshot(self, environment: Environment) -> Any:
        if not isinstance(environment, Forkable):
            return None
        return await bounded(environment, self._timeout, partial(immutable_snapshot, environment))

    async def _retried(self, once: Callable[[], Awaitable[T]], what: str) -> T:
        for attempt in range(1 + self.scope.limits.retries):
            try:
                return await once()
            except RroError:
                raise
            except Exception as error:
                if attempt == self.scope.limits.retries:
                    raise Missing(
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
        return derive_seed(self.scope.seed, self.scope.key(self.task, *parts))

    def _known(self, kind: str, key: str) -> dict[str, Any] | None:
        return self.scope.journal.get(kind, self.scope.key(self.task, key))

    def _keep(self, kind: str, key: str, record: dict[str, Any]) -> None:
        self.scope.journal.append(kind, self.scope.key(self.task, key), record)
        self.scope.account.spend(kind, from_plain(Usage, record["usage"]))


def _drawn(node: Node) -> int:
    """Candidates that were drawn or given, which is what numbers the next one; recycled ones have
    no number."""
    return sum(not child.recycled for child in node.children)


def _digest(text: str) -> str:
    return f"{derive_seed(text):016x}"[:10]


async def together(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run together, let every one come to its end (its work is journalled), then raise the first
    error if any."""
    results = await asyncio.gather(*coroutines, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results  # type: ignore[return-value]


def _bare(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in ("kind", "key")}
