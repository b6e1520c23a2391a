"""What a strategy is: a coroutine that asks a sampler and commits, and a rule that folds its tree
into pairs."""

from __future__ import annotations

from typing import Protocol

from rro.exploration.sampler import Sampler
from rro.exploration.tree import Tree
from rro.types import Message, PreferencePair


class Strategy(Protocol):
    """Does no I/O, no counting and no batching of its own; never told whether an answer is new or
    from the journal, so it must be a function of what the sampler answers."""

    @property
    def name(self) -> str:
        """What rows and journal records say of it."""
        ...

    async def explore(self, sampler: Sampler) -> None:
        """Grow and commit `sampler.tree`. May raise ContextFull (the trajectory ends there) or
        TaskFailed."""
        ...

    def pairs(self, tree: Tree, iteration: int) -> list[PreferencePair]:
        """The preference pairs of a finished tree."""
        ...

    def demonstrations(self, tree: Tree) -> list[tuple[Message, ...]]:
        """Conversations of the policy's own to fine-tune on (RFT); most strategies have none."""
        ...


class NoDemonstrations:
    """For strategies that learn from pairs alone."""

    def demonstrations(self, tree: Tree) -> list[tuple[Message, ...]]:
        return []
