"""reasoning-gym's data sets: `environment.name = "reasoning-gym"`.

A task is one question; the one action of an episode answers it, and the data set scores the answer.
Knows no data set by name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from pydantic import Field

from rro.adapters.parts import required, slug
from rro.config import Section
from rro.environments.base import Benchmark, Environment
from rro.errors import UsageError, describe
from rro.plugins import did_you_mean
from rro.types import Message, StepResult, Task

_EVALUATES = re.compile(r"\b(eval|exec|parse_expr|sympify)\(")


class ReasoningGymOptions(Section):
    """A data set of reasoning-gym: questions that a generator makes, and answers that it scores
    from 0 to 1."""

    dataset: str = "chain_sum"
    """Its name, such as `chain_sum`."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Settings of the generator, without `size` and `seed`."""
    train_tasks: int = Field(500, ge=0)
    """Questions of the split `train`."""
    test_tasks: int = Field(100, ge=0)
    """Questions of the split `test`: those after the ones of `train`. (Question i comes from the
    seed `seed` + i, so another seed would give mostly the same ones.)"""
    seed: int = Field(0, ge=0)
    """Seed of the generator."""
    instruction: str = "Think, then write the answer alone between <answer> and </answer>."
    """What stands below each question."""
    allow_eval: bool = False
    """Whether to use a data set whose scorer evaluates an answer as Python code: what the model
    writes then runs on this machine."""


class ReasoningGymBenchmark(Benchmark):
    """The questions of one data set, made when they are asked. Raises UsageError for an unknown
    data set, a setting that it does not take, and a scorer that evaluates answers."""

    name, max_steps = "reasoning-gym", 1

    def __init__(self, options: ReasoningGymOptions) -> None:
        self.options = options
        self._package = required("reasoning_gym", "reasoning-gym")
        train, both = options.train_tasks, options.train_tasks + options.test_tasks
        self._splits = {"train": range(train), "test": range(train, both)}
        self.dataset = self._create(both)
        if not options.allow_eval and _evaluates(self.dataset):
            raise UsageError(
                f"the scorer of {options.dataset} may evaluate answers as Python code: set "
                "environment.options.allow_eval to true if what the model writes may run here"
            )

    def tasks(self, split: str) -> Sequence[Task]:
        if split not in self._splits:
            raise UsageError(f"reasoning-gym has no split {split!r}: choose one of train, test")
        name = slug(self.options.dataset)
        return [Task(f"{name}-{index}", index) for index in self._splits[split]]

    def make(self) -> Environment:
        return Question(self)

    def provenance(self) -> Mapping[str, Any]:
        options = self.options.model_dump(mode="json")
        return {"reasoning_gym": version("reasoning-gym"), "license": "Apache-2.0", **options}

    def _create(self, size: int) -> Any:
        factory = self._package.factory
        if self.options.dataset not in factory.DATASETS:
            hint = did_you_mean(self.options.dataset, factory.DATASETS)
            raise UsageError(f"reasoning-gym has no data set {self.options.dataset!r}: {hint}")
        given = {**self.options.config, "size": max(size, 1), "seed": self.options.seed}
        try:
            return self._package.create_dataset(self.options.dataset, **given)
        except Exception as error:
            raise UsageError(
                f"environment.options.config does not fit {self.options.dataset}: {describe(error)}"
            ) from error


class Question(Environment):
    """One question, and one answer. Its snapshot is the question's place in its data set."""

    def __init__(self, benchmark: ReasoningGymBenchmark) -> None:
        self._benchmark, self._index = benchmark, 0

    def reset(self, task: Task, seed: int = 0) -> Sequence[Message]:
        self._index = task.data
        question = self._benchmark.dataset[self._index]["question"]
        return [Message("user", f"{question}\n\n{self._benchmark.options.instruction}".strip())]

    def step(self, action: Message) -> StepResult:
        dataset = self._benchmark.dataset
        entry = dataset[self._index]
        score = float(dataset.score_answer(answer_of(action.content), entry))
        # What the agent does not see: the reference answer, and what the question is made of.
        info = {"answer": entry.get("answer"), **entry.get("metadata", {})}
        return StepResult(f"Score: {score:g}", reward=score, done=True, info=info)

    def snapshot(self) -> int:
        return self._index

    def restore(self, snapshot: int) -> None:
        self._index = snapshot


def answer_of(text: str) -> str:
    """What stands in the last <answer> of a message, or all of it."""
    _, opened, rest = text.rpartition("<answer>")
    return (rest.partition("</answer>")[0] if opened else text).strip()


def open_reasoning_gym(options: ReasoningGymOptions) -> ReasoningGymBenchmark:
    """Open a data set, e.g. `open_reasoning_gym(ReasoningGymOptions(dataset="chain_sum"))`."""
    return ReasoningGymBenchmark(options)


def _evaluates(dataset: Any) -> bool:
    """Whether the source of its scorer, or of those that it is composed of, evaluates text."""
    parts = getattr(dataset, "datasets", None)
    if isinstance(parts, Mapping):
        return any(map(_evaluates, parts.values()))
    kind = type(dataset)
    methods = [method for owner in kind.__mro__[:-1] for method in vars(owner).values()]
    scoring = [m for m in methods if getattr(m, "__name__", "").strip("_").startswith("score")]
    return any(_EVALUATES.search(inspect.getsource(method)) for method in scoring)
