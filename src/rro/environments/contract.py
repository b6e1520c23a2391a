"""What an environment answers, brought into the form that is recorded: once, here, so that a replay
compares what was stored with what would be stored.

Runs in the thread of the call, as the values' own code may run. Knows no episode."""

from __future__ import annotations

import math

from rro.environments.base import Environment
from rro.environments.coroutines import settled
from rro.errors import UsageError
from rro.types import Message, Step, StepResult, Task, storable

LONGEST_OBSERVATION = 200_000
"""Default of `environment.max_observation`, in characters."""


class AnswerRefused(ValueError):
    """An answer that cannot be part of an episode: the episode failed."""


def reset(
    environment: Environment, task: Task, seed: int, longest: int = LONGEST_OBSERVATION
) -> tuple[Message, ...]:
    """Reset to a task; returns the opening. Raises UsageError if it does not fit the contract,
    AnswerRefused if a message has more than `longest` characters."""
    opening = tuple(settled(environment.reset(task, seed)) or ())
    if (
        not opening
        or not all(isinstance(message, Message) for message in opening)
        or opening[-1].role != "user"
    ):
        raise UsageError(
            f"{type(environment.unwrapped).__name__}.reset must return Messages that end with the "
            "user's"
        )
    return tuple(
        Message(message.role, _bounded(message.content, longest), message.source, message.token_ids)
        for message in opening
    )


def step(environment: Environment, action: Message, longest: int = LONGEST_OBSERVATION) -> Step:
    """Carry out one action; returns it with its answer. Raises UsageError if the answer does not
    fit the contract, AnswerRefused if the observation has more than `longest` characters or the
    reward is not finite: it would spoil every mean."""
    result = settled(environment.step(action))
    if not isinstance(result, StepResult) or not isinstance(result.observation, str):
        raise UsageError(
            f"{type(environment.unwrapped).__name__}.step must return a StepResult whose "
            "observation is a str"
        )
    observation, reward = _bounded(result.observation, longest), finite(result.reward)
    return Step(action, observation, reward, bool(result.done), bool(result.invalid))


def finite(reward: float) -> float:
    """A reward as a plain float: a NumPy scalar cannot be journalled."""
    value = float(reward)
    if not math.isfinite(value):
        raise AnswerRefused(f"the environment gave the reward {value}")
    return value


def _bounded(text: str, longest: int) -> str:
    """A plain str without lone surrogates."""
    if len(text) > longest:
        raise AnswerRefused(
            f"an observation of {len(text):,} characters is longer than "
            f"environment.max_observation, {longest:,}"
        )
    return storable(str.__str__(text))
