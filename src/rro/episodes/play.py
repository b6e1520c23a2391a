"""A person plays an episode in the terminal, through the same loop as every policy."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from rich.console import Console

from rro.environments.base import Benchmark
from rro.episodes.loop import Limits, play_task
from rro.errors import RroError, printable
from rro.policies.scripted import ScriptedPolicy
from rro.types import Message, SamplingParams, Source, Step, Task, Trajectory


class PlayerLeft(RroError):
    """The input ended before the episode did."""


def play(benchmark: Benchmark, task: Task, limits: Limits, seed: int) -> Trajectory:
    """Show the opening, ask for an action, show the answer, and so on to the end of the episode.

    Where actions have a prefix (`Benchmark.action_prefix`), it need not be typed. Raises PlayerLeft
    at the end of the input."""
    console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)

    def say(text: object, style: str | None = None) -> None:
        console.print(printable(str(text)), style=style)

    def ask(messages: Sequence[Message], _: random.Random) -> str:
        if not any(message.source is Source.PERSON for message in messages):
            for message in messages:
                say(f"{message.role}:", "bold")
                say(message.content)
        try:
            typed = console.input("\n> ")
        except EOFError:
            raise PlayerLeft("the player left") from None
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
    steps = len(trajectory.steps)
    say(f"\n{trajectory.stop.value}: reward {trajectory.reward} after {steps} steps")
    return trajectory
