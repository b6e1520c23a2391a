"""A small environment that a model of a hundred thousand parameters learns in seconds: open the
named doors in order."""

import random

from rro.environments.base import Environment, TaskList
from rro.policies.scripted import ScriptedPolicy
from rro.types import Message, Source, StepResult, Task

DOORS = ("red", "blue", "green")


class Doors(Environment):
    """Two turns; the reward is the share of them in which the named door was opened. State: the
    doors opened so far."""

    def reset(self, task, seed=0):
        self.wanted, self.opened = task.data, ()
        return [Message("user", " ".join(self.wanted))]

    def step(self, action):
        verb, _, door = action.content.partition(" ")
        return self.tried(door if verb == "open" else "")

    def tried(self, door):
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
        return f"open {rng.choice(DOORS) if rng.random() < noise else task.data[turn]}"

    return ScriptedPolicy(script, "expert", Source.EXPERT)


def task_list(environment, expert):
    rng = random.Random(0)
    tasks = [
        Task(f"doors-{number}", (rng.choice(DOORS), rng.choice(DOORS))) for number in range(200)
    ]
    splits = {"train": tasks[:160], "test": tasks[160:]}
    return TaskList("doors", environment, splits, max_steps=4, expert=expert)


def open_doors():
    return task_list(Doors, expert)
