"""Labels of steps, to train a process reward model on what an exploration paid for: each action
with the outcomes that were seen after it (Math-Shepherd, arXiv 2312.08935, section 3.3; RRO, arXiv
2505.20737, section 3; IPR, arXiv 2406.11176)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import Annotated, Literal

from pydantic import Field

from rro.exploration.tree import Node, Tree, gap
from rro.exploration.visits import PlayedRollout, played_rollouts
from rro.learning.credit.advantages import by_state
from rro.learning.credit.base import Credit, CreditContext
from rro.types import Message, ProcessReward, StepLabel


@dataclass(frozen=True)
class StepLabels(Credit):
    """Each candidate with the process reward that the strategy estimated, and each step of a
    rollout with the outcomes of all rollouts through the state that it led to; each text once."""

    label: Literal["rising", "success"] = "rising"
    """rising: whether r(h_t, a_t) > r(h_{t-1}, a_{t-1}) (RRO); an action whose step before was not
    estimated, or by the same outcomes alone, has no row. success: whether any outcome reached the
    success reward (Math-Shepherd's hard estimation). Its soft estimation, IPR's step reward, is the
    `reward` of each row."""
    rollouts: bool = True
    """Whether steps inside rollouts have rows, too, or only the candidates."""
    min_outcomes: Annotated[int, Field(ge=1)] = 1
    """Outcomes that an estimate needs at least. An exact one, of an action that ended the episode,
    always has a row."""
    context: CreditContext = CreditContext()

    gives = "labels"

    def rows(self, tree: Tree) -> list[StepLabel]:
        rows: dict[tuple[str, ...], StepLabel] = {}
        steps = _of_candidates(tree)
        for step in (*steps, *(_of_rollouts(tree) if self.rollouts else ())):
            known = step.reward.exact or step.reward.n >= self.min_outcomes
            if known and (label := self._label(step)) is not None:
                text = tuple(message.text for message in (*step.history, step.action))
                rows.setdefault(text, self._row(tree, step, label))
        return list(rows.values())

    def _label(self, step: _Step) -> bool | None:
        if self.label == "success":
            return max(step.reward.outcomes) >= self.context.success_reward
        if step.before is None or step.before_is_same:
            return None
        return gap(step.reward, step.before) > 0

    def _row(self, tree: Tree, step: _Step, label: bool) -> StepLabel:
        return StepLabel(
            prompt=step.history,
            action=step.action,
            task=tree.task.id,
            step=step.number,
            reward=step.reward,
            before=step.before,
            label=label,
            strategy=self.context.strategy,
            iteration=self.context.iteration,
            node=step.node.id,
            in_rollout=step.in_rollout,
            committed=step.node.committed and not step.in_rollout,
            interval=interval(step.reward, self.context.reward_range),
        )


def interval(reward: ProcessReward, bounds: tuple[float, float]) -> tuple[float, float]:
    """Wilson's 95 % score interval for a mean of outcomes within `bounds` (JASA 22, 1927); a point
    where the reward is exact.

    Right for outcomes at the two bounds, too wide for those between, whose variance is smaller. It
    is never a point, however alike the outcomes are, and holds for a single one too."""
    if reward.exact:
        return reward.mean, reward.mean
    lowest, width = bounds[0], bounds[1] - bounds[0]
    share, n, z = (reward.mean - lowest) / width, reward.n, NormalDist().inv_cdf(0.975)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(max(0.0, share * (1 - share)) / n + (z / (2 * n)) ** 2)
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    # the mean is within it but for rounding
    return min(reward.mean, lowest + low * width), max(reward.mean, lowest + high * width)


@dataclass(frozen=True)
class _Step:
    """An action with its process reward and that of the step before. `before_is_same`: both rest on
    the same outcomes, so that they say nothing of each other."""

    history: tuple[Message, ...]
    action: Message
    number: int
    reward: ProcessReward
    before: ProcessReward | None
    node: Node
    before_is_same: bool = False
    in_rollout: bool = False


def _of_candidates(tree: Tree) -> Iterator[_Step]:
    for node in tree.root.walk():
        if node.parent is not None and node.estimate is not None:
            before = node.parent.estimate
            history = node.parent.history()
            yield _Step(history, node.action, node.depth, node.estimate, before, node)


def _of_rollouts(tree: Tree) -> Iterator[_Step]:
    played = played_rollouts(tree)
    through = {
        state: {number: played[number].outcome for number, _ in visits}
        for state, visits in by_state(played).items()
    }
    for number, each in enumerate(played):
        history = list(each.node.history())
        ends = [*(through[state] for state in each.states[1:]), {number: each.outcome}]
        for at, (step, outcomes) in enumerate(zip(each.steps, ends, strict=True)):
            before = through[each.states[at]]
            yield _Step(
                tuple(history),
                step.action,
                each.node.depth + at + 1,
                _reward(outcomes, each, exact=at + 1 == len(each.steps)),
                _reward(before, each),
                each.node,
                before.keys() == outcomes.keys(),
                in_rollout=True,
            )
            history += [step.action, *step.replies()]


def _reward(
    outcomes: Mapping[int, float], played: PlayedRollout, *, exact: bool = False
) -> ProcessReward:
    return ProcessReward(tuple(outcomes.values()), played.rollout.policy, exact)
