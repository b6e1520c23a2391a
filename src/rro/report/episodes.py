"""The evaluated episodes of one task as plain data for the page, those of all policies and modes
beside each other. Texts are numbers in a table of strings. Computes no figure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

from rro.report.credit import Advantages
from rro.report.source import Play
from rro.report.trees import SNIPPET, Intern, rollouts_of
from rro.types import Message


class PlayedTask(NamedTuple):
    """One task as data: `plays` for the chunk, `listed` for the list of tasks."""

    plays: dict[str, Any]
    listed: dict[str, Any]


def played_task(
    task: str, opening: Sequence[Message], plays: Sequence[Play], intern: Intern
) -> PlayedTask:
    """A task's episodes, in the order of the journal, and its entry in the list: the mean reward of
    each policy and mode."""
    data = {
        "opening": [[message.role, intern(message.text)] for message in opening],
        "plays": [
            {"label": play.label, "mode": play.mode}
            | rollouts_of({play.number: play.episode}, Advantages(), intern)[0]
            for play in sorted(plays, key=lambda play: play.number)
        ],
    }
    rewards: dict[tuple[str, str], list[float]] = {}
    for play in plays:
        if play.episode.reward is not None:
            rewards.setdefault((play.label, play.mode), []).append(play.episode.reward)
    listed = {
        "id": task,
        "text": opening[-1].text[:SNIPPET] if opening else "",
        "rewards": [[*policy, fmean(values)] for policy, values in rewards.items()],
    }
    return PlayedTask(data, listed)
