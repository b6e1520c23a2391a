"""The one agent loop: a policy and an environment, turn by turn, to the end of an episode.

Everything that acts goes through here: rollouts, evaluation, experts, a person at the terminal.
Knows nothing of trees or journals."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial

from rro.concurrency import contained
from rro.environments import contract
from rro.environments.base import Agent, Benchmark, Environment
from rro.environments.calls import call_with_timeout
from rro.environments.contract import LONGEST_OBSERVATION
from rro.environments.coroutines import settled
from rro.errors import RroError, describe
from rro.seeds import derive_seed
from rro.types import (
    Message,
    SamplingParams,
    Step,
    StopReason,
    Task,
    Trajectory,
    Usage,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """`max_steps` counts from the start of the episode, also for one that was forked; each call
    into an environment may take `step_timeout` seconds; a failed episode is repeated up to
    `retries` times. A message of the environment has at most `max_observation` characters."""

    max_steps: int = 10
    step_timeout: float = 60.0
    retries: int = 2
    max_observation: int = LONGEST_OBSERVATION


async def reset_checked(
    environment: Environment,
    task: Task,
    seed: int,
    timeout: float,
    longest: int = LONGEST_OBSERVATION,
) -> tuple[Message, ...]:
    """Reset to a task; returns the opening, as rro.environments.contract.reset checks it."""
    reset = partial(contract.reset, environment, task, seed, longest)
    return await call_with_timeout(environment, timeout, reset)


async def step_checked(
    environment: Environment, action: Message, timeout: float, longest: int = LONGEST_OBSERVATION
) -> Step:
    """Carry out one action; returns it with its answer, as rro.environments.contract.step checks
    it."""
    step = partial(contract.step, environment, action, longest)
    return await call_with_timeout(environment, timeout, step)


async def truncated_reward(environment: Environment, timeout: float) -> float:
    """The outcome of an episode that is cut off here."""

    def ask() -> float:
        return contract.finite(settled(environment.truncated_reward()))

    return await call_with_timeout(environment, timeout, ask)


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
                settled(made.pop().close())

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
                settled(environment.close())
        except BaseException as error:
            log.warning("%s did not close: %s", name, describe(error))

    try:
        await call_with_timeout(environment, timeout, close)
    except asyncio.CancelledError:
        # The call may not have started, and then never would.
        threading.Thread(target=close, daemon=True, name=name).start()
        raise
    except Exception as error:
        log.warning("%s did not close: %s", name, describe(error))


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
            with contained():
                completion = (await policy.sample(messages, 1, params, turn))[0]
            usage += completion.usage
            if completion.finish == "context":
                return finished(
                    await truncated_reward(environment, limits.step_timeout), StopReason.CONTEXT
                )
            step = await step_checked(
                environment, completion.message, limits.step_timeout, limits.max_observation
            )
            usage += Usage(environment_steps=1)
            if completion.logprobs is not None:
                step = replace(step, logprobs=completion.logprobs)
            steps.append(step)
            if on_step:
                on_step(step)
            if step.done:
                return finished(step.reward, StopReason.TERMINAL)
            messages += [step.action, *step.replies()]
        return finished(
            await truncated_reward(environment, limits.step_timeout), StopReason.STEP_LIMIT
        )
    except RroError:
        raise
    except Exception as error:
        log.warning("an episode of task %s failed: %s", task, describe(error))
        return finished(None, StopReason.FAILED, describe(error))


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
    """An episode of a task from its start to its end, in an environment of its own. Fails as
    `run_episode` does, also where the environment cannot be made or reset."""
    opening: tuple[Message, ...] = ()
    try:
        async with open_environment(benchmark, limits.step_timeout) as environment:
            opening = await reset_checked(
                environment, task, environment_seed, limits.step_timeout, limits.max_observation
            )
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
    except RroError:
        raise
    except Exception as error:
        return failed_episode(error, task.id, opening, policy.name, seed)


def failed_episode(
    error: Exception, task: str, opening: tuple[Message, ...], policy: str, seed: int
) -> Trajectory:
    """What is left of an episode whose environment could not be brought to its start."""
    log.warning("an episode of task %s failed: %s", task, describe(error))
    return Trajectory(
        task, opening, (), None, StopReason.FAILED, policy, seed, error=describe(error)
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
