"""A strategy's hands: draws candidates, rolls out forks, prices actions. The only place where cost is counted.

Every finished draw and rollout is a journal record under a key that says what it is (iteration, task, node, number), with a seed
derived from the same key. On resume the strategy simply runs again, and the sampler answers from the journal what was
done before: nothing is repeated, and the rest comes out as if nothing had happened.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from rro.codec import from_plain, to_plain
from rro.envs.base import Benchmark, Environment, Forkable, replay_checked, restore_checked
from rro.episode import Limits, act, attempt_episode, run_episode
from rro.errors import RroError
from rro.explore.tree import Node, Tree
from rro.journal import Journal
from rro.policies.base import Policy
from rro.seeds import derive_seed
from rro.types import Message, ProcessReward, SamplingParams, Step, StopReason, Task, Trajectory, Usage

T = TypeVar("T")


class Missing(RroError):
    """Something that a strategy needs could not be had after all retries; the task is left open, to be resumed."""


class ContextFull(Exception):
    """The history leaves the policy no room for another action: the trajectory ends where it stands."""


@dataclass(frozen=True)
class Scope:
    """What the samplers of one exploration share. `pricer` rolls out (the policy itself unless a frozen model prices);
    `spent` is told the cost of each new piece of work, for progress."""

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
    spent: Callable[[Usage], None] = field(default=lambda usage: None)

    def key(self, task: Task, *parts: object) -> str:
        return "/".join(str(part) for part in (self.namespace or self.iteration, task.id, *parts))


class Sampler:
    """One task's window on policy, environment and journal. Coroutines of one task may run concurrently."""

    def __init__(self, scope: Scope, task: Task) -> None:
        self.scope, self.task = scope, task
        self._environment_seed = derive_seed(scope.seed, "environment", task.id)
        environment = scope.benchmark.make()
        opening = tuple(environment.reset(task, self._environment_seed))
        root = Node("0", None, opening, snapshot=_snapshot(environment))
        environment.close()
        self.tree = Tree(task, root)

    def is_open(self, node: Node) -> bool:
        """Whether another action can follow."""
        return node.stop is None and node.depth < self.scope.limits.max_steps

    async def propose(self, node: Node) -> Node:
        """Draw one candidate a_t ~ pi(. | h_t) and carry it out in a fork. Raises ContextFull."""
        child, seed = self._child(node), self._seed("candidate", node.id, len(node.children))
        node.children.append(child)
        record = self._known("candidate", child.id)
        if record is None:
            record = await self._draw(node, child, seed)
            self._keep("candidate", child.id, record)
        return self._settle(child, record)

    async def propose_and_price(self, node: Node, candidates: int, rollouts: int) -> list[Node]:
        """Draw `candidates` at once and price each as soon as it is drawn. Raises ContextFull."""

        async def one() -> Node:
            candidate = await self.propose(node)
            await self.price(candidate, rollouts)
            return candidate

        return await _all(one() for _ in range(candidates))

    async def follow(self, node: Node, action: Message) -> Node:
        """Carry out a given action (an expert's) as a candidate."""
        child = self._child(node)
        node.children.append(child)
        record = self._known("candidate", child.id)
        if record is None:
            record = await self._carry_out(node, child, action, action.source.value, Usage())
            self._keep("candidate", child.id, record)
        return self._settle(child, record)

    async def roll_out(self, node: Node, number: int) -> Trajectory:
        """Rollout `number` from a node: its episode continued to the end in a fork. Its reward is None if it failed."""
        record = self._known("rollout", f"{node.id}/{number}")
        if record is None:
            trajectory = await attempt_episode(lambda: self._fork_and_run(node, number), self.scope.limits.retries)
            record = to_plain(replace(trajectory, opening=()))
            self._keep("rollout", f"{node.id}/{number}", record)
        trajectory = replace(from_plain(Trajectory, _bare(record)), opening=node.history())
        node.rollouts[number] = trajectory
        node.usage += trajectory.usage
        return trajectory

    async def price(self, node: Node, n: int) -> ProcessReward | None:
        """r(h_t, a_t) from `n` rollouts; the outcome itself where the action ended the episode. None: all failed."""
        if node.stop is not None:
            if node.reward is not None:
                node.price = ProcessReward((node.reward,), node.policy, exact=True)
            return node.price
        await _all(self.roll_out(node, number) for number in range(n) if number not in node.rollouts)
        rewards = tuple(r for r in (node.rollouts[number].reward for number in range(n)) if r is not None)
        node.price = ProcessReward(rewards, self.scope.pricer.name) if rewards else None
        return node.price

    def commit(self, node: Node, *, rose: bool) -> None:
        """Extend the chosen trajectory by this candidate."""
        node.committed, node.rose = True, rose

    # -- below: forks, failures and the journal; strategies never see them

    def _child(self, node: Node) -> Node:
        if not self.is_open(node):
            raise ValueError(f"node {node.id} of task {self.task.id} has ended; it takes no further action")
        return Node(f"{node.id}.{len(node.children)}", node)

    async def _draw(self, node: Node, child: Node, seed: int) -> dict[str, Any]:
        async def once() -> dict[str, Any]:
            completion = (await self.scope.policy.sample(node.history(), 1, self.scope.proposal_params, seed))[0]
            if completion.finish == "context":
                return {"step": None, "policy": completion.policy, "usage": to_plain(completion.usage)}
            record = await self._carry_out(node, child, completion.message, completion.policy, completion.usage)
            return {**record, "logprobs": completion.logprobs}

        return await self._retried(once, f"candidate {child.id}")

    async def _carry_out(self, node: Node, child: Node, action: Message, policy: str, usage: Usage) -> dict[str, Any]:
        begun = time.perf_counter()
        environment = await self._fork(node)
        try:
            result = await act(environment, action, self.scope.limits.step_timeout)
            ended = result.done or node.depth + 1 >= self.scope.limits.max_steps
            reward = result.reward if result.done else environment.truncated_reward() if ended else None
            child.snapshot = None if ended else _snapshot(environment)
        finally:
            environment.close()
        stop = StopReason.TERMINAL if result.done else StopReason.STEP_LIMIT if ended else None
        usage += Usage(environment_steps=1, seconds=time.perf_counter() - begun)
        step = Step(action, result.observation, result.reward, result.done, result.invalid)
        return {
            "step": to_plain(step),
            "policy": policy,
            "reward": reward,
            "stop": stop,
            "usage": to_plain(usage),
        }

    async def _fork_and_run(self, node: Node, number: int) -> Trajectory:
        environment = await self._fork(node)
        try:
            return await run_episode(
                environment,
                self.scope.pricer,
                node.history(),
                task=self.task.id,
                params=self.scope.params,
                limits=self.scope.limits,
                seed=self._seed("rollout", node.id, number),
                taken=node.depth,
            )
        finally:
            environment.close()

    async def _fork(self, node: Node) -> Environment:
        """A fresh environment that stands where `node` does, checked."""
        environment = self.scope.benchmark.make()
        if isinstance(environment, Forkable):
            await self._ensure_snapshot(node)
            restore_checked(environment, node.snapshot)
        else:
            await self._replay(environment, node)
        return environment

    async def _ensure_snapshot(self, node: Node) -> None:
        """Nodes keep no snapshot until they are forked: on resume, and where none is ever needed, none is made."""
        if node.snapshot is None:
            environment = self.scope.benchmark.make()
            await self._replay(environment, node)
            node.snapshot = _snapshot(environment)
            environment.close()

    async def _replay(self, environment: Environment, node: Node) -> None:
        steps = [step for step in (ancestor.step for ancestor in node.path()) if step is not None]
        replay = (environment, self.task, self._environment_seed, self.tree.root.opening, steps)
        if environment.blocking:
            timeout = self.scope.limits.step_timeout * (1 + len(steps))
            await asyncio.wait_for(asyncio.to_thread(replay_checked, *replay), timeout)
        else:
            replay_checked(*replay)

    async def _retried(self, once: Callable[[], Any], what: str) -> dict[str, Any]:
        for attempt in range(1 + self.scope.limits.retries):
            try:
                return await once()  # type: ignore[no-any-return]
            except RroError:
                raise
            except Exception as error:
                if attempt == self.scope.limits.retries:
                    raise Missing(f"task {self.task.id}, {what}: {type(error).__name__}: {error}") from error
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
        self.scope.spent(from_plain(Usage, record["usage"]))


async def _all(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run together, let every one come to its end (its work is journalled), then raise the first error if any."""
    results = await asyncio.gather(*coroutines, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results  # type: ignore[return-value]


def _snapshot(environment: Environment) -> Any:
    return environment.snapshot() if isinstance(environment, Forkable) else None


def _bare(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in ("kind", "key")}
