"""Slices of splits, as Datasets writes them."""

import pytest

from rro.environments.base import TaskList
from rro.environments.splits import tasks_of
from rro.errors import UsageError
from rro.types import Task

TASKS = [Task(str(number)) for number in range(10)]
BENCHMARK = TaskList("counting", object, {"train": TASKS, "odd[1:2]": TASKS[:1]})


@pytest.mark.parametrize(
    ("split", "numbers"),
    [
        ("train", range(10)),
        ("train[:-3]", range(7)),
        ("train[-3:]", range(7, 10)),
        ("train[2:4]", range(2, 4)),
        ("train[:]", range(10)),
        ("train[20:]", []),
    ],
)
def test_a_slice_is_that_of_a_list(split, numbers):
    assert [task.id for task in tasks_of(BENCHMARK, split)] == [str(number) for number in numbers]


@pytest.mark.parametrize("split", ["dev", "dev[:3]", "train[3]", "train[::2]", "train[:3%]"])
def test_anything_else_is_an_unknown_split(split):
    with pytest.raises(UsageError, match="train"):
        tasks_of(BENCHMARK, split)
