"""A person plays an episode in the terminal, through the same loop as every policy."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from rich.console import Console

from rro.environments.base import Benchmark
from rro.episodes.loop import Limits, run_episode
from rro.policies.scripted import ScriptedPolicy
from rro.types import Message, SamplingParams, Source, Step, Task, Trajectory


def play(benchmark: Benchmark, task: Task, limits: Limits, seed: int) -> Trajectory:
    """Show the opening, ask for an action, show the answer, and so on to the end. Ends early with
    EOFError at end of input.

    Where actions have a prefix (`Benchmark.action_prefix`), it need not be typed."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    environment = benchmark.make()
    opening = environment.reset(task, seed)
    for message in opening:
        console.print(f"{message.role}:", style="bold")
        console.print(message.content)

    def ask(messages: Sequence[Message], _: random.Random) -> str:
        typed = console.input("\n> ")
        return typed if benchmark.action_prefix in typed else benchmark.action_prefix + typed

    def show(step: Step) -> None:
        console.print(step.observation)
        if step.invalid:
            console.print("(that was no valid action)", style="yellow")

    person = ScriptedPolicy(ask, "person", Source.PERSON)
    trajectory = asyncio.run(
        run_episode(
            environment,
            person,
            opening,
            task=task.id,
            params=SamplingParams(),
            limits=limits,
            seed=seed,
            on_step=show,
        )
    )
    environment.close()
    console.print(
        f"\n{trajectory.stop.value}: reward {trajectory.reward} after {len(trajectory.steps)} steps"
    )
    return trajectory
