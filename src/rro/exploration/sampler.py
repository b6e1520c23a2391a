"""What a strategy calls to draw candidates, roll out and estimate. The only place where cost is
counted.

Every finished candidate and rollout is a journal record under a key that says what it is
(iteration, task, node, number), with a seed derived from the same key. On resume the strategy
simply runs again, and the sampler answers from the journal what was done before: nothing is
repeated, and the rest comes out as in an undisturbed run."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from rro.codec import first_problem
from rro.concurrency import contained, gather_all
from rro.environments.base import Benchmark, Forkable
from rro.episodes.loop import (
    Limits,
    attempt_episode,
    failed_episode,
    run_episode,
    step_checked,
    truncated_reward,
)
from rro.errors import DataError, RroError, describe, kind_of
from rro.exploration.budget import Budget, BudgetSpent
from rro.exploration.forks import Forks, Watched, state_name
from rro.exploration.predictions import Predictor, predicted
from rro.exploration.records import CandidateRecord, read_candidate, read_rollout, work_record
from rro.exploration.tree import Node, RolloutSuffix, Tree, do_the_same
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
Work = TypeVar("Work", CandidateRecord, Trajectory)


class TaskFailed(RroError):
    """Something that a strategy needs is unavailable after all retries: the task is dropped. The
    sentence does not name the task: whoever drops it does. `kind` is the class of what was raised
    last; empty where its rollouts failed."""

    def __init__(self, sentence: str, kind: str = "") -> None:
        super().__init__(sentence)
        self.kind = kind


class ContextFull(Exception):
    """The history leaves the policy no room for another action: the trajectory ends there."""


@dataclass(frozen=True)
class ExplorationContext:
    """What the samplers of one exploration share. `policy` draws candidates with `proposal_params`;
    `rollout_policy` (the policy itself, unless a frozen model makes the estimates) rolls out with
    `params`. Each new piece of work is reserved in `budget`, and its cost entered there. The
    journal's keys and the seeds begin with `namespace`, or with the iteration if it is empty.
    `predictor` estimates actions; the start, before any action, is always rolled out."""

    benchmark: Benchmark
    policy: Policy
    rollout_policy: Policy
    journal: Journal
    params: SamplingParams
    proposal_params: SamplingParams
    limits: Limits
    seed: int
    iteration: int = 0
    namespace: str = ""
    budget: Budget = field(default_factory=Budget)
    predictor: Predictor | None = None

    def key(self, task: Task, *parts: object) -> str:
        """The journal's key of a task, or of a part of its exploration."""
        return "/".join(str(part) for part in (self.namespace or self.iteration, task.id, *parts))


