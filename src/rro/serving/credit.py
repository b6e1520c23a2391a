"""What an agent's conversations teach, by scores that somebody gives them: group advantages, as
rows of a policy gradient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from rro.learning.credit.advantages import normalised
from rro.serving.conversations import Conversation
from rro.types import WeightedEpisode


def group_rows(
    groups: Mapping[str, Iterable[tuple[Conversation, float]]],
    *,
    scale: Literal["std", "none"] = "std",
) -> list[WeightedEpisode]:
    """The rows of groups of conversations, each with its score: by task, the conversations that
    tried it. An answer's advantage is its conversation's score minus the group's mean, with
    `scale` "std" over its standard deviation (GRPO, arXiv 2402.03300). All 0 where the scores of a
    group are equal."""
    rows = list[WeightedEpisode]()
    for task, scored in groups.items():
        group = list(scored)
        values = normalised([score for _, score in group], by_deviation=scale == "std")
        for (conversation, score), advantage in zip(group, values, strict=True):
            rows += conversation.episodes(task, advantage, score)
    return rows
