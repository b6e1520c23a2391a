"""The policy's own successes on any tree as demonstrations, the shortest first: what a closing pass
of fine-tuning imitates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from rro.exploration.tree import Tree
from rro.exploration.visits import played_rollouts
from rro.learning.credit.base import Credit, CreditContext
from rro.learning.successes import Success, shortest
from rro.types import Message


@dataclass(frozen=True)
class Successes(Credit):
    """The whole episodes, rollouts from forks with their history included, that reached the success
    reward: at most so many of a task, fewest actions first, each text once."""

    per_task: Annotated[int, Field(ge=1)] = 1
    """Episodes of a task at most."""
    context: CreditContext = CreditContext()

    gives = "conversations"

    def rows(self, tree: Tree) -> list[tuple[Message, ...]]:
        reached = (
            Success(tree.task.id, each.messages())
            for each in played_rollouts(tree)
            if each.outcome >= self.context.success_reward
        )
        return [success.messages for success in shortest(reached, self.per_task)]
