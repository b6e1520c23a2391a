"""Which successes are imitated: the shortest of each task. The credit `successes`, the closing pass
and the policy gradient's replay all choose them here.

Knows neither trees nor tokens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rro.types import Message


@dataclass(frozen=True, slots=True)
class Success:
    """A whole episode that reached the success reward."""

    task: str
    messages: tuple[Message, ...]

    @property
    def steps(self) -> int:
        """How many actions it took."""
        return sum(message.role == "assistant" for message in self.messages)


def shortest(successes: Iterable[Success], per_task: int) -> list[Success]:
    """The `per_task` successes of each task with the fewest steps, each text once; among equally
    short ones, those that came first. Tasks in the order in which they came, shortest first."""
    by_task: dict[str, dict[tuple[str, ...], Success]] = {}
    for success in successes:
        text = tuple(message.text for message in success.messages)
        by_task.setdefault(success.task, {}).setdefault(text, success)
    return [
        success
        for distinct in by_task.values()
        for success in sorted(distinct.values(), key=lambda success: success.steps)[:per_task]
    ]
