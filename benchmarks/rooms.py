"""Rooms: an environment in which only the reward can teach the decisions, with known values.

A building has wings that are not connected. A wing is a ring of sections of a few rooms each; every
room has four doors, all of which lead on to a room of the next section, so a walk meets the same
rooms again and reaches the same state in different ways. Behind at most one door of a room lies a
coin, for each visitor who passes. The agent is told where it is and how many doors are left, never
what it has found; the outcome at the end is its coins as a share of the most that could be found
from its start. Nothing in the text says which door is right: what hangs on the wall is a
distractor.

What a door adds to the outcome is independent of most others, so the outcome of an episode says
little of each of its 12 to 16 steps, and a credit that looks at steps can say more. `KnownValues`
is the exact one."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean

from rro.environments.base import Environment, TaskList
from rro.exploration.tree import Tree
from rro.exploration.visits import PlayedRollout, played_rollouts
from rro.learning.credit.advantages import episode_row
from rro.learning.credit.base import Credit, CreditContext
from rro.policies.scripted import ScriptedPolicy
from rro.seeds import derive_seed
from rro.types import Message, Source, StepResult, Task, WeightedEpisode

DOORS = ("red", "blue", "green", "white")
DECOR = ("a clock", "a mirror", "a map", "a lamp", "a vase", "a bell")
SECTIONS, WIDTH = 14, 2
STEPS = range(12, 17)
HELD_BACK = 40
"""Tasks of the validation split, and of the test split."""
_ACTION = re.compile(rf"Take the ({'|'.join(DOORS)}) door\.")
_PAGE = re.compile(r"Room (\d+), [a-z ]+\. (\d+) to go\.$")


@dataclass(frozen=True)
class Room:
    """`coins` and `leads_to`: for each door, the coins behind it and the room there. `habit`: the
    door that most visitors take, for no good reason."""

    coins: tuple[int, ...]
    leads_to: tuple[int, ...]
    habit: int


class Building:
    """The rooms by number, drawn from a seed. A share `empty` of them has no coin at all."""

    def __init__(self, wings: int, seed: int, empty: float = 0.15) -> None:
        rng = random.Random(derive_seed(seed, "building", wings))
        names = rng.sample(range(100, 1000), wings * SECTIONS * WIDTH)
        size = SECTIONS * WIDTH
        self.wings = [names[wing * size : (wing + 1) * size] for wing in range(wings)]
        self.rooms: dict[int, Room] = {}
        for wing in self.wings:
            for place, number in enumerate(wing):
                after = (place // WIDTH + 1) % SECTIONS * WIDTH
                doors = [wing[after + door % WIDTH] for door in range(len(DOORS))]
                coins = [int(door == 0 and rng.random() >= empty) for door in range(len(DOORS))]
                rng.shuffle(doors)
                rng.shuffle(coins)
                self.rooms[number] = Room(tuple(coins), tuple(doors), rng.randrange(len(DOORS)))
        self._values: dict[tuple[int, int, float], float] = {}

    def value(self, room: int, left: int, skill: float) -> float:
        """V: the coins that a walk of `left` doors still finds on average, if each door is the best
        one with probability `skill` and else any. By dynamic programming."""
        if left == 0:
            return 0.0
        key = (room, left, skill)
        if key not in self._values:
            known = [self.action_value(room, door, left, skill) for door in range(len(DOORS))]
            self._values[key] = skill * max(known) + (1 - skill) * fmean(known)
        return self._values[key]

    def action_value(self, room: int, door: int, left: int, skill: float) -> float:
        """Q: the same after a door."""
        here = self.rooms[room]
        return here.coins[door] + self.value(here.leads_to[door], left - 1, skill)


@cache
def building(wings: int, seed: int) -> Building:
    """The building of a recipe's options."""
    return Building(wings, seed)


@dataclass(frozen=True)
class Walk:
    """A task's data: where it starts, and how many doors it takes."""

    wings: int
    seed: int
    wing: int
    room: int
    steps: int

    @property
    def building(self) -> Building:
        return building(self.wings, self.seed)

    @property
    def most(self) -> float:
        """The coins of the best walk."""
        return self.building.value(self.room, self.steps, 1.0)


