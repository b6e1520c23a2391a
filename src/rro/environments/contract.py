"""What an environment answers, brought into the form that is recorded: once, here, so that a replay
compares what was stored with what would be stored.

Runs in the thread of the call, as the values' own code may run. Knows no episode."""

from __future__ import annotations

import math
from dataclasses import replace

from rro.environments.base import Environment
from rro.environments.coroutines import settled
from rro.environments.info import plain_info
from rro.environments.tools import declare
from rro.errors import UsageError
from rro.jsonl import storable
from rro.types import Message, Step, StepResult, Task

LONGEST_OBSERVATION = 200_000
"""Default of `environment.max_observation`, in characters."""


class AnswerRefused(ValueError):
    """An answer that cannot be part of an episode: the episode failed."""


def reset(
    environment: Environment, task: Task, seed: int, longest: int = LONGEST_OBSERVATION
) -> tuple[Message, ...]:
    """Reset to a task; returns the opening, whose first message has the schemas of the tools that
    the environment offers. Raises UsageError if it does not fit the contract,
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
    first, *others = (
        replace(message, content=_bounded(message.content, longest)) for message in opening
    )
    return replace(first, tools=declare(environment.unwrapped.tools()) or first.tools), *others


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
    results = _results(environment, result, len(action.tool_calls), longest)
    ended, invalid = bool(result.done), bool(result.invalid)
    info = plain_info(result.info)
    return Step(action, observation, reward, ended, invalid, results=results, info=info)


def _results(
    environment: Environment, result: StepResult, calls: int, longest: int
) -> tuple[str, ...]:
    """An answer to each of several calls; an environment that gives one alone answers the first."""
    if calls < 2:
        return ()
    texts = result.results or (result.observation, *[""] * (calls - 1))
    if len(texts) != calls or not all(isinstance(text, str) for text in texts):
        raise UsageError(
            f"{type(environment.unwrapped).__name__}.step must return one result, a str, for each "
            f"of the {calls} tool calls"
        )
    return tuple(_bounded(text, longest) for text in texts)


def finite(reward: float) -> float:
    """A reward as a plain float: a NumPy scalar cannot be journalled, and a text is no number."""
    value = math.nan if isinstance(reward, str | bytes) else float(reward)
    if not math.isfinite(value):
        raise AnswerRefused(f"the environment gave the reward {str(reward)[:50]!r}")
    return value


def _bounded(text: str, longest: int) -> str:
    """A plain str without lone surrogates."""
    if len(text) > longest:
        raise AnswerRefused(
            f"an observation of {len(text):,} characters is longer than "
            f"environment.max_observation, {longest:,}"
        )
    return storable(str.__str__(text))
