"""Replays expert episodes in the form of ETO's and IPR's files, and keeps those that succeed here.

So a policy learns from the rules, observations and rewards of this environment, not from those of
the recording. Only the expert's answers are taken from it.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from rro.episodes.experts import Conversation, play_experts, read_conversations, recorded_expert
from rro.episodes.loop import Limits
from rro.errors import DataError
from rro.intercode_sql import (
    IntercodeSqlBenchmark,
    IntercodeSqlOptions,
    open_intercode_sql,
)
from rro.types import Task

_ID = re.compile(r"dev[_-](\d+)")


def write_experts(data: Path, recorded: Path, target: Path, thoughts_only: bool = True) -> int:
    """Replay the episodes of the file `recorded` and write the successful ones to `target`, as JSON
    lines of "id" (of the task), "messages", "reward" and "source"; returns how many.

    Uses the embedded engine with the data folder `data`. Left out are test tasks, tasks that share
    their answer with one, and, with `thoughts_only`, episodes in which an answer has no thought.
    Raises DataError that names the row if `recorded` is of another form.
    """
    with tempfile.TemporaryDirectory() as cache:
        options = IntercodeSqlOptions(data=data, exclude_test_golds=True, cache=Path(cache))
        benchmark = open_intercode_sql(options)
        rows = replayed(benchmark, recorded, thoughts_only)
        benchmark.engine.close()
    target.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return len(rows)


def replayed(
    benchmark: IntercodeSqlBenchmark, recorded: Path, thoughts_only: bool = True
) -> list[dict[str, Any]]:
    """The rows that `write_experts` writes."""
    chosen = list(_chosen(benchmark, recorded, thoughts_only))
    players = [(task, partial(recorded_expert, conversation)) for _, task, conversation in chosen]
    episodes = play_experts(benchmark, players, Limits(benchmark.max_steps), seed=0)
    return [
        {
            "id": episode.task,
            "messages": [message.chat() for message in episode.messages()],
            "reward": episode.reward,
            "source": name,
        }
        for (name, _, _), episode in zip(chosen, episodes, strict=True)
        if episode.reward is not None and episode.reward >= benchmark.success_reward
    ]


def _chosen(
    benchmark: IntercodeSqlBenchmark, recorded: Path, thoughts_only: bool
) -> Iterator[tuple[str, Task, Conversation]]:
    """(id, task, conversation) of the rows that are replayed."""
    tasks = {task.data: task for task in benchmark.tasks("train")}
    for number, (name, conversation) in enumerate(read_conversations(recorded), 1):
        match = _ID.search(name)
        if match is None:
            raise DataError(
                f"{recorded}, row {number}: {name!r} is not the id of an episode: it must contain "
                "dev_NUMBER"
            )
        task = tasks.get(int(match[1]))
        if task is not None and not (thoughts_only and _lacks_thought(conversation)):
            yield name, task, conversation


def _lacks_thought(conversation: Conversation) -> bool:
    """Whether an answer after the opening "OK" has no thought."""
    answers = [message.content for message in conversation if message.role == "assistant"]
    return any("Thought:" not in answer for answer in answers[1:])
