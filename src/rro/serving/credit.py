"""What an agent's conversations teach, by scores that somebody gives them: group advantages, as
rows of a policy gradient."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Literal

from rro.errors import UsageError
from rro.learning.credit.advantages import normalised
from rro.serving.conversations import Conversation
from rro.types import WeightedEpisode


def group_rows(
    groups: Mapping[str, Iterable[tuple[Conversation, float | None]]],
    *,
    scale: Literal["std", "none"] = "std",
) -> list[WeightedEpisode]:
    """The rows of groups of conversations, each with its score: by task, the conversations that
    tried it. An answer's advantage is its conversation's score minus the group's mean, with
    `scale` "std" over its standard deviation (GRPO, arXiv 2402.03300). All 0 where the scores of a
    group are equal. A conversation with the score None, as its outcome is missing, gives no row and
    does not count in its group. Raises UsageError for a score that is no number."""
    if scale not in ("std", "none"):
        raise UsageError(f"scale is {scale!r}: choose std or none")
    rows = list[WeightedEpisode]()
    for task, scored in groups.items():
        group = [(who, _number(task, score)) for who, score in scored if score is not None]
        if not group:
            continue
        values = normalised([score for _, score in group], by_deviation=scale == "std")
        for (conversation, score), advantage in zip(group, values, strict=True):
            rows += conversation.episodes(task, advantage, score)
    return rows


def _number(task: str, score: float) -> float:
    if not isinstance(score, Real) or not math.isfinite(score):
        raise UsageError(
            f"a score of {task} is {score!r}: give a number, or None where the outcome is missing"
        )
    return float(score)
