"""Expert trajectories: from files (ETO/IPR's ShareGPT form, or conversational rows) or from a
benchmark's scripted expert.

SFT needs conversations only; ETO and IPR also need each expert episode as the environment answers
it, which a file's actions give by being played again."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rro.chat_rows import conversation
from rro.concurrency import map_all
from rro.config import ExpertsConfig
from rro.environments import contract
from rro.environments.base import Agent, Benchmark
from rro.environments.coroutines import settled
from rro.episodes.loop import Limits, attempt_episode, play_task
from rro.errors import DataError
from rro.files import write_file
from rro.jsonl import read_rows
from rro.policies.scripted import ScriptedPolicy
from rro.seeds import derive_seed
from rro.tool_calls import tools_of
from rro.types import Message, SamplingParams, Source, Task, Trajectory

log = logging.getLogger(__name__)

Conversation = tuple[Message, ...]

# Expert episodes that are played at once.
CONCURRENCY = 8


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
    no task of `tasks`, or whose actions run out before the episode ends, are left out, and the log
    says how many."""
    by_id = {task.id: task for task in tasks}
    players = [
        (by_id[task_id], partial(recorded_expert, conversation))
        for task_id, conversation in rows
        if task_id in by_id
    ]
    played = play_experts(benchmark, players, limits, seed)
    episodes = [episode for episode in played if episode.reward is not None]
    if len(episodes) < len(rows):
        log.warning(
            "%d of %d expert episodes are left out: %d have an id that is no train task, %d do not "
            "come to an end here",
            len(rows) - len(episodes),
            len(rows),
            len(rows) - len(players),
            len(players) - len(episodes),
        )
    return episodes


def recorded_expert(conversation: Conversation) -> Agent:
    """An agent that repeats the assistant messages of a conversation, in order.

    Those of the opening ("OK") are part of the episode when it is first asked. An episode that
    needs more messages fails.
    """
    turns = [message for message in conversation if message.role == "assistant"]

    def script(messages: Sequence[Message], _: object) -> Message:
        return turns[sum(message.role == "assistant" for message in messages)]

    return ScriptedPolicy(script, "expert", Source.EXPERT)


def check_tools(
    path: Path, rows: Sequence[tuple[str, Conversation]], benchmark: Benchmark, task: Task
) -> None:
    """Raises DataError where a file's episodes offer tools and `task` does not, or the reverse:
    SFT would teach another form than the one that the agent acts in."""
    environment = benchmark.make()
    try:
        offered = bool(contract.reset(environment, task, 0)[0].tools)
    finally:
        settled(environment.close())
    for number, (_, messages) in enumerate(rows, 1):
        if offered and not messages[0].tools:
            raise DataError(
                f"{path}, episode {number}: it has no tools, but agents of {benchmark.name} act by "
                "tools here: give its rows 'tools' and 'tool_calls', or switch the environment's "
                "tools off"
            )
        if messages[0].tools and not offered:
            raise DataError(
                f"{path}, episode {number}: it has tools, but agents of {benchmark.name} act by "
                "text here: switch the environment's tools on, or take other rows"
            )


def read_conversations(path: Path) -> list[tuple[str, Conversation]]:
    """(id, messages) of each row of a JSON or JSON-lines file, also gzipped; rro.chat_rows says
    what a row may hold. Assistant turns count as the expert's; the id of a row without one is its
    number. Raises DataError that names the row and the key."""
    found = []
    for number, (place, row) in enumerate(read_rows(path, array=True), 1):
        messages = conversation(row, place, Source.EXPERT)
        row_id = row.get("id")
        if not isinstance(row_id, str | int | None) or isinstance(row_id, bool):
            raise DataError(f"{place}: 'id' must be text or a number, not {row_id!r}")
        found.append((str(number if row_id is None else row_id), messages))
    if not found:
        raise DataError(f"{path}: no expert trajectory in it")
    return found


def write_conversations(episodes: Sequence[Trajectory], path: Path) -> None:
    """Conversational rows with id, reward and provenance, to look at and to train on elsewhere."""
    rows = (
        {
            "id": episode.task,
            **({"tools": tools} if (tools := tools_of(episode.opening)) else {}),
            "messages": [message.chat() for message in episode.messages()],
            "sources": [message.source.value for message in episode.messages()],
            "reward": episode.reward,
            "policy": episode.policy,
        }
        for episode in episodes
    )
    write_file(path, "".join(json.dumps(row) + "\n" for row in rows))
