"""Gymnasium's environments: `environment.name = "gymnasium"`.

A task is a seed of `reset`. Text stands for observations and actions: by the environment's own text
rendering and by names, or by two functions of the user. Knows no environment by name."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Literal

from pydantic import Field

from rro.adapters.parts import Copied, as_text, command, function, named, required, slug
from rro.config import Section
from rro.environments.base import Agent, Benchmark, Environment
from rro.errors import UsageError, describe
from rro.policies.scripted import ScriptedPolicy
from rro.types import Message, Source, StepResult, Task

# Colours of a rendering, which mark where things are.
_COLOURS = {31: "red", 32: "green", 33: "yellow", 34: "blue", 35: "magenta", 36: "cyan"}
_MARKED = re.compile(r"\x1b\[(?P<codes>[0-9;]+)m(?P<text>[^\x1b]*)\x1b\[0m")
_MOST_PROBED = 20


class GymnasiumOptions(Section):
    """An environment of Gymnasium 1.x, made by `gymnasium.make`."""

    id: str = "FrozenLake-v1"
    """Its id, `Taxi-v4`, or `module:id` where a module registers it."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of `gymnasium.make`."""
    instruction: str | None = None
    """What stands above the first observation. Default: the id, and the names of the actions."""
    actions: list[str] = Field(default_factory=list)
    """Names of the actions of a discrete space, in its order. Default: their numbers."""
    act: str | None = None
    """`module:function` that makes an action, for spaces that are not discrete: called with the
    text of a message and the environment; raises ValueError for a text that is no action."""
    observe: str | None = None
    """`module:function` that writes an observation as text: called with the observation, its
    `info` and the environment. Default: the observation if it is a text, else the rendering as text
    where there is one, else the observation as JSON."""
    expert: str | None = None
    """`module:function` that acts as an expert: called with the conversation and a
    `random.Random`; returns the text of an action."""
    outcome: Literal["return", "last"] = "return"
    """What the reward of an episode is: the sum of its rewards, or the last one."""
    train_tasks: int = Field(200, ge=0)
    """Tasks of the split `train`, one for each seed from `first_seed` on."""
    test_tasks: int = Field(100, ge=0)
    """Tasks of the split `test`, with the seeds after those."""
    first_seed: int = Field(0, ge=0)
    """Seed of the first task."""
    success_reward: float = 1.0
    """The outcome from which on an episode is a success."""
    reward_range: tuple[float, float] = (0.0, 1.0)
    """What outcomes lie between. Only adaptive exploration needs it."""
    fork: Literal["replay", "copy"] = "replay"
    """How episodes are forked: by replaying their actions, or by `copy.deepcopy`, for environments
    in pure Python whose steps are slow."""


