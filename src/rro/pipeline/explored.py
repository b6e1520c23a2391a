"""What a run has explored: the tasks of each iteration, and their finished trees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rro.exploration.records import read_trees
from rro.exploration.tree import Tree
from rro.learning.credit.base import Credit
from rro.learning.credit.choosing import fitted
from rro.pipeline.choices import Choices
from rro.pipeline.rounds import tasks_to_explore
from rro.pipeline.run import Run
from rro.types import Task


def tasks_of(run: Run, choices: Choices, iteration: int, tasks: int | None = None) -> list[Task]:
    """The tasks of an iteration's exploration: those of the recipe, or of its last extension, or
    the first `tasks` where that is more."""
    prefix = f"explore-{iteration}-to-"
    stages = (str(record["key"]) for record in run.journal.records("stage", prefix))
    counts = [int(stage.removeprefix(prefix)) for stage in stages]
    most = max([*counts, tasks or 0])
    chosen = tasks_to_explore(run, choices.all_tasks, iteration)
    others = [task for task in choices.all_tasks if task not in chosen]
    return [*chosen, *others[: max(0, most - len(chosen))]]


def finished(run: Run, tasks: Sequence[Task], iteration: int) -> list[tuple[str, Task]]:
    """The journal's keys of the tasks whose trees are finished, in the order of the tasks."""
    keys = [(f"{iteration}/{task.id}", task) for task in tasks]
    return [(key, task) for key, task in keys if ("task", key) in run.journal]


def explored_trees(run: Run, choices: Choices, iteration: int) -> Iterator[Tree]:
    """The finished trees of an iteration, one in memory at a time."""
    return read_trees(run.journal, finished(run, tasks_of(run, choices, iteration), iteration))


def fitted_credit(run: Run, choices: Choices, iteration: int) -> Credit:
    """What turns the trees of an iteration into rows, with what it learns from all of them."""
    return fitted(choices.credit(iteration), explored_trees(run, choices, iteration))
