"""The advantage of every message on a tree: what followed it against what follows its state
otherwise (docs/learning.md; the baseline leaves one out, as in RLOO, arXiv 2402.14740).

A(h, a) = r(h, a) - V(h). Unlike a group's, it uses the outcomes of all rollouts of the task, at
whichever state they began."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Annotated, Literal

from pydantic import Field

from rro.exploration.tree import Node, Tree
from rro.exploration.visits import PlayedRollout, played_rollouts, state_of
from rro.learning.credit.advantages import EPSILON, action_row, episode_row
from rro.learning.credit.base import Credit, CreditContext
from rro.types import Source, WeightedEpisode


@dataclass(frozen=True)
class TreeAdvantages(Credit):
    """r(h, a) is the mean outcome of all rollouts through the state that the action led to, or the
    outcome itself where it ended the episode. V(h) is the mean outcome through the state before it,
    without the rollout in question, shrunk toward the value one step earlier."""

    leave_one_out: bool = True
    """Whether V(h) leaves out the rollout in question. If not, and `shrink` is 0, a step between
    two states that nobody else came through has advantage 0, and those of an episode add up to its
    outcome minus the value of the start: the reward differential of RRO, along whole episodes."""
    shrink: Annotated[float, Field(ge=0)] = 1.0
    """k: the value one step earlier counts as so many outcomes."""
    scale: Literal["std", "none"] = "none"
    """Whether the standard deviation of the task's outcomes divides, as in GRPO."""
    context: CreditContext = CreditContext()

    gives = "advantages"

    def rows(self, tree: Tree) -> list[WeightedEpisode]:
        played = played_rollouts(tree)
        values = _Values(tree, played, self.shrink, self.leave_one_out)
        scale = self._scale(played)
        rows = [
            episode_row(
                tree,
                each,
                [value / scale for value in values.of_rollout(number, each)],
                self.context,
            )
            for number, each in enumerate(played)
        ]
        for node in tree.root.walk():
            if _drawn(node) and (reward := values.after(node)) is not None:
                advantage = (reward - values.before(node)) / scale
                rows.append(action_row(tree, node, advantage, reward))
        return rows

    def _scale(self, played: Sequence[PlayedRollout]) -> float:
        outcomes = {each.outcome for each in played}
        if self.scale == "none" or len(outcomes) < 2:
            return 1.0
        return stdev(each.outcome for each in played) + EPSILON


class _Values:
    """The values of a tree's states, from every sample of each: the outcomes of rollouts through
    it, by number, and the process rewards of candidates that were drawn there, by node."""

    def __init__(
        self, tree: Tree, played: Sequence[PlayedRollout], shrink: float, leave_one_out: bool
    ) -> None:
        self._root, self._shrink, self._leave_one_out = tree.root, shrink, leave_one_out
        self._samples: dict[str, dict[int | str, float]] = {}
        for number, each in enumerate(played):
            for state in each.states:
                self._samples.setdefault(state, {})[number] = each.outcome
        # Deepest first: a candidate's reward rests on those of the candidates below it.
        for node in reversed(list(tree.root.walk())):
            if _drawn(node) and node.parent is not None:
                reward = self.after(node)
                if reward is not None:
                    self._samples.setdefault(state_of(node.parent), {})[node.id] = reward

    def after(self, node: Node) -> float | None:
        """r(h, a) of a candidate; None where nothing is known."""
        if node.stop is not None:
            return node.reward
        samples = self._samples.get(state_of(node))
        return fmean(samples.values()) if samples else None

    def before(self, node: Node) -> float:
        """V(h) of the state in which a candidate was drawn, without the candidate."""
        states = [state_of(each) for each in self._above(node)]
        return list(self._along(states, node.id))[-1]

    def of_rollout(self, number: int, played: PlayedRollout) -> list[float]:
        """The advantages of a rollout's own actions."""
        above = [state_of(each) for each in self._above(played.node)]
        values = list(self._along([*above, *played.states], number))[len(above) :]
        rewards = [fmean(self._samples[state].values()) for state in played.states[1:]]
        return [
            reward - value for reward, value in zip([*rewards, played.outcome], values, strict=True)
        ]

    def _above(self, node: Node) -> list[Node]:
        """The nodes above a node, the root first."""
        return [self._root, *node.path()][:-1]

    def _along(self, states: Sequence[str], without: int | str) -> Iterator[float]:
        """V of each state along a path from the root, without one sample if that is to be left out.
        Where the root has no other sample, its own is all that is known."""
        value: float | None = None
        for state in states:
            samples = self._samples.get(state, {})
            left_out = without if self._leave_one_out else None
            others = [sample for key, sample in samples.items() if key != left_out]
            if value is None:
                value = fmean(others or samples.values() or [0.0])
            elif self._shrink + len(others) > 0:
                total = self._shrink * value + sum(others)
                value = total / (self._shrink + len(others))
            yield value


def _drawn(node: Node) -> bool:
    """Whether a node is a candidate that the policy drew."""
    return node.step is not None and not node.recycled and node.action.source is Source.POLICY
