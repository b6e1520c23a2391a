"""Expert trajectories: from files (ETO/IPR's ShareGPT form, or conversational rows) or from a
benchmark's scripted expert.

SFT needs conversations only; ETO and IPR also need each expert episode as the environment answers
it, which a file's actions give by being played again."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rro.codec import from_chat
from rro.concurrency import map_all
from rro.config import ExpertsConfig
from rro.environments.base import Agent, Benchmark
from rro.environments.recordings import read_bytes
from rro.episodes.loop import Limits, attempt_episode, play_task
from rro.errors import DataError
from rro.policies.scripted import ScriptedPolicy
from rro.seeds import derive_seed
from rro.types import Message, SamplingParams, Source, Task, Trajectory

Conversation = tuple[Message, ...]

# Expert episodes that are played at once.
CONCURRENCY = 8

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


def scripted_experts(
    benchmark: Benchmark, tasks: Sequence[Task], config: ExpertsConfig, limits: Limits, seed: int
) -> list[Trajectory]:
    """The benchmark's own expert plays the first `config.episodes` of `tasks`, erring as often as
    `config.noise` says. Episodes below `config.min_reward` are left out."""

    def expert(task: Task) -> Agent:
        return benchmark.expert(task, config.noise, derive_seed(seed, "expert", task.id))

    chosen = tasks[: config.episodes]
    played = play_experts(
        benchmark, [(task, partial(expert, task)) for task in chosen], limits, seed
    )
    least = -math.inf if config.min_reward is None else config.min_reward
    return [episode for episode in played if episode.reward is not None and episode.reward >= least]


def play_experts(
    benchmark: Benchmark,
    players: Sequence[tuple[Task, Callable[[], Agent]]],
    limits: Limits,
    seed: int,
) -> list[Trajectory]:
    """One episode for each task and what makes its expert, in their order. Those that failed again
    and again are among them, and logged."""

    async def play(player: tuple[Task, Callable[[], Agent]]) -> Trajectory:
        return await attempt_episode(lambda: once(*player), limits.retries)

    async def once(task: Task, make_expert: Callable[[], Agent]) -> Trajectory:
        return await play_task(
            benchmark,
            make_expert(),
            task,
            params=SamplingParams(),
            limits=limits,
            seed=derive_seed(seed, "expert-episode", task.id),
            environment_seed=derive_seed(seed, "environment", task.id),
        )

    return asyncio.run(map_all(players, play, CONCURRENCY))


def replayed_experts(
    benchmark: Benchmark,
    tasks: Sequence[Task],
    rows: Sequence[tuple[str, Conversation]],
    limits: Limits,
    seed: int,
) -> list[Trajectory]:
    """Play a file's actions again, for each expert episode's states and outcome. Rows whose id is
    no task of `tasks`, or whose actions run out before the episode ends, are left out."""
    by_id = {task.id: task for task in tasks}
    players = [
        (by_id[task_id], partial(recorded_expert, conversation))
        for task_id, conversation in rows
        if task_id in by_id
    ]
    episodes = play_experts(benchmark, players, limits, seed)
    return [episode for episode in episodes if episode.reward is not None]


def recorded_expert(conversation: Conversation) -> Agent:
    """An agent that repeats the assistant messages of a conversation, in order.

    Those of the opening ("OK") are part of the episode when it is first asked. An episode that
    needs more messages fails.
    """
    turns = [message.content for message in conversation if message.role == "assistant"]

    def script(messages: Sequence[Message], _: object) -> str:
        return turns[sum(message.role == "assistant" for message in messages)]

    return ScriptedPolicy(script, "expert", Source.EXPERT)


def read_conversations(path: Path) -> list[tuple[str, Conversation]]:
    """(id, messages) of each row of a JSON or JSON-lines file, also gzipped. Assistant turns count
    as the expert's.

    Rows are {"id", "conversations": [{"from", "value"}]} or {"messages": [{"role", "content"}]}.
    Raises DataError that names the row."""
    found = []
    for number, row in enumerate(_rows(path), 1):
        where = f"{path}, row {number}"
        turns = row.get("messages") or row.get("conversations") if isinstance(row, dict) else None
        if not turns:
            raise DataError(f"{where}: neither 'messages' nor 'conversations' in it")
        found.append((str(row.get("id", number)), tuple(_message(turn, where) for turn in turns)))
    if not found:
        raise DataError(f"{path}: no expert trajectory in it")
    return found


def _rows(path: Path) -> Iterator[Any]:
    try:
        text = read_bytes(path).decode("utf-8")
        if text.lstrip().startswith("["):
            yield from json.loads(text)
        else:
            yield from (json.loads(line) for line in text.splitlines() if line.strip())
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}") from None


def _message(turn: Any, where: str) -> Message:
    try:
        role = _ROLES[turn.get("role") or turn["from"]]
        content = turn["content"] if "content" in turn else turn["value"]
    except (KeyError, TypeError, AttributeError):
        raise DataError(
            f"{where}: a turn needs role and content (or from and value), known roles"
        ) from None
    return from_chat({"role": role, "content": str(content)}, assistant=Source.EXPERT)


def write_conversations(episodes: Sequence[Trajectory], path: Path) -> None:
    """Conversational rows with id, reward and provenance, to look at and to train on elsewhere."""
    rows = (
        {
            "id": episode.task,
            "messages": [message.chat() for message in episode.messages()],
            "sources": [message.source.value for message in episode.messages()],
            "reward": episode.reward,
            "policy": episode.policy,
        }
        for episode in episodes
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
