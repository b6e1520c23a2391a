"""Random decision trees whose values are known exactly: an environment, and a policy that takes
actions with known odds.

A place is an end with its reward, or holds actions: odds under the policy, the texts that say it,
and the place that it leads to. So the value of every place, V(h), and of every action, r(h, a),
under the policy is a sum, not an estimate. The environment shows where it stands ("place 17"), and
the policy knows the odds there."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from rro.environments.base import Benchmark, Environment
from rro.policies.scripted import ScriptedPolicy
from rro.seeds import derive_seed
from rro.types import Message, Source, Step, StepResult, StopReason, Task, Trajectory


@dataclass(frozen=True)
class Shape:
    """What trees look like. `peak` is the Dirichlet concentration of the policy's odds (small:
    peaked). A place is as good as the one before it plus normal noise of size `drift`; at an end
    the outcome is a coin (`graded`: a tenth of a unit) that falls by how good the place is. `width`
    places per step are shared (None: a tree). `texts` say the same action."""

    name: str
    depth: int = 5
    actions: int = 6
    peak: float = 1.0
    graded: bool = False
    drift: float = 1.0
    bias: float = 0.0
    end: float = 0.1
    texts: int = 1
    width: int | None = 300
    range: tuple[float, float] = (0.0, 1.0)


SHAPES = (
    Shape("peaked, binary", peak=0.3),
    Shape("flat, binary", peak=20.0),
    Shape("peaked, graded", peak=0.3, graded=True),
    Shape("flat, graded", peak=20.0, graded=True),
    Shape("shallow", depth=3),
    Shape("deep", depth=8, actions=4, width=200),
    Shape("two actions", actions=2, depth=6),
    Shape("twenty actions", actions=20, depth=4, width=400),
    Shape("equal actions", actions=3, texts=3),
    Shape("mostly zero", bias=-4.0, drift=1.2),
    Shape("mostly one", bias=2.5),
    Shape("luck at the end", drift=0.0),
    Shape("negative rewards", graded=True, range=(-1.0, 1.0)),
)


@dataclass(eq=False)
class Place:
    """An end (`reward`), or a choice among `actions`."""

    name: str
    reward: float | None = None
    actions: list[Action] = field(default_factory=list)

    @cached_property
    def value(self) -> float:
        """V under the policy."""
        return (
            self.reward
            if self.reward is not None
            else sum(a.odds * a.leads_to.value for a in self.actions)
        )

    @cached_property
    def best(self) -> float:
        """The highest outcome that can be reached."""
        return (
            self.reward
            if self.reward is not None
            else max(action.leads_to.best for action in self.actions)
        )

    @cached_property
    def by_text(self) -> dict[str, Action]:
        return {text: action for action in self.actions for text in action.texts}


@dataclass(frozen=True, eq=False)
class Action:
    odds: float
    texts: tuple[str, ...]
    leads_to: Place


def grow(shape: Shape, seed: int) -> Place:
    """A random tree of a shape."""
    rng = random.Random(seed)
    names = iter(range(10**9))
    layers: dict[int, list[tuple[Place, float]]] = {}

    def place(step: int, quality: float) -> Place:
        here = Place(f"place {next(names)}")
        if step == shape.depth or (step > 0 and rng.random() < shape.end):
            here.reward = _outcome(shape, quality, rng)
        else:
            odds = _odds(shape, rng)
            here.actions = [
                Action(share, _texts(shape, n, rng), after(step + 1, quality))
                for n, share in enumerate(odds)
            ]
        return here

    def after(step: int, quality: float) -> Place:
        known = layers.setdefault(step, [])
        if shape.width is not None and len(known) >= shape.width:
            near = rng.sample(known, min(3, len(known)))
            return min(near, key=lambda item: abs(item[1] - quality))[0]
        better = quality + rng.gauss(0, shape.drift)
        index = len(known)
        known.append((None, better))  # type: ignore[arg-type]  # its place in line: deeper calls add to other layers
        made = place(step, better)
        known[index] = (made, better)
        return made

    root = place(0, shape.bias)
    return root


def _outcome(shape: Shape, quality: float, rng: random.Random) -> float:
    chance = 1 / (1 + math.exp(-quality))
    low, high = shape.range
    share = (
        round(min(1.0, max(0.0, rng.gauss(chance, 0.15))), 1)
        if shape.graded
        else float(rng.random() < chance)
    )
    return round(low + (high - low) * share, 12)


def _odds(shape: Shape, rng: random.Random) -> list[float]:
    raw = [rng.gammavariate(shape.peak, 1) + 1e-9 for _ in range(shape.actions)]
    return [share / sum(raw) for share in raw]


def _texts(shape: Shape, number: int, rng: random.Random) -> tuple[str, ...]:
    """The ways to say action `number`: of different lengths, so that tokens and calls are not the
    same figure."""
    return tuple(
        f"Take{' well' * rng.randrange(6)} {number}{'!' * mark}" for mark in range(shape.texts)
    )


class TreeWalk(Environment):
    """An episode on one tree. Its snapshot is the place."""

    def __init__(self, trees: Mapping[str, Place]) -> None:
        self._trees = trees

    def reset(self, task: Task, seed: int = 0) -> Sequence[Message]:
        self._place = self._trees[task.id]
        return [Message("system", f"Walk {task.id}."), Message("user", self._place.name)]

    def step(self, action: Message) -> StepResult:
        taken = self._place.by_text.get(action.content)
        if taken is None:
            return StepResult(self._place.name, invalid=True)
        self._place = taken.leads_to
        done = self._place.reward is not None
        return StepResult(self._place.name, reward=self._place.reward or 0.0, done=done)

    def snapshot(self) -> Place:
        return self._place

    def restore(self, snapshot: Place) -> None:
        self._place = snapshot


class Forest(Benchmark):
    """One task per tree, all of one shape."""

    def __init__(self, shape: Shape, tasks: int, seed: int) -> None:
        self.name, self.shape, self.max_steps = "trees", shape, shape.depth
        self.reward_range = shape.range
        self.trees = {
            f"tree-{n}": grow(shape, derive_seed(seed, shape.name, n)) for n in range(tasks)
        }
        self.places = {
            (task, place.name): place for task, root in self.trees.items() for place in _walk(root)
        }

    def tasks(self, split: str = "train") -> list[Task]:
        return [Task(name) for name in self.trees]

    def make(self) -> Environment:
        return TreeWalk(self.trees)

    def policy(self) -> ScriptedPolicy:
        """Takes each action with its odds, and each of its texts equally often."""

        def script(messages: Sequence[Message], rng: random.Random) -> str:
            here = self.at(messages)
            action = rng.choices(here.actions, [a.odds for a in here.actions])[0]
            return rng.choice(action.texts)

        return ScriptedPolicy(script, "odds")

    def at(self, messages: Sequence[Message]) -> Place:
        """Where a conversation stands."""
        return self.places[
            messages[0].content.removeprefix("Walk ").removesuffix("."), messages[-1].content
        ]

    def expert_episode(self, task: str) -> Trajectory:
        """The episode with the highest outcome."""
        here = self.trees[task]
        opening, steps = (
            (Message("system", f"Walk {task}."), Message("user", here.name)),
            list[Step](),
        )
        while here.reward is None:
            action = max(here.actions, key=lambda a: a.leads_to.best)
            here = action.leads_to
            message = Message("assistant", action.texts[0], Source.EXPERT)
            steps.append(Step(message, here.name, here.reward or 0.0, here.reward is not None))
        return Trajectory(
            task, opening, tuple(steps), here.reward, StopReason.TERMINAL, "expert", 0
        )


def _walk(root: Place) -> list[Place]:
    found, waiting = dict[int, Place](), [root]
    while waiting:
        place = waiting.pop()
        if id(place) not in found:
            found[id(place)] = place
            waiting += [action.leads_to for action in place.actions]
    return list(found.values())
