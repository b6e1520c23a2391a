"""What a credit is: a pure function of a finished tree, which gives the rows that a learner
takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from rro.exploration.strategies.base import StrategyContext
from rro.exploration.tree import Tree

Rows = Literal["pairs", "conversations", "advantages", "labels"]


@dataclass(frozen=True)
class CreditContext(StrategyContext):
    """What a credit is told of the run: besides what the strategy was told, its name and the round
    in which it grew the trees, for the rows' columns."""

    strategy: str = ""
    iteration: int = 0


class Credit(ABC):
    """`gives` says what its rows are: preference pairs (`PreferencePair`), conversations (tuples of
    `Message`), episodes with advantages (`WeightedEpisode`) or labelled steps (`StepLabel`).
    `needs` names what it reads besides the tree's nodes and rollouts: "experts" of the context,
    whole "episodes" of the policy."""

    gives: ClassVar[Rows] = "pairs"
    needs: ClassVar[frozenset[str]] = frozenset()

    def fitted(self, trees: Iterable[Tree]) -> Credit:
        """The credit with what it learns from all trees of a round, in the order of their tasks;
        itself where each tree stands alone."""
        return self

    @abstractmethod
    def rows(self, tree: Tree) -> Sequence[Any]:
        """The rows of one task's tree, in a fixed order; none where it teaches nothing."""
