"""What a credit is: a pure function of a finished tree, which gives the rows that a learner
takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from rro.errors import RroError
from rro.exploration.tree import Tree
from rro.types import Trajectory

Rows = Literal["pairs", "conversations"]


@dataclass(frozen=True)
class CreditContext:
    """What a credit is told of the run: the strategy that grew the trees and the round it did so in
    (for the rows' columns), expert episodes by task id, the reward that counts as success, and the
    range of outcome rewards."""

    strategy: str = ""
    iteration: int = 0
    experts: Mapping[str, Trajectory] = field(default_factory=dict)
    success_reward: float = 1.0
    reward_range: tuple[float, float] = (0.0, 1.0)

    def expert(self, task: str) -> Trajectory:
        """The expert's episode of a task. Raises RroError where there is none."""
        if task not in self.experts:
            raise RroError(
                f"task {task} has no expert episode: explore only tasks that experts.file has"
            )
        return self.experts[task]


class Credit(ABC):
    """`gives` says what its rows are: preference pairs (`PreferencePair`) or conversations (tuples
    of `Message`). `needs` names what it reads of the context besides the tree ("experts")."""

    gives: ClassVar[Rows] = "pairs"
    needs: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def rows(self, tree: Tree) -> Sequence[Any]:
        """The rows of one task's tree, in a fixed order; none where it teaches nothing."""
