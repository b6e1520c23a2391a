"""Extensions of an exploration to more tasks, or to another budget, journalled before they begin.
Explores nothing itself."""

from __future__ import annotations

from dataclasses import dataclass

from rro.config import BudgetConfig
from rro.errors import UsageError
from rro.pipeline.rounds import optimise_stage
from rro.pipeline.run import Run
from rro.pipeline.stage import single_process
from rro.runs.journal import without_envelope

_KIND = "extension"


@dataclass(frozen=True)
class Extension:
    """To how many tasks, and within which budget; None: the recipe's."""

    tasks: int | None
    budget: BudgetConfig | None


def begin_extension(
    run: Run, iteration: int, tasks: int | None, budget: BudgetConfig | None
) -> None:
    """Journal that an exploration goes on to so many tasks (None: those that it has) within a
    budget. Raises UsageError where it cannot go on to more tasks."""
    single_process("explore")
    if tasks is None and _is_trained(run, iteration):
        return
    if _is_trained(run, iteration):
        raise UsageError(
            f"{run.folder.path}: iteration {iteration} has been trained on its pairs "
            "already; start a new run to explore more tasks"
        )
    if tasks is not None and not run.is_done(f"explore-{iteration}"):
        raise UsageError(
            f"{run.folder.path}: nothing is explored yet that --tasks could extend; leave it out"
        )
    earlier = list(run.journal.records(_KIND, f"{iteration}/"))
    tasks = tasks or (earlier[-1]["tasks"] if earlier else None)
    limits = budget.model_dump(exclude_none=True) if budget else None
    record = {"tasks": tasks, "budget": limits}
    if not earlier or without_envelope(earlier[-1]) != record:
        run.journal.append(_KIND, f"{iteration}/{len(earlier)}", record)


def last_extension(run: Run, iteration: int) -> Extension | None:
    """The extension that was asked for last, finished or not; None where there is none, or where
    the policy has been trained without it."""
    records = list(run.journal.records(_KIND, f"{iteration}/"))
    if not records or _is_trained(run, iteration):
        return None
    tasks, limits = records[-1]["tasks"], records[-1]["budget"]
    return Extension(tasks, BudgetConfig(**limits) if limits else None)


def _is_trained(run: Run, iteration: int) -> bool:
    return run.is_done(optimise_stage(iteration))
