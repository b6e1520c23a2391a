"""The doors of `doors.py`, opened by calling a tool."""

from doors import DOORS, Doors, task_list

from rro.environments.tools import ToolEnvironment
from rro.policies.scripted import ScriptedPolicy
from rro.tool_calls import tool_calls
from rro.types import Message, Source, StepResult


class ToolDoors(ToolEnvironment, Doors):
    """The same by a tool."""

    def tools(self):
        return (self.open_door,)

    def open_door(self, door: str) -> StepResult:
        """Open a door.

        Args:
            door: Its color.
        """
        return self.tried(door)


def expert(task, noise, seed):
    """Opens the named door, or with probability `noise` any."""

    def script(messages, rng):
        turn = sum(message.role == "assistant" for message in messages)
        door = rng.choice(DOORS) if rng.random() < noise else task.data[turn]
        calls = tool_calls([("open_door", {"door": door}, None)])
        return Message("assistant", "", tool_calls=calls)

    return ScriptedPolicy(script, "expert", Source.EXPERT)


def open_doors():
    return task_list(ToolDoors, expert)