class Sampler:
    """One task's access to policy, environment and journal. Coroutines of one task may run
    concurrently."""

    def __init__(self, context: ExplorationContext, task: Task) -> None:
        self.context, self.task = context, task
        self.tree = Tree(task, Node("0", None))
        seed = derive_seed(context.seed, "environment", task.id)
        self._forks = Forks(context.benchmark, self.tree, seed, context.limits)

    async def start(self) -> None:
        """Reset the task, once: the root gets its opening. Raises TaskFailed."""
        await self._retried(self._forks.start, "start")

    def is_open(self, node: Node) -> bool:
        """Whether another action can follow."""
        return node.stop is None and node.depth < self.context.limits.max_steps

    # -- draw

    async def propose(self, node: Node) -> Node:
        """Draw a candidate a_t ~ pi(. | h_t) and carry it out. Raises ContextFull, BudgetSpent,
        TaskFailed."""
        child, seed = self._new_child(node), self._seed("candidate", node.id, _drawn(node))
        node.children.append(child)
        try:
            return await self._candidate(child, partial(self._draw, node, child, seed))
        except BudgetSpent:
            node.children.remove(child)
            raise

    async def propose_and_estimate(self, node: Node, candidates: int, rollouts: int) -> list[Node]:
        """Draw several at once, then estimate them. Raises ContextFull."""
        drawn = await gather_all(self.propose(node) for _ in range(candidates))
        await gather_all(
            self.estimate(child, rollouts) for child in drawn if self._first_alike(child) is child
        )
        for child in drawn:
            await self.estimate(child, rollouts)
        return drawn

    async def follow(self, node: Node, action: Message) -> Node:
        """Carry out a given action (an expert's) as a candidate."""
        child = self._new_child(node)
        node.children.append(child)
        carry_out = partial(self._carry_out, node, child, action, action.source.value, Usage())
        retried = partial(self._retried, carry_out, f"candidate {child.id}")
        return await self._candidate(child, retried)

    def recycle(self, node: Node) -> list[Node]:
        """The first actions of all rollouts through a node as candidates, each text once; the rest
        of each rollout is a rollout of its candidate. Costs nothing. A second call adds what has
        come since."""
        return self.tree.recycle(node)

    async def outcome_of(self, node: Node) -> Hashable:
        """What an action did: equal for candidates of one node that the environment cannot tell
        apart from here on. Observation, reward and state; without snapshots, what the benchmark
        says that a message does in place of the state."""
        assert node.step is not None
        seen = (node.step.observation, node.step.reward, node.stop, node.reward)
        if node.stop is not None:
            return seen
        if self.tree.root.snapshot is None:
            return (*seen, self.context.benchmark.action_of(node.action))
        ensure = partial(self._forks.ensure_snapshot, node)
        await self._retried(ensure, f"the state of {node.id}")
        return (*seen, node.snapshot)

    # -- roll out

    async def roll_out(self, node: Node, number: int, *, keep_states: bool = False) -> Trajectory:
        """Rollout `number` from a node: its episode continued to the end in a fork, by the model
        that makes the estimates. Its reward is None if it failed. With `keep_states`, nodes that
        are recycled from it need no replay where the environment has snapshots."""
        if number not in node.rollouts:
            policy, params = self.context.rollout_policy, self.context.params
            states: list[Any] | None = [] if keep_states else None
            rollout = await self._episode("rollout", node, number, policy, params, states)
            node.rollouts[number] = rollout
            node.states[number] = tuple(states or ())
        return node.rollouts[number]

    async def play(self, number: int, node: Node | None = None) -> Trajectory:
        """Episode `number` of the policy itself, from a node (default: the start) to the end, drawn
        as candidates are. Its reward is None if it failed."""
        node = node or self.tree.root
        if number not in node.episodes:
            policy, params = self.context.policy, self.context.proposal_params
            node.episodes[number] = await self._episode("episode", node, number, policy, params)
        return node.episodes[number]

    # -- score

    async def estimate(self, node: Node, n: int) -> ProcessReward | None:
        """r(h_t, a_t) from `n` rollouts, or from those of an earlier sibling that does the same;
        the outcome itself where the action ended the episode. None: all failed. With a predictor
        from that alone, or from both."""
        rewards: list[float] = []
        predictor = self.context.predictor if node.parent is not None else None
        if node.stop is None:
            first = self._first_alike(node)
            if predictor is not None and not predictor.beside:
                node.estimate = ProcessReward((await self._predicted(first),), predictor.name)
                return node.estimate
            await gather_all(
                self.roll_out(first, number) for number in range(n) if number not in first.rollouts
            )
            outcomes = (first.rollouts[number].reward for number in range(n))
            rewards = [reward for reward in outcomes if reward is not None]
        node.estimate = node.estimated(rewards, self.context.rollout_policy.name)
        if predictor is not None and node.estimate is not None and not node.estimate.exact:
            said = await self._predicted(self._first_alike(node))
            node.estimate = replace(node.estimate, predicted=said, weight=predictor.weight)
        return node.estimate

    async def _predicted(self, node: Node) -> float:
        context, key = self.context, self.context.key(self.task, node.id)
        assert context.predictor is not None
        return await predicted(context.predictor, node, context.journal, key, context.budget)

    def _first_alike(self, node: Node) -> Node:
        """The first drawn sibling that does the same, or the node itself."""
        siblings = node.parent.children if node.parent is not None else [node]
        return next(
            (child for child in siblings if not child.recycled and do_the_same(child, node)), node
        )

    def estimate_from(self, node: Node, suffixes: Sequence[RolloutSuffix]) -> None:
        """r(h_t, a_t) from all rollouts seen to follow it, here or after an action that does the
        same. Without any, the node keeps the estimate that it has."""
        if suffixes or node.stop is not None:
            rewards = [suffix.reward for suffix in suffixes]
            node.estimate = node.estimated(rewards, self.context.rollout_policy.name)

    def commit(self, node: Node, *, rose: bool) -> None:
        """Extend the chosen trajectory by this candidate."""
        node.committed, node.rose = True, rose

    # -- the work itself; strategies do not see it

    async def _candidate(self, child: Node, make: Callable[[], Awaitable[CandidateRecord]]) -> Node:
        """Fill the child in from the journal, or else with what `make` gives."""
        candidate = await self._once("candidate", child.id, make, read_candidate)
        if candidate.step is None:
            assert child.parent is not None
            child.parent.cost += candidate.usage
            child.parent.children.remove(child)
            self.tree.overflowed.append(child.id)
            raise ContextFull
        candidate.put_on(child)
        return child

    def _new_child(self, node: Node) -> Node:
        self._check_open(node)
        return Node(f"{node.id}.{_drawn(node)}", node)

    def _check_open(self, node: Node) -> None:
        if not self.is_open(node):
            raise ValueError(
                f"node {node.id} of task {self.task.id} has ended; it takes no further action"
            )

    async def _draw(self, node: Node, child: Node, seed: int) -> CandidateRecord:
        what, context = f"candidate {child.id}", self.context
        with context.budget.reserve("candidate"):
            sample = partial(
                context.policy.sample, node.history(), 1, context.proposal_params, seed
            )
            completion = (await self._retried(sample, what))[0]
            if completion.finish == "context":
                return CandidateRecord(None, completion.policy, completion.usage)
            drawn = completion.message, completion.policy, completion.usage
            carry_out = partial(self._carry_out, node, child, *drawn)
            return replace(await self._retried(carry_out, what), logprobs=completion.logprobs)

    async def _carry_out(
        self, node: Node, child: Node, action: Message, policy: str, usage: Usage
    ) -> CandidateRecord:
        started, reward, timeout = time.perf_counter(), None, self.context.limits.step_timeout
        async with self._forks.at(node) as (environment, replayed):
            longest = self.context.limits.max_observation
            step = await step_checked(environment, action, timeout, longest)
            ended = step.done or node.depth + 1 >= self.context.limits.max_steps
            if step.done:
                reward = step.reward
            elif ended:
                reward = await truncated_reward(environment, timeout)
            else:
                child.snapshot = await self._forks.snapshot(environment)
                step = replace(step, state=state_name(child.snapshot))
        stop = StopReason.TERMINAL if step.done else StopReason.STEP_LIMIT if ended else None
        usage += Usage(environment_steps=1 + replayed, seconds=time.perf_counter() - started)
        return CandidateRecord(step, policy, usage, reward, stop)

    async def _episode(
        self,
        kind: str,
        node: Node,
        number: int,
        policy: Policy,
        params: SamplingParams,
        states: list[Any] | None = None,
    ) -> Trajectory:
        self._check_open(node)
        seed, history = self._seed(kind, node.id, number), node.history()

        async def make() -> Trajectory:
            attempt = partial(self._continue, node, history, policy, params, seed, states)
            with self.context.budget.reserve(kind):
                return await attempt_episode(attempt, self.context.limits.retries)

        read = partial(read_rollout, opening=history)
        return await self._once(kind, f"{node.id}/{number}", make, read)

    async def _continue(
        self,
        node: Node,
        history: tuple[Message, ...],
        policy: Policy,
        params: SamplingParams,
        seed: int,
        states: list[Any] | None,
    ) -> Trajectory:
        """The episode from a node to its end, in a fork; FAILED where the fork failed, too."""
        task = self.task.id
        try:
            async with self._forks.at(node) as (environment, replayed):
                if states is not None and isinstance(environment, Forkable):
                    states.clear()  # what a failed attempt left
                    environment = Watched(environment, states)
                trajectory = await run_episode(
                    environment,
                    policy,
                    history,
                    task=task,
                    params=params,
                    limits=self.context.limits,
                    seed=seed,
                    taken=node.depth,
                )
            if states:
                trajectory = replace(trajectory, steps=_with_states(trajectory.steps, states))
        except RroError:
            raise
        except Exception as error:
            return failed_episode(error, task, history, policy.name, seed)
        return replace(trajectory, usage=trajectory.usage + Usage(environment_steps=replayed))

    # -- journal, seeds and retries

    async def _once(
        self,
        kind: str,
        key: str,
        make: Callable[[], Awaitable[Work]],
        read: Callable[[Mapping[str, Any]], Work],
    ) -> Work:
        """What the journal has under this key, or else what `make` gives, journalled and counted.
        What failed is only counted: a resumed run tries again."""
        journal, name = self.context.journal, self.context.key(self.task, key)
        known = journal.get(kind, name)
        if known is not None:
            try:
                return read(known)
            except ValueError as error:
                raise DataError(
                    f"{journal.path}: the {kind} record {name!r} is damaged "
                    f"({first_problem(error)}); restore the file or start a new run"
                ) from None
        finished = await make()
        if finished.stop is not StopReason.FAILED:
            journal.append(kind, name, work_record(finished))
        self.context.budget.spend(kind, finished.usage)
        return finished

    async def _retried(self, attempt: Callable[[], Awaitable[T]], what: str) -> T:
        for number in range(1 + self.context.limits.retries):
            try:
                with contained():
                    return await attempt()
            except RroError:
                raise
            except Exception as error:
                if number == self.context.limits.retries:
                    sentence = f"{what}: {describe(error)}"
                    raise TaskFailed(sentence, kind_of(error)) from error
        raise AssertionError("unreachable")

    def _seed(self, *parts: object) -> int:
        return derive_seed(self.context.seed, self.context.key(self.task, *parts))


def _with_states(steps: Sequence[Step], states: Sequence[Any]) -> tuple[Step, ...]:
    """The steps with the names of the states after them. Where a step failed there are fewer."""
    names = [state_name(state) for state in states]
    return tuple(replace(step, state=name) for step, name in zip(steps, names, strict=False))


def _drawn(node: Node) -> int:
    """Candidates that were drawn or given, which number the next one; recycled ones do not."""
    return sum(not child.recycled for child in node.children)
