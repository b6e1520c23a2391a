"""The one agent loop: a policy and an environment, turn by turn, to the end of an episode.

Everything that acts goes through here: rollouts, evaluation, experts, a person at the terminal. Knows nothing of trees,
prices or journals.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from rro.envs.base import Environment
from rro.errors import RroError
from rro.policies.base import Policy
from rro.seeds import derive_seed
from rro.types import Message, SamplingParams, Step, StepResult, StopReason, Trajectory, Usage

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """`max_steps` counts from the start of the episode, also for one that was forked; `step_timeout` is in seconds and
    binds environments that block; `retries` of a failed episode before it is missing."""

    max_steps: int = 10
    step_timeout: float = 60.0
    retries: int = 2


async def act(environment: Environment, action: Message, timeout: float) -> StepResult:
    """Carry out one action; a blocking environment does so in a thread and raises TimeoutError past `timeout`."""
    if not environment.blocking:
        return environment.step(action)
    return await asyncio.wait_for(asyncio.to_thread(environment.step, action), timeout)


async def run_episode(
    environment: Environment,
    policy: Policy,
    history: Sequence[Message],
    *,
    task: str,
    params: SamplingParams,
    limits: Limits,
    seed: int,
    taken: int = 0,
    on_step: Callable[[Step], None] | None = None,
) -> Trajectory:
    """Continue an episode from `history`, of which `taken` steps are done, to its end.

    The environment stands at the end of `history`. A failure of the policy or the environment gives a trajectory whose
    reward is None and whose stop reason is FAILED; errors of the user's making (RroError) are raised."""
    begun = time.perf_counter()
    messages, steps, usage = list(history), list[Step](), Usage()

    def finished(reward: float | None, stop: StopReason, error: str | None = None) -> Trajectory:
        cost = replace(usage, seconds=time.perf_counter() - begun)
        return Trajectory(task, tuple(history), tuple(steps), reward, stop, policy.name, seed, cost, error)

    try:
        while taken + len(steps) < limits.max_steps:
            turn = derive_seed(seed, taken + len(steps))
            completion = (await policy.sample(messages, 1, params, turn))[0]
            usage += completion.usage
            if completion.finish == "context":
                return finished(environment.truncated_reward(), StopReason.CONTEXT)
            result = await act(environment, completion.message, limits.step_timeout)
            usage += Usage(environment_steps=1)
            steps.append(Step(completion.message, result.observation, result.reward, result.done, result.invalid))
            if on_step:
                on_step(steps[-1])
            if result.done:
                return finished(result.reward, StopReason.TERMINAL)
            messages += [completion.message, Message("user", result.observation)]
        return finished(environment.truncated_reward(), StopReason.STEP_LIMIT)
    except RroError:
        raise
    except Exception as error:
        log.warning("an episode of task %s failed: %s: %s", task, type(error).__name__, error)
        return finished(None, StopReason.FAILED, f"{type(error).__name__}: {error}")


async def attempt_episode(run: Callable[[], Awaitable[Trajectory]], retries: int) -> Trajectory:
    """Call `run` (each call in a fresh environment) until it does not fail, at most 1 + `retries` times.

    The seed stays the same, so a fault that passed leaves no trace in the result; the cost of failed tries is added."""
    spent = Usage()
    for _ in range(1 + retries):
        trajectory = await run()
        spent += trajectory.usage
        if trajectory.stop is not StopReason.FAILED:
            break
    return replace(trajectory, usage=spent)
