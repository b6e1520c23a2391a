"""Expert episodes that others recorded, as ETO/IPR's ShareGPT rows: played again here, and those
kept that still succeed.

So what a policy learns from is what it will meet: this environment's rules, its observations, its
rewards."""

from __future__ import annotations

import json
import random
import re
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rro.environments.recordings import read_bytes
from rro.episodes.experts import play_experts
from rro.episodes.loop import Limits
from rro.errors import DataError
from rro.intercode_sql import (
    IntercodeSqlBenchmark,
    IntercodeSqlOptions,
    open_intercode_sql,
)
from rro.policies.scripted import ScriptedPolicy
from rro.types import Message, Source, Task

_ID = re.compile(r"dev[_-](\d+)")


def write_experts(data: Path, recorded: Path, target: Path, thoughts_only: bool = True) -> int:
    """Play the episodes of `recorded` again on the embedded engine and write the successful ones as
    conversational rows {"id": task id, "messages", "reward", "source"}; returns how many.

    Left out: tasks that are not for training or share their answer with one for testing, and, with
    `thoughts_only`, episodes whose agent did not write down its thoughts. Raises DataError that
    names the row for a file of another form."""
    with tempfile.TemporaryDirectory() as cache:
        benchmark = open_intercode_sql(
            IntercodeSqlOptions(data=data, exclude_test_golds=True, cache=Path(cache))
        )
        rows = replayed(benchmark, recorded, thoughts_only)
        benchmark.engine.close()
    target.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return len(rows)


def replayed(
    benchmark: IntercodeSqlBenchmark, recorded: Path, thoughts_only: bool = True
) -> list[dict[str, Any]]:
    """The rows that `write_experts` writes."""
    chosen = list(_chosen(benchmark, recorded, thoughts_only))
    players = [(task, partial(_reciting, answers)) for _, task, answers in chosen]
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
) -> Iterator[tuple[str, Task, list[str]]]:
    """(id, task, answers) of the rows that are played again."""
    tasks = {task.data: task for task in benchmark.tasks("train")}
    for number, (name, answers) in enumerate(_episodes(recorded), 1):
        match = _ID.search(name)
        if match is None:
            raise DataError(
                f"{recorded}, row {number}: {name!r} is not the id of an episode: dev_NUMBER must be in it"
            )
        task = tasks.get(int(match[1]))
        if task is not None and (not thoughts_only or all("Thought:" in text for text in answers)):
            yield name, task, answers


def _reciting(answers: Sequence[str]) -> ScriptedPolicy:
    """Gives the recorded answers in their order; an episode that needs more of them fails."""

    def script(messages: Sequence[Message], _: random.Random) -> str:
        return answers[sum(message.source is Source.EXPERT for message in messages)]

    return ScriptedPolicy(script, "expert", Source.EXPERT)


def _episodes(file: Path) -> Iterator[tuple[str, list[str]]]:
    """(id, the agent's answers after the opening "OK") of each row."""
    try:
        rows = json.loads(read_bytes(file))
    except ValueError as error:
        raise DataError(f"{file}: cannot be read as expert episodes: {error}") from None
    for number, row in enumerate(rows, 1):
        try:
            answers = [str(turn["value"]) for turn in row["conversations"] if turn["from"] == "gpt"]
            yield str(row["id"]), answers[1:] if answers[:1] == ["OK"] else answers
        except (KeyError, TypeError):
            raise DataError(
                f"{file}, row {number}: id and conversations of from and value are needed"
            ) from None
