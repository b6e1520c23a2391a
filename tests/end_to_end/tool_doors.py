"""The doors of `doors.py`, opened by calling a tool."""

import random

from doors import DOORS

from rro.environments.base import TaskList
from rro.environments.tools import ToolEnvironment
from rro.policies.scripted import ScriptedPolicy
from rro.tool_calls import tool_calls
from rro.types import Message, Source, StepResult, Task


class ToolDoors(ToolEnvironment):
    """Two turns; the reward is the share of them in which the named door was opened."""

    def reset(self, task, seed=0):
        self.wanted, self.opened = task.data, ()
        return [Message("user", " ".join(self.wanted))]

    def tools(self):
        return (self.open_door,)

    def open_door(self, door: str) -> StepResult:
        """Open a door.

        Args:
            door: Its color.
        """
        if door not in DOORS:
            return StepResult("no such door", invalid=True)
        self.opened += (door,)
        hits = sum(a == b for a, b in zip(self.opened, self.wanted, strict=False))
        done = len(self.opened) == 2
        return StepResult("end" if done else "next", hits / 2 if done else 0.0, done)

    def snapshot(self):
        return self.wanted, self.opened

    def restore(self, snapshot):
        self.wanted, self.opened = snapshot


def expert(task, noise, seed):
    """Opens the named door, or with probability `noise` any."""

    def script(messages, rng):
        turn = sum(message.role == "assistant" for message in messages)
        door = rng.choice(DOORS) if rng.random() < noise else task.data[turn]
        calls = tool_calls([("open_door", {"door": door}, None)])
        return Message("assistant", "", tool_calls=calls)

    return ScriptedPolicy(script, "expert", Source.EXPERT)


def open_doors():
    rng = random.Random(0)
    tasks = [
        Task(f"doors-{number}", (rng.choice(DOORS), rng.choice(DOORS))) for number in range(200)
    ]
    return TaskList(
        "doors", ToolDoors, {"train": tasks[:160], "test": tasks[160:]}, max_steps=4, expert=expert
    )
