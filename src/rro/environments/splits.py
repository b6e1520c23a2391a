"""A split's tasks by its name, or a slice of them: `train[:-200]`.

Two names work for every benchmark that has a train split: `validation`, to choose settings by, and
`train-without-validation`, to learn from meanwhile. `train` and `test` are as the benchmark has
them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

from rro.config import EnvironmentConfig
from rro.environments.base import Benchmark
from rro.errors import DataError, UsageError
from rro.types import Task

T = TypeVar("T")

VALIDATION = "validation"
WITHOUT_VALIDATION = "train-without-validation"
_OWN_VALIDATION = f"environment.validation_split={VALIDATION}"

_SLICE = re.compile(r"(?P<split>.+)\[(?P<start>-?\d{0,9}):(?P<stop>-?\d{0,9})\]")
# Validation is one train task in so many, and at most so many tasks.
_ONE_IN, _MOST = 5, 200


def tasks_of(benchmark: Benchmark, split: str) -> Sequence[Task]:
    """The tasks of a split in their order. `split` is a name, or a name with a slice as Hugging
    Face Datasets writes it: `train[100:]`, `train[:-200]`, `test[20:40]`.

    A benchmark without a split `validation` gets the last tasks of `train` (see `held_back`).
    Raises UsageError for an unknown split."""
    match = _SLICE.fullmatch(split)
    if match is None:
        return _named(benchmark, split)
    start, stop = (int(end) if end.strip("-") else None for end in match.group("start", "stop"))
    return _named(benchmark, match["split"])[start:stop]


def held_back(train: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
    """Train tasks to learn from, and those for validation: the last fifth, but at most 200."""
    cut = len(train) - min(_MOST, len(train) // _ONE_IN)
    return train[:cut], train[cut:]


def validation_tasks(benchmark: Benchmark, section: EnvironmentConfig) -> Sequence[Task]:
    """The validation tasks of a recipe. Raises UsageError where there are none, where one of them
    is learned from or tested on, and where a test task is learned from."""
    tasks, name = tasks_of(benchmark, section.validation_split), section.validation_split
    if not tasks:
        raise UsageError(
            f"environment.validation_split: the split {name!r} of {section.name} has no tasks"
        )
    validation, train, test = (
        {task.id for task in part}
        for part in (
            tasks,
            tasks_of(benchmark, section.train_split),
            tasks_of(benchmark, section.test_split),
        )
    )
    apart = f"environment.train_split={WITHOUT_VALIDATION}"
    chosen_by = f"{name!r}, which settings are chosen by"
    _refuse_shared(section, "train_split", train, validation, chosen_by, apart)
    _refuse_shared(section, "test_split", test, validation, chosen_by, _OWN_VALIDATION)
    tested_on = f"{section.test_split!r}, which policies are tested on"
    _refuse_shared(section, "train_split", train, test, tested_on, apart)
    return tasks


def ensure_untested(benchmark: Benchmark, section: EnvironmentConfig) -> None:
    """Raises UsageError where the validation split that a recipe names has test tasks, also for a
    run that does not measure itself on it: settings would be chosen by them later."""
    if section.validation_split == VALIDATION:
        return
    validation, test = (
        {task.id for task in tasks_of(benchmark, split)}
        for split in (section.validation_split, section.test_split)
    )
    tested_on = f"{section.test_split!r}, which policies are tested on"
    _refuse_shared(section, "validation_split", validation, test, tested_on, _OWN_VALIDATION)


def _refuse_shared(
    section: EnvironmentConfig, key: str, found: set[str], others: set[str], what: str, fix: str
) -> None:
    if found & others:
        raise UsageError(
            f"environment.{key}: the split {getattr(section, key)!r} has {len(found & others)} "
            f"of the {len(others)} tasks of {what}: set {fix}"
        )


def held_back_ids(benchmark: Benchmark, section: EnvironmentConfig) -> set[str]:
    """The ids of validation tasks that are no train tasks; an experts' file must not teach them."""
    try:
        tasks = tasks_of(benchmark, section.validation_split)
    except UsageError:  # the benchmark has no such split
        return set()
    train = {task.id for task in tasks_of(benchmark, section.train_split)}
    return {task.id for task in tasks} - train


def _named(benchmark: Benchmark, split: str) -> Sequence[Task]:
    try:
        return benchmark.tasks(split)
    except DataError:
        raise
    except UsageError as error:
        made = [name for name in (VALIDATION, WITHOUT_VALIDATION) if name not in str(error)]
        if split not in (VALIDATION, WITHOUT_VALIDATION):
            raise UsageError(", ".join([str(error), *made])) from None
    train = benchmark.tasks("train")
    if split == VALIDATION:
        return held_back(train)[1]
    kept_back = {task.id for task in _named(benchmark, VALIDATION)}
    return [task for task in train if task.id not in kept_back]
