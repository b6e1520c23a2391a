"""Random decision trees whose values are known exactly: an environment, and a policy that takes
actions with known odds.

A place is an end with its reward, or holds actions: odds under the policy, the texts that say it,
and the place that it leads to. So the value of every place, V(h), and of every action, r(h, a),
under the policy is a sum, not an estimate. The environment shows where it stands ("place 17"), and
the policy knows the odds there."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
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
    places per step are shared (None: a tree). `texts` say the same action.

    What makes values equal: at a share `tied` of the places all actions lead to different places
    that are worth the same, and so does every group of `copies` actions anywhere. `gamble`: an end
    is a last choice between winning and losing, with odds by how good it is. `jump` is the chance
    that a step makes everything after it much better, `late` says that all steps but the last two
    change nothing, and `levels` are the only outcomes there are."""

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
    tied: float = 0.0
    copies: int = 1
    gamble: bool = False
    jump: float = 0.0
    late: bool = False
    levels: tuple[float, ...] = ()


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
# Families of trees with ties and other difficulties, to hold a claimed credibility against. The
# model behind it was chosen while looking at the first half (seeds below 1000), and not changed
# after the second half was first explored.
LOOKED_AT = (
    Shape("ties everywhere", tied=1.0, gamble=True, depth=4),
    Shape("ties in part", tied=0.5, gamble=True, actions=4),
    Shape("near-deterministic", peak=0.05),
    Shape("graded, wide", actions=30, depth=3, graded=True),
    Shape("sparse success", bias=-5.0, drift=2.0),
    Shape("noisy", drift=0.3, gamble=True, depth=3),
    Shape("two values", levels=(0.3, 0.6), actions=4),
    Shape("late, tied before", late=True, tied=0.5, copies=2),
    Shape("twins", copies=3, gamble=True),
    Shape("one in ten", jump=0.1, bias=-3.0, drift=0.3, actions=10, depth=4),
    Shape("nearly always", bias=3.5, gamble=True, depth=4),
)
HELD_BACK = (
    Shape("very deep", depth=10, actions=3, width=60),
    Shape("wide", actions=50, depth=3, peak=0.3),
    Shape("early ends", end=0.4, depth=6, tied=0.3),
    Shape("five levels", levels=(0.0, 0.25, 0.5, 0.75, 1.0), graded=True, tied=0.3),
    Shape("steep, tied", drift=3.0, tied=0.6, peak=0.3),
    Shape("graded twins", copies=2, actions=8, graded=True, depth=4),
    Shape("negative, tied", graded=True, range=(-1.0, 1.0), tied=0.5),
    Shape("two actions, gamble", actions=2, drift=0.7, gamble=True),
    Shape("jumps, tied", jump=0.15, bias=-2.5, tied=0.4, depth=4),
    Shape("almost flat", drift=0.15, bias=1.0, gamble=True, depth=4),
    Shape("late luck", late=True, gamble=True, depth=6, actions=4),
    Shape("texts and ties", texts=3, tied=0.4, gamble=True, actions=3, depth=4),
)
FAMILIES = (*LOOKED_AT, *HELD_BACK)


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
        if step < shape.depth and (step == 0 or rng.random() >= shape.end):
            here.actions = actions(step, quality)
        elif shape.gamble:
            here.actions = _gamble(shape, quality, names)
        else:
            here.reward = _outcome(shape, quality, rng)
        return here

    def actions(step: int, quality: float) -> list[Action]:
        odds = _odds(shape, rng)
        same = len(odds) if shape.tied and rng.random() < shape.tied else shape.copies
        found: list[Action] = []
        for n, share in enumerate(odds):
            texts = _texts(shape, n, rng)
            leads_to = after(step + 1, quality) if n % same == 0 else _twin(found[-1], names)
            found.append(Action(share, texts, leads_to))
        return found

    def after(step: int, quality: float) -> Place:
        known = layers.setdefault(step, [])
        if shape.width is not None and len(known) >= shape.width:
            near = rng.sample(known, min(3, len(known)))
            return min(near, key=lambda item: abs(item[1] - quality))[0]
        better = quality + rng.gauss(0, shape.drift * (step > shape.depth - 2 or not shape.late))
        if shape.jump and rng.random() < shape.jump:
            better += 5.0
        index = len(known)
        # Its place in line: deeper calls add to other layers.
        known.append((None, better))  # type: ignore[arg-type]
        made = place(step, better)
        known[index] = (made, better)
        return made

    root = place(0, shape.bias)
    return root


def _twin(action: Action, names: Iterator[int]) -> Place:
    """A place other than the one that the action leads to, from which all goes on in the same
    way."""
    other = action.leads_to
    return Place(f"place {next(names)}", other.reward, other.actions)


def _gamble(shape: Shape, quality: float, names: Iterator[int]) -> list[Action]:
    """A last choice between winning and losing."""
    chance = 1 / (1 + math.exp(-quality))
    return [
        Action(odds, (text,), Place(f"place {next(names)}", _scaled(shape, share)))
        for odds, share, text in ((chance, 1.0, "Win"), (1 - chance, 0.0, "Lose"))
    ]


def _outcome(shape: Shape, quality: float, rng: random.Random) -> float:
    chance = 1 / (1 + math.exp(-quality))
    share = (
        round(min(1.0, max(0.0, rng.gauss(chance, 0.15))), 1)
        if shape.graded
        else float(rng.random() < chance)
    )
    if shape.levels:
        share = shape.levels[min(int(share * len(shape.levels)), len(shape.levels) - 1)]
    return _scaled(shape, share)


def _scaled(shape: Shape, share: float) -> float:
    low, high = shape.range
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
        self.name, self.shape, self.max_steps = "trees", shape, shape.depth + shape.gamble
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
