"""Trees that are written down, to compare what credits make of them with values worked out by
hand."""

from __future__ import annotations

from rro.exploration.tree import Node, Tree
from rro.types import Message, Source, Step, StopReason, Task, Trajectory

OPENING = (Message("system", "Walk."), Message("user", "at the start"))


def act(text):
    return Message("assistant", text, Source.POLICY)


def rollout(path, reward, opening=OPENING):
    """`path`: (action, state after it), the last state empty."""
    steps = [
        Step(act(action), f"seen {state}", 0.0 if state else reward, not state, state=state)
        for action, state in path
    ]
    return Trajectory("t", opening, tuple(steps), reward, StopReason.TERMINAL, "p", 0)


def tree_of(*rollouts):
    root = Node("0", None, opening=OPENING, opening_state="start")
    root.rollouts = dict(enumerate(rollouts))
    return Tree(Task("t"), root)


THREE = tree_of(
    rollout([("x", "s1"), ("y", "")], 1.0),
    rollout([("x", "s1"), ("z", "")], 0.0),
    rollout([("w", "s2"), ("y", "")], 0.0),
)
