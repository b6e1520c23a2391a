"""What a process reward model says of actions: asked once for each, journalled and counted, as
rollouts are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rro.codec import to_plain
from rro.exploration.budget import Budget
from rro.exploration.records import put_prediction
from rro.exploration.tree import Node
from rro.runs.journal import Journal
from rro.types import Message, Usage


class Predictor(Protocol):
    """A process reward model: estimates actions in place of rollouts, or beside them where `beside`
    is true, as much as `weight` outcomes. `name` is recorded with its estimates."""

    name: str
    weight: float
    beside: bool

    async def value(self, messages: Sequence[Message]) -> tuple[float, Usage]:
        """What the last message, an action, is worth, and what it took to say so."""
        ...


async def predicted(
    predictor: Predictor, node: Node, journal: Journal, key: str, budget: Budget
) -> float:
    """What the model says of a node's action; `key` is that of its record."""
    if node.predicted is None:
        assert node.parent is not None
        record = journal.get("prediction", key)
        if record is None:
            messages = (*node.parent.history(), node.action)
            value, usage = await predictor.value(messages)
            record = {"value": value, "usage": to_plain(usage)}
            journal.append("prediction", key, record)
            budget.spend("prediction", usage)
        put_prediction(node, record)
    assert node.predicted is not None
    return node.predicted
