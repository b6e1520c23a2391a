"""What the credits that give advantages share: from one value for each action of a rollout to the
rows of a policy gradient. Knows no formula of an advantage."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean, stdev

from rro.exploration.tree import Node, Tree
from rro.exploration.visits import PlayedRollout
from rro.learning.credit.base import CreditContext
from rro.types import WeightedEpisode

EPSILON = 1e-6
"""Added to a standard deviation before it divides, as in verl-agent."""


def episode_row(
    tree: Tree, played: PlayedRollout, values: Sequence[float], context: CreditContext
) -> WeightedEpisode:
    """A rollout with the advantage of each of its own actions in turn."""
    sampled = [step.logprobs for step in played.steps]
    messages = played.messages()
    known = iter(sampled)
    weights = played.own_messages(values)
    logprobs = tuple(None if weight is None else next(known) for weight in weights)
    return WeightedEpisode(
        task=tree.task.id,
        messages=messages,
        advantages=weights,
        reward=played.outcome,
        success=played.outcome >= context.success_reward,
        logprobs=logprobs if any(sampled) else None,
    )


def action_row(tree: Tree, node: Node, advantage: float, reward: float) -> WeightedEpisode:
    """A candidate with its advantage; the messages before it carry none. It counts as no success,
    as it is no whole episode."""
    assert node.parent is not None
    history = node.parent.history()
    before = (None,) * len(history)
    return WeightedEpisode(
        task=tree.task.id,
        messages=(*history, node.action),
        advantages=(*before, advantage),
        reward=reward,
        success=False,
        logprobs=None if node.logprobs is None else (*before, node.logprobs),
    )


def normalised(values: Sequence[float], *, by_deviation: bool) -> list[float]:
    """The values minus their mean, and over their standard deviation (that of a sample, plus
    `EPSILON`) with `by_deviation`. All 0 where the values are equal."""
    mean = fmean(values)
    if len(values) < 2 or min(values) == max(values):
        return [0.0] * len(values)
    scale = stdev(values) + EPSILON if by_deviation else 1.0
    return [(value - mean) / scale for value in values]


def returns(played: PlayedRollout, gamma: float, invalid_penalty: float) -> list[float]:
    """G_t of each step: the outcome and the penalties of invalid actions from there on, each
    discounted by `gamma` a step."""
    following, found = played.outcome, list[float]()
    for number, step in enumerate(reversed(played.steps)):
        following = following * (gamma if number else 1.0) - invalid_penalty * step.invalid
        found.append(following)
    return found[::-1]


def by_state(rollouts: Iterable[PlayedRollout]) -> dict[str, list[tuple[int, int]]]:
    """The visits of each state as (number of the rollout, number of its step)."""
    visits: dict[str, list[tuple[int, int]]] = {}
    for number, played in enumerate(rollouts):
        for step, state in enumerate(played.states):
            visits.setdefault(state, []).append((number, step))
    return visits
