"""A person plays an episode in the terminal, through the same loop as every policy."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from rro.environments.base import Benchmark
from rro.episodes.loop import Limits, play_task
from rro.errors import RroError, counted, printable
from rro.policies.scripted import ScriptedPolicy
from rro.tool_calls import tool_calls, tools_of
from rro.types import Message, SamplingParams, Source, Step, Task, Trajectory


class PlayerLeft(RroError):
    """The input ended before the episode did."""


def play(benchmark: Benchmark, task: Task, limits: Limits, seed: int) -> Trajectory:
    """Show the opening, ask for an action, show the answer, and so on to the end of the episode.

    A tool is called by its name, followed by its arguments in JSON, or by the text of its first
    argument. Where actions have a prefix (`Benchmark.action_prefix`), it need not be typed.
    Raises PlayerLeft at the end of the input."""
    console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)

    def say(text: object, style: str | None = None) -> None:
        console.print(printable(str(text)), style=style)

    def ask(messages: Sequence[Message], _: random.Random) -> str | Message:
        if not any(message.source is Source.PERSON for message in messages):
            for message in messages:
                say(f"{message.role}:", "bold")
                say(message.content)
            for tool in tools_of(messages):
                say(f"{tool['function']['name']}: {tool['function'].get('description', '')}")
        try:
            typed = console.input("\n> ")
        except EOFError:
            raise PlayerLeft("the player left") from None
        if tools := tools_of(messages):
            return typed_call(typed, tools)
        return typed if benchmark.action_prefix in typed else benchmark.action_prefix + typed

    def show(step: Step) -> None:
        say(step.observation)
        if step.invalid:
            say("(that was no valid action)", "yellow")

    person = ScriptedPolicy(ask, "person", Source.PERSON)
    trajectory = asyncio.run(
        play_task(
            benchmark,
            person,
            task,
            params=SamplingParams(),
            limits=limits,
            seed=seed,
            environment_seed=seed,
            on_step=show,
        )
    )
    steps = counted(len(trajectory.steps), "steps")
    say(f"\n{trajectory.stop.value}: reward {trajectory.reward} after {steps}")
    return trajectory


def typed_call(typed: str, tools: Sequence[Mapping[str, Any]]) -> Message:
    """The message with the call that a person typed, such as `run_sql SELECT 1`, `submit` or
    `run_sql {"query": "SELECT 1"}`."""
    name, _, rest = typed.strip().partition(" ")
    known = {tool["function"]["name"]: tool["function"] for tool in tools}
    arguments = list(known.get(name, {}).get("parameters", {}).get("properties", {}))
    values: Any = rest.strip()
    if not values.startswith("{"):
        values = {arguments[0]: values} if arguments and values else {}
    return Message("assistant", "", tool_calls=tool_calls([(name, values, None)]))
