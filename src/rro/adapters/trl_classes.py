"""Environments written for TRL's `environment_factory`: `environment.name = "trl"`.

A class with `reset(**row)`, public methods with docstrings that are tools, and `get_reward()`. What
TRL's trainer does with it, this does: see its GRPOTrainer. TRL itself is not needed."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from rro.adapters.parts import function
from rro.config import Section
from rro.environments.base import Benchmark, Environment
from rro.environments.coroutines import settled
from rro.environments.tools import Tool, ToolEnvironment
from rro.errors import DataError, UsageError
from rro.jsonl import read_rows
from rro.types import Message, StepResult, Task

_OWN = ("reset", "get_reward")


class TrlOptions(Section):
    """A class that was written for the `environment_factory` of TRL's trainers."""

    factory: str = ""
    """`module:Class`, or a function that returns an instance."""
    rows: Path | None = None
    """JSON lines, a task each: `prompt`, a text or a list of messages, and what else `reset` takes.
    Default: `train_tasks` and `test_tasks` empty rows, for a class that chooses by itself."""
    test_tasks: int = Field(0, ge=0)
    """How many of the rows, the last ones, are the split `test`."""
    train_tasks: int = Field(100, ge=0)
    """Tasks of the split `train` where there are no rows."""
    max_steps: int = Field(10, ge=1)
    """Actions an episode may take where a recipe does not say."""
    success_reward: float = 1.0
    """The outcome from which on an episode is a success."""
    reward_range: tuple[float, float] = (0.0, 1.0)
    """What outcomes lie between. Only adaptive exploration needs it."""


class TrlBenchmark(Benchmark):
    """The rows as tasks. Raises UsageError for a class that is none of TRL's kind."""

    name = "trl"

    def __init__(self, options: TrlOptions) -> None:
        self.options, self._factory = options, function(options.factory or None)
        if self._factory is None:
            raise UsageError("environment.options.factory is missing: set it to module:Class")
        self.max_steps, self.success_reward = options.max_steps, options.success_reward
        self.reward_range = options.reward_range
        probe = type(self._factory())
        missing = [name for name in _OWN if not callable(getattr(probe, name, None))]
        if missing or not tool_names(probe):
            what = f"has no {missing[0]}" if missing else "has no public method to be a tool"
            raise UsageError(f"environment.options.factory: {probe.__name__} {what}")
        self._splits = self._split(_rows(options))

    def tasks(self, split: str) -> Sequence[Task]:
        if split not in self._splits:
            raise UsageError(f"trl has no split {split!r}: choose one of train, test")
        return self._splits[split]

    def make(self) -> Environment:
        assert self._factory is not None
        return TrlEnvironment(self._factory())

    def provenance(self) -> Mapping[str, Any]:
        return self.options.model_dump(mode="json")

    def _split(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Task]]:
        tasks = [Task(f"row-{number}", row) for number, row in enumerate(rows)]
        train = max(len(tasks) - self.options.test_tasks, 0)
        return {"train": tasks[:train], "test": tasks[train:]}


class TrlEnvironment(ToolEnvironment):
    """An episode: it ends with the first answer that calls no tool, and `get_reward` scores it. As
    in TRL, what a tool raises is told to the model."""

    blocking = True

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        kind = type(inner)
        self._tools = [_tool(getattr(kind, name), inner) for name in tool_names(kind)]

    def reset(self, task: Task, seed: int = 0) -> Sequence[Message]:
        said = settled(self._inner.reset(**task.data))
        prompt = task.data.get("prompt", "")
        messages: Any = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        opening = [Message(message["role"], message["content"]) for message in messages]
        last = opening[-1]
        return [*opening[:-1], Message(last.role, last.content + (said or ""))]

    def tools(self) -> Sequence[Tool]:
        return self._tools

    def step(self, action: Message) -> StepResult:
        if not action.tool_calls:
            return StepResult("", self.truncated_reward(), done=True)
        return super().step(action)

    def truncated_reward(self) -> float:
        reward = settled(self._inner.get_reward())
        if reward is None:
            raise ValueError("get_reward gave None: the outcome is missing")
        return float(reward)

    def close(self) -> None:
        close = getattr(self._inner, "close", None)
        if callable(close) and "close" not in tool_names(type(self._inner)):
            settled(close())


def tool_names(kind: type) -> list[str]:
    """The public methods that are tools, in the order of their names, as TRL finds them."""
    methods = inspect.getmembers(kind, inspect.isfunction)
    return [name for name, _ in methods if name not in _OWN and not name.startswith("_")]


def open_trl(options: TrlOptions) -> TrlBenchmark:
    """Open a class, e.g. `open_trl(TrlOptions(factory="game:Game"))`."""
    return TrlBenchmark(options)


def _tool(method: Callable[..., Any], inner: Any) -> Tool:
    """A method as a tool that answers with text, as TRL's trainer writes it, and raises nothing."""

    @functools.wraps(method)
    def call(**arguments: Any) -> StepResult | Awaitable[StepResult]:
        try:
            text = _told(settled(method(inner, **arguments)))
        except Exception as error:
            return StepResult(str({"error": str(error)}), invalid=True)
        return StepResult(text)

    return call


def _told(result: Any) -> str:
    """A result as the model reads it; of a list of content blocks, their texts."""
    blocks = result if isinstance(result, list) else []
    if blocks and all(isinstance(part, dict) and part.get("type") == "text" for part in blocks):
        return "".join(str(part.get("text", "")) for part in blocks)
    return str(result)


def _rows(options: TrlOptions) -> list[dict[str, Any]]:
    """The rows of the file, or empty ones. Raises DataError that names the line of a bad one."""
    if options.rows is None:
        return [{} for _ in range(options.train_tasks + options.test_tasks)]
    rows = []
    for place, row in read_rows(options.rows):
        if not isinstance(row, dict) or not _is_prompt(row.get("prompt", "")):
            raise DataError(
                f"{place}: prompt is neither a text nor messages that end with a user's"
            )
        rows.append(row)
    return rows


def _is_prompt(prompt: Any) -> bool:
    """A text, or messages with texts of which the last is a user's."""
    if isinstance(prompt, str):
        return True
    return (
        isinstance(prompt, list)
        and bool(prompt)
        and all(isinstance(m, dict) and isinstance(m.get("content"), str) for m in prompt)
        and all(m.get("role") in ("system", "user", "assistant") for m in prompt)
        and prompt[-1]["role"] == "user"
    )