@dataclass(frozen=True)
class Place:
    """Where a walk stands: all that its later steps depend on."""

    walk: Walk
    room: int
    left: int
    coins: int = 0

    @property
    def page(self) -> str:
        """What the agent is shown."""
        decor = DECOR[derive_seed("decor", self.walk.room, self.walk.steps, self.room) % len(DECOR)]
        return f"Room {self.room}, {decor}. {self.left} to go."


class Rooms(Environment):
    """An episode. Its snapshot is its place. A message that takes no door is a step lost."""

    def reset(self, task: Task, seed: int = 0) -> Sequence[Message]:
        walk: Walk = task.data
        self._place = Place(walk, walk.room, walk.steps)
        return [Message("user", f"Wing {walk.wing}. {self._place.page}")]

    def step(self, action: Message) -> StepResult:
        door, place = door_of(action), self._place
        here = place.walk.building.rooms[place.room]
        room, coins = place.room, place.coins
        if door is not None:
            room, coins = here.leads_to[door], coins + here.coins[door]
        self._place = Place(place.walk, room, place.left - 1, coins)
        if place.left > 1:
            return StepResult(self._place.page, invalid=door is None)
        outcome = round(coins / place.walk.most, 12)
        return StepResult("The walk is over.", outcome, done=True, invalid=door is None)

    def snapshot(self) -> Place:
        return self._place

    def restore(self, snapshot: Place) -> None:
        self._place = snapshot


def door_of(action: Message) -> int | None:
    """The number of the door that a message takes; None if it takes none."""
    match = _ACTION.fullmatch(action.content.strip())
    return DOORS.index(match[1]) if match else None


def rooms(wings: int = 2, seed: int = 0, success: float = 0.75) -> TaskList:
    """The environment of a recipe. Walks differ in start and length, over the splits too. An
    episode with a share `success` of the most coins counts as a success."""
    walks = [
        Walk(wings, seed, number, room, steps)
        for number, wing in enumerate(building(wings, seed).wings)
        for room in wing
        for steps in STEPS
    ]
    random.Random(derive_seed(seed, "splits")).shuffle(walks)
    tasks = [Task(f"room-{walk.room}-{walk.steps}", walk) for walk in walks]
    splits = {
        "test": tasks[:HELD_BACK],
        "validation": tasks[HELD_BACK : 2 * HELD_BACK],
        "train": tasks[2 * HELD_BACK :],
    }
    return TaskList("rooms", Rooms, splits, max(STEPS), success, expert)


def expert(task: Task, noise: float, seed: int) -> ScriptedPolicy:
    """A visitor who takes a room's habitual door, with probability `noise` any instead: from such
    the policy learns that doors depend on rooms, and not which ones pay."""

    def script(messages: Sequence[Message], rng: random.Random) -> str:
        here = task.data.building.rooms[place_of(messages[-1].content)[0]]
        door = rng.randrange(len(DOORS)) if rng.random() < noise else here.habit
        return f"Take the {DOORS[door]} door."

    return ScriptedPolicy(script, f"rooms-visitor(noise={noise:g})", Source.EXPERT)


def place_of(page: str) -> tuple[int, int]:
    """The room that a page shows, and how many doors are left."""
    match = _PAGE.search(page)
    assert match is not None, page
    return int(match[1]), int(match[2])


@dataclass(frozen=True)
class KnownValues(Credit):
    """Exact credit: Q(s, a) less the mean of Q over the doors of s, with Q of the policy that takes
    the best door with probability `skill` and else any."""

    skill: float = 0.5
    context: CreditContext = CreditContext()

    gives = "advantages"

    def rows(self, tree: Tree) -> list[WeightedEpisode]:
        return [
            episode_row(tree, each, self._advantages(tree.task.data, each), self.context)
            for each in played_rollouts(tree)
        ]

    def _advantages(self, walk: Walk, played: PlayedRollout) -> list[float]:
        pages = [played.node.history()[-1].content, *(step.observation for step in played.steps)]
        return [
            self._advantage(walk.building, *place_of(page), door_of(step.action))
            for page, step in zip(pages, played.steps, strict=False)
        ]

    def _advantage(self, building: Building, room: int, left: int, door: int | None) -> float:
        known = [building.action_value(room, each, left, self.skill) for each in range(len(DOORS))]
        worth = building.value(room, left - 1, self.skill) if door is None else known[door]
        return worth - fmean(known)