class GymnasiumBenchmark(Benchmark):
    """Tasks of one Gymnasium environment. Raises UsageError where it cannot be made, or where its
    actions have no text."""

    name = "gymnasium"

    def __init__(self, options: GymnasiumOptions) -> None:
        self.options, self._gymnasium = options, required("gymnasium", "gymnasium")
        self._act, self._observe = function(options.act), function(options.observe)
        self._script, self._render = function(options.expert), {}
        self.success_reward, self.reward_range = options.success_reward, options.reward_range
        inner = self.open()
        self.max_steps = getattr(inner.spec, "max_episode_steps", None) or 100
        self.actions = options.actions or self._numbers(inner.action_space)
        if not self._observe and "ansi" in inner.metadata.get("render_modes", ()):
            self._render = {"render_mode": "ansi"}
        inner.close()
        if options.fork == "copy":
            self._check_copies()

    def tasks(self, split: str) -> Sequence[Task]:
        first, train, test = (
            self.options.first_seed,
            self.options.train_tasks,
            self.options.test_tasks,
        )
        seeds = {
            "train": range(first, first + train),
            "test": range(first + train, first + train + test),
        }
        if split not in seeds:
            raise UsageError(f"gymnasium has no split {split!r}: choose one of train, test")
        return [Task(f"{slug(self.options.id)}-{seed}", seed) for seed in seeds[split]]

    def make(self) -> Environment:
        kind = CopyingEnvironment if self.options.fork == "copy" else GymnasiumEnvironment
        return kind(self)

    def open(self) -> Any:
        """A new environment of Gymnasium's. Raises UsageError where it cannot be made."""
        try:
            given = {**self._render, **self.options.arguments}
            return self._gymnasium.make(self.options.id, **given)
        except Exception as error:
            raise UsageError(
                f"Gymnasium cannot make {self.options.id}: {describe(error)}"
            ) from error

    def action(self, text: str, inner: Any) -> Any:
        """The action that a message stands for. Raises ValueError for one that is none."""
        if self._act:
            action = self._act(text, inner)
        elif self.actions:
            index = named(command(text), self.actions)
            action = None if index is None else inner.action_space.start + index
        else:
            action = command(text)
        if action is None or not inner.action_space.contains(action):
            raise ValueError(f"not an action: {self._choice()}")
        return action

    def text(self, observation: Any, info: Mapping[str, Any], inner: Any) -> str:
        """An observation for the agent."""
        if self._observe:
            return str(self._observe(observation, info, inner))
        if self._render and not isinstance(observation, str):
            return _MARKED.sub(_marked, str(inner.render())).strip("\n")
        return as_text(observation)

    def instruction(self) -> str:
        """What stands above the first observation."""
        if self.options.instruction is not None:
            return self.options.instruction
        return f"You act in {self.options.id}, one action a turn: {self._choice()}."

    def action_of(self, message: Message) -> str:
        index = None if self._act else named(command(message.content), self.actions)
        return command(message.content) if index is None else self.actions[index]

    def expert(self, task: Task, noise: float, seed: int) -> Agent:
        if self._script is None:
            return super().expert(task, noise, seed)
        script = self._script

        def answer(messages: Sequence[Message], rng: random.Random) -> str:
            slip = self.actions and rng.random() < noise
            return rng.choice(self.actions) if slip else str(script(messages, rng))

        return ScriptedPolicy(answer, "expert", Source.EXPERT)

    def provenance(self) -> Mapping[str, Any]:
        return {"gymnasium": version("gymnasium"), **self.options.model_dump(mode="json")}

    def _choice(self) -> str:
        return f"choose one of {', '.join(self.actions)}" if self.actions else "write the action"

    def _numbers(self, space: Any) -> list[str]:
        """Names of the actions of a discrete space; none where a text is the action."""
        spaces = self._gymnasium.spaces
        if self._act is None and not isinstance(space, spaces.Discrete | spaces.Text):
            raise UsageError(
                f"environment.options.act is missing: {self.options.id} has actions in {space}; "
                "name a function that makes one of a text, as module:function"
            )
        if self._act or isinstance(space, spaces.Text):
            return []
        return [str(number) for number in range(space.start, space.start + space.n)]

    def _check_copies(self) -> None:
        """Raises UsageError where a copy does not go on as the environment itself does."""
        inner = self.open()
        try:
            inner.reset(seed=self.options.first_seed)
            inner.action_space.seed(0)
            twin = copy.deepcopy(inner)
            for _ in range(_MOST_PROBED):
                action = inner.action_space.sample()
                answer, again = inner.step(action), twin.step(action)
                if as_text(answer[:4]) != as_text(again[:4]):  # not `info`, which may have times
                    raise ValueError("a copy answers otherwise")
                if answer[2] or answer[3]:
                    break
        except (Exception, SystemExit) as error:
            raise UsageError(
                f"{self.options.id} cannot be copied ({describe(error)}): set "
                "environment.options.fork to replay"
            ) from error
        finally:
            inner.close()


class GymnasiumEnvironment(Environment):
    """An episode. The task's seed decides the start, and with the episode's seed the chance after
    it, where the environment draws from its `np_random`."""

    def __init__(self, benchmark: GymnasiumBenchmark) -> None:
        self._benchmark, self._inner = benchmark, benchmark.open()
        self._path: tuple[Any, ...] = ()
        self._return = self._last = 0.0

    def reset(self, task: Task, seed: int = 0) -> Sequence[Message]:
        import numpy as np

        observation, info = self._inner.reset(seed=task.data)
        self._inner.unwrapped.np_random = np.random.default_rng((task.data, seed))
        self._path, self._return, self._last = (task.id, seed), 0.0, 0.0
        text = self._benchmark.text(observation, info, self._inner)
        return [Message("user", f"{self._benchmark.instruction()}\n\n{text}".strip())]

    def step(self, action: Message) -> StepResult:
        try:
            chosen = self._benchmark.action(action.content, self._inner)
        except ValueError as error:
            return StepResult(str(error), invalid=True)
        observation, reward, terminated, truncated, info = self._inner.step(chosen)
        self._path += (as_text(chosen),)
        self._last = float(reward)
        self._return += self._last
        done = bool(terminated or truncated)
        text = self._benchmark.text(observation, info, self._inner)
        return StepResult(text, self.truncated_reward() if done else self._last, done, info=info)

    def truncated_reward(self) -> float:
        return self._return if self._benchmark.options.outcome == "return" else self._last

    def close(self) -> None:
        self._inner.close()


class CopyingEnvironment(GymnasiumEnvironment):
    """The same, forked by `copy.deepcopy`."""

    def snapshot(self) -> Copied:
        return Copied(self._path, copy.deepcopy((self._inner, self._return, self._last)))

    def restore(self, snapshot: Copied) -> None:
        self._inner.close()
        self._path = snapshot.path
        self._inner, self._return, self._last = copy.deepcopy(snapshot.inner)


def open_gymnasium(options: GymnasiumOptions) -> GymnasiumBenchmark:
    """Open a Gymnasium environment, e.g. `open_gymnasium(GymnasiumOptions(id="Taxi-v4"))`."""
    return GymnasiumBenchmark(options)


def _marked(match: re.Match[str]) -> str:
    """Text that a rendering colours, with the colour's name, as `<red S>`."""
    codes = [int(code) % 256 for code in match["codes"].split(";") if code]
    names = [_COLOURS.get(code - 10 if code >= 40 else code) for code in codes]
    colour = next(filter(None, names), "marked")
    return f"<{colour} {match['text']}>"
