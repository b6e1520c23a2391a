"""The policy's own successes as demonstrations to fine-tune on (RFT, arXiv 2308.01825)."""

from __future__ import annotations

from dataclasses import dataclass

from rro.exploration.tree import Tree
from rro.learning.credit.base import Credit, CreditContext
from rro.types import Message


@dataclass(frozen=True)
class Demonstrations(Credit):
    """The whole episodes of a task that reached the success reward, each text once."""

    context: CreditContext = CreditContext()

    gives = "conversations"

    def rows(self, tree: Tree) -> list[tuple[Message, ...]]:
        distinct: dict[tuple[str, ...], tuple[Message, ...]] = {}
        for _, episode in sorted(tree.episodes.items()):
            if episode.reward is not None and episode.reward >= self.context.success_reward:
                messages = episode.messages()
                distinct.setdefault(tuple(message.text for message in messages), messages)
        return list(distinct.values())
