"""The one agent loop: a policy and an environment, turn by turn, to the end of an episode.

Everything that acts goes through here: rollouts, evaluation, experts, a person at the terminal.
Knows nothing of trees or journals."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

from rro.environments.base import Agent, Benchmark, Environment
from rro.environments.calls import call_with_timeout
from rro.errors import RroError, UsageError
from rro.seeds import derive_seed
from rro.types import (
    Message,
    SamplingParams,
    Step,
    StepResult,
    StopReason,
    Task,
    Trajectory,
    Usage,
    storable,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """`max_steps` counts from the start of the episode, also for one that was forked; each call
    into an environment may take `step_timeout` seconds; a failed episode is repeated up to
    `retries` times."""

    max_steps: int = 10
    step_timeout: float = 60.0
    retries: int = 2


async def reset_checked(
    environment: Environment, task: Task, seed: int, timeout: float
) -> tuple[Message, ...]:
    """Reset to a task; returns the opening. Raises UsageError if it does not fit the contract."""
    opening = tuple(
        await call_with_timeout(environment, timeout, lambda: environment.reset(task, seed)) or ()
    )
    if (
        not opening
        or not all(isinstance(message, Message) for message in opening)
        or opening[-1].role != "user"
    ):
        raise UsageError(
            f"{type(environment).__name__}.reset must return Messages that end with the user's"
        )
    return opening


async def step_checked(environment: Environment, action: Message, timeout: float) -> Step:
    """Carry out one action; returns it with its answer. Raises UsageError if the answer does not
    fit the contract, ValueError if the reward is not finite: it would spoil every mean."""
    result = await call_with_timeout(environment, timeout, lambda: environment.step(action))
    if not isinstance(result, StepResult) or not isinstance(result.observation, str):
        raise UsageError(
            f"{type(environment).__name__}.step must return a StepResult whose observation is a str"
        )
    observation, reward = storable(result.observation), _finite(result.reward)
    return Step(action, observation, reward, bool(result.done), bool(result.invalid))


async def truncated_reward(environment: Environment, timeout: float) -> float:
    """The outcome of an episode that is cut off here."""
    return _finite(await call_with_timeout(environment, timeout, environment.truncated_reward))


@asynccontextmanager
async def open_environment(benchmark: Benchmark, timeout: float) -> AsyncIterator[Environment]:
    """A new environment, closed at the end. A failure to close costs no episode: it is logged."""
    environment = await _made(benchmark, timeout)
    try:
        yield environment
    finally:
        await _close(environment, timeout)


async def _made(benchmark: Benchmark, timeout: float) -> Environment:
    """A new environment. If it is made too late for the caller, it is closed at once."""
    made, left = deque[Environment](), False

    def make() -> None:
        made.append(benchmark.make())
        if left:
            with suppress(IndexError):
                made.pop().close()

    try:
        await call_with_timeout(benchmark, timeout, make)
    except BaseException:  # out of time, or cancelled
        left = True
        with suppress(IndexError):
            await _close(made.pop(), timeout)
        raise
    return made.pop()


async def _close(environment: Environment, timeout: float) -> None:
    """Close it once, even if the wait for that is cancelled. A failure is logged."""
    if type(environment).close is Environment.close:
        return
    once, name = threading.Lock(), type(environment).__name__

    def close() -> None:
        try:
            if once.acquire(blocking=False):
                environment.close()
        except Exception as error:
            log.warning("%s did not close: %s: %s", name, type(error).__name__, error)

    try:
        await call_with_timeout(environment, timeout, close)
    except asyncio.CancelledError:
        # The call may not have started, and then never would.
        threading.Thread(target=close, daemon=True, name=name).start()
        raise
    except Exception as error:
        log.warning("%s did not close: %s: %s", name, type(error).__name__, error)


def _finite(reward: float) -> float:
    # A numpy scalar cannot be journalled.
    value = float(reward)
    if not math.isfinite(value):
        raise ValueError(f"the environment gave the reward {value}")
    return value


async def run_episode(
    environment: Environment,
    policy: Agent,
    history: Sequence[Message],
    *,
    task: str,
    params: SamplingParams,
    limits: Limits,
    seed: int,
    taken: int = 0,
    on_step: Callable[[Step], None] | None = None,
) -> Trajectory:
    """Continue an episode from `history`, in which `taken` steps were done, to its end; the
    environment is in the state after it. A failure of the policy or the environment gives a
    trajectory with the reward None and the stop reason FAILED; RroError is raised."""
    started = time.perf_counter()
    messages, steps, usage = list(history), list[Step](), Usage()

    def finished(reward: float | None, stop: StopReason, error: str | None = None) -> Trajectory:
        cost = replace(usage, seconds=time.perf_counter() - started)
        return Trajectory(
            task, tuple(history), tuple(steps), reward, stop, policy.name, seed, cost, error
        )

    try:
        while taken + len(steps) < limits.max_steps:
            turn = derive_seed(seed, taken + len(steps))
            completion = (await policy.sample(messages, 1, params, turn))[0]
            usage += completion.usage
            if completion.finish == "context":
                return finished(
                    await truncated_reward(environment, limits.step_timeout), StopReason.CONTEXT
                )
            step = await step_checked(environment, completion.message, limits.step_timeout)
            usage += Usage(environment_steps=1)
            if completion.logprobs is not None:
                step = replace(step, logprobs=completion.logprobs)
            steps.append(step)
            if on_step:
                on_step(step)
            if step.done:
                return finished(step.reward, StopReason.TERMINAL)
            messages += [step.action, Message("user", step.observation)]
        return finished(
            await truncated_reward(environment, limits.step_timeout), StopReason.STEP_LIMIT
        )
    except RroError:
        raise
    except Exception as error:
        log.warning("an episode of task %s failed: %s: %s", task, type(error).__name__, error)
        return finished(None, StopReason.FAILED, f"{type(error).__name__}: {error}")


async def play_task(
    benchmark: Benchmark,
    policy: Agent,
    task: Task,
    *,
    params: SamplingParams,
    limits: Limits,
    seed: int,
    environment_seed: int,
    on_step: Callable[[Step], None] | None = None,
) -> Trajectory:
    """An episode of a task from its start to its end, in an environment of its own."""
    async with open_environment(benchmark, limits.step_timeout) as environment:
        opening = await reset_checked(environment, task, environment_seed, limits.step_timeout)
        return await run_episode(
            environment,
            policy,
            opening,
            task=task.id,
            params=params,
            limits=limits,
            seed=seed,
            on_step=on_step,
        )


async def attempt_episode(run: Callable[[], Awaitable[Trajectory]], retries: int) -> Trajectory:
    """Call `run` (each call in a fresh environment) until it does not fail, at most 1 + `retries`
    times. The seed stays the same; the cost of failed attempts is added."""
    spent = Usage()
    for _ in range(1 + retries):
        trajectory = await run()
        spent += trajectory.usage
        if trajectory.stop is not StopReason.FAILED:
            break
    return replace(trajectory, usage=spent)
