"""Slices of splits, as Datasets writes them, and the validation tasks of every benchmark."""

import pytest

from rro.config import EnvironmentConfig
from rro.environments.base import TaskList
from rro.environments.registry import open_environment
from rro.environments.splits import ensure_untested, tasks_of, validation_tasks
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


def ids(benchmark, split):
    return [task.id for task in tasks_of(benchmark, split)]


@pytest.mark.parametrize(("tasks", "held"), [(4, 0), (10, 2), (999, 199), (1000, 200), (9000, 200)])
def test_validation_is_the_last_fifth_of_train_at_most_200(tasks, held):
    every = [Task(str(number)) for number in range(tasks)]
    benchmark = TaskList("counting", object, {"train": every, "test": [Task("x")]})
    assert tasks_of(benchmark, "train") == every
    assert ids(benchmark, "validation") == ids(benchmark, f"train[{tasks - held}:]")
    assert ids(benchmark, "train-without-validation") == ids(benchmark, f"train[:{tasks - held}]")
    assert ids(benchmark, "validation[:1]") == ids(benchmark, "validation")[:1]


def test_a_split_of_its_own_is_taken_and_left_out_of_train():
    splits = {"train": TASKS, "validation": TASKS[3:5], "test": []}
    benchmark = TaskList("counting", object, splits)
    assert tasks_of(benchmark, "validation") == TASKS[3:5]
    assert tasks_of(benchmark, "train-without-validation") == TASKS[:3] + TASKS[5:]


@pytest.mark.parametrize(
    ("options", "held"),
    [
        ({"name": "webshop", "options": {"catalogue": "sample"}}, 153),
        ({"name": "intercode-sql", "options": {"questions": "sample"}}, None),
    ],
)
def test_generated_benchmarks_have_three_splits_that_share_no_task(options, held):
    section = EnvironmentConfig(**options, train_split="train-without-validation")
    benchmark = open_environment(section)
    validation = validation_tasks(benchmark, section)
    assert held in (None, len(validation))
    parts = [ids(benchmark, name) for name in ("train-without-validation", "validation", "test")]
    assert min(map(len, parts)) >= 20
    assert len(set().union(*parts)) == sum(map(len, parts))
    assert set(parts[0] + parts[1]) <= set(ids(benchmark, "train"))


def test_the_validation_tasks_of_sql_share_no_answer_with_what_is_learned(tmp_path):
    benchmark = open_environment(
        EnvironmentConfig(name="intercode-sql", options={"questions": "sample"})
    )
    gold = {
        split: {
            (benchmark.all_tasks[task.data].database, benchmark.all_tasks[task.data].gold)
            for task in tasks_of(benchmark, split)
        }
        for split in ("validation", "train-without-validation")
    }
    assert not gold["validation"] & gold["train-without-validation"]


@pytest.mark.parametrize(
    ("train", "test", "key"),
    [("train", "test", "train_split"), ("train[:5]", "validation", "test_split")],
)
def test_validation_tasks_that_are_learned_from_or_tested_on_are_refused(train, test, key):
    benchmark = TaskList("counting", object, {"train": TASKS, "test": [Task("x")]})
    section = EnvironmentConfig(name="counting", train_split=train, test_split=test)
    with pytest.raises(UsageError, match=rf"environment\.{key}: .* has 2 of the 2 tasks"):
        validation_tasks(benchmark, section)


@pytest.mark.parametrize("train", ["test", "test[:1]"])
def test_test_tasks_are_not_learned_from_while_settings_are_chosen(train):
    benchmark = TaskList("counting", object, {"train": TASKS, "test": [Task("x"), Task("y")]})
    section = EnvironmentConfig(name="counting", train_split=train)
    with pytest.raises(UsageError, match=r"train_split: .* of the 2 tasks of 'test'"):
        validation_tasks(benchmark, section)


@pytest.mark.parametrize("split", ["test", "test[1:]", "dev"])
def test_validation_tasks_that_a_recipe_names_are_no_test_tasks(split):
    splits = {"train": TASKS, "test": [Task("x"), Task("y")], "dev": [Task("z"), Task("y")]}
    benchmark = TaskList("counting", object, splits)
    section = EnvironmentConfig(name="counting", validation_split=split)
    with pytest.raises(
        UsageError, match=r"validation_split: the split '\w+.*' has . of the 2 tasks"
    ):
        ensure_untested(benchmark, section)


@pytest.mark.parametrize(
    ("validation", "test"), [("validation", "test"), ("validation", "validation"), ("dev", "test")]
)
def test_others_may_be(validation, test):
    splits = {"train": TASKS, "test": [Task("x")], "dev": [Task("z")]}
    section = EnvironmentConfig(name="counting", validation_split=validation, test_split=test)
    ensure_untested(TaskList("counting", object, splits), section)


def test_few_train_tasks_leave_none_for_validation():
    benchmark = TaskList("counting", object, {"train": TASKS[:4], "test": [Task("x")]})
    with pytest.raises(UsageError, match=r"validation_split: .* has no tasks"):
        validation_tasks(benchmark, EnvironmentConfig(name="counting"))


def test_an_unknown_split_is_answered_with_those_that_there_are():
    with pytest.raises(UsageError, match=r"train, .*, validation, train-without-validation"):
        tasks_of(BENCHMARK, "dev")
