"""The whole path: experts -> SFT -> rounds of (explore -> optimise) -> closing pass -> evaluation.
Each stage alone, or all in a row.

A stage that the journal calls done is not run again; a stage that was cut off continues from what
it has journalled (exploration, evaluation) or from its last checkpoint (training)."""

from __future__ import annotations

import asyncio
import json
import logging
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rro.config import BudgetConfig
from rro.errors import RroError, UsageError, counted
from rro.evaluation.results import keep_scale
from rro.exploration import explorer
from rro.exploration.budget import Budget
from rro.exploration.metrics import RunningFigures
from rro.exploration.records import read_trees
from rro.exploration.tree import Tree
from rro.files import is_torn
from rro.learning.base import NothingToTrain
from rro.learning.credit.base import Credit
from rro.learning.credit.choosing import credited, fitted
from rro.learning.credit.successes import Successes
from rro.learning.pairs import read_pairs, to_row, write_pairs
from rro.learning.sft import Sft
from rro.learning.successes import Success, shortest
from rro.pipeline.choices import Choices
from rro.pipeline.contexts import exploration_context, spent, training_context
from rro.pipeline.evaluation import evaluate_run
from rro.pipeline.explored import explored_trees, finished, fitted_credit, tasks_of
from rro.pipeline.extension import begin_extension, last_extension
from rro.pipeline.reward_model import open_predictor
from rro.pipeline.rounds import (
    CLOSING,
    closing_label,
    drop_old_checkpoints,
    optimise_stage,
    rounds_done,
    rounds_to_run,
    taught,
)
from rro.pipeline.run import Run
from rro.pipeline.stage import by_kind, finished_training, run_stage, single_process, tracked_name
from rro.pipeline.weights import Policies, make_base, weights_after
from rro.processes import rank
from rro.runs.progress import Progress
from rro.runs.trackers import tracking
from rro.types import Message, Task

log = logging.getLogger(__name__)


class NothingToLearn(RroError):
    """An iteration's trees gave its learner nothing. `results` are those of the policies before it,
    where they have been evaluated."""

    results: dict[str, Any] | None = None


def run_all(run: Run) -> dict[str, Any]:
    """Every stage in order; returns the results, which are also in results.json.

    Raises NothingToLearn where an iteration gives nothing to learn from, after the evaluation of
    the policies that there are. A run whose base model has acted has no SFT, nor has
    one whose recipe says `sft = "none"`."""
    if run.config.sft is not None and (run.is_done("sft") or not run.has_acted(0)):
        sft(run)
    try:
        learn(run)
    except NothingToLearn as error:
        error.results = _measure(run)
        raise
    return _measure(run)


def _measure(run: Run) -> dict[str, Any]:
    """The results on the test tasks; those on the validation tasks are written before."""
    if run.config.evaluate.validation:
        evaluate_run(run, split="validation")
    return evaluate_run(run)


def learn(run: Run) -> None:
    """The rounds of exploration and optimisation, and the closing pass if the recipe has one."""
    for iteration in rounds_to_run(run):
        explore(run, iteration)
        optimise(run, iteration)
    if run.config.closing.successes:
        imitate_successes(run)


def sft(run: Run) -> None:
    """Stage 1: fine-tune on expert trajectories, loss on the assistant's tokens alone -> pi_ref.

    Raises UsageError where the base model has explored or been evaluated in this run, or the recipe
    says `sft = "none"`."""
    options = run.config.sft
    if options is None:
        raise UsageError(
            f'{run.folder.path}: the recipe says sft = "none": its rounds start from the base model'
        )

    def work() -> dict[str, Any]:
        _check_unused(run, 0)
        conversations = run.demonstrations()
        start = make_base(run, conversations)
        output = run.folder.checkpoint("sft")
        report = (
            finished_training(output)
            or Sft(options)
            .train(conversations, start, None, output, training_context(run))
            .record()
        )
        return {"conversations": len(conversations), "training": report}

    run_stage(run, "sft", work, run.folder.checkpoint("sft"))


def explore(
    run: Run, iteration: int, limits: BudgetConfig | None = None, tasks: int | None = None
) -> None:
    """Stage 2: grow every train task's tree with the current policy, and export the preference
    pairs. `limits` takes the place of the recipe's budget.

    `tasks` extends an exploration that is done to so many tasks; what is there stays. Both are
    journalled first, so that a run that is cut off here resumes with them. Raises UsageError where
    nothing is explored yet, or where its policy has been trained."""
    name = f"explore-{iteration}"
    if tasks is not None or limits is not None:
        begin_extension(run, iteration, tasks, limits)
    if extension := last_extension(run, iteration):
        tasks = extension.tasks
        name = f"{name}-to-{tasks}" if tasks is not None else name
        limits = limits or extension.budget
    limits = limits or run.config.explore.budget

    def work() -> dict[str, Any]:
        single_process("explore")
        choices = Choices(run)
        credit, wanted = choices.credit(iteration), tasks_of(run, choices, iteration, tasks)
        budget, failed = _grow_trees(run, choices, iteration, limits, wanted)
        keys = finished(run, wanted, iteration)
        _tell_the_end(budget, failed, len(keys), len(wanted))
        credit = fitted(credit, read_trees(run.journal, keys))
        rows = _export(run, credit, read_trees(run.journal, keys), iteration)
        run.folder.pairs_so_far(iteration).unlink(missing_ok=True)
        return {
            **asdict(explorer.summarise(read_trees(run.journal, keys))),
            "pairs": rows if credit.gives == "pairs" else 0,
            "demonstrations": rows if credit.gives == "conversations" else 0,
            "failed_tasks": len(failed),
            "failures": dict(Counter(failed.values())),
            "left_tasks": len(wanted) - len(keys) - len(failed),
            "budget": limits.model_dump(exclude_none=True),
            "ended_by": budget.exhausted,
        }

    if run.is_done(name) and rank() == 0:
        _pairs(run, Choices(run), iteration)
    run_stage(run, name, work)


def _tell_the_end(budget: Budget, failed: Mapping[str, str], explored: int, wanted: int) -> None:
    """Log what an exploration left out. Raises RroError where every task failed."""
    kinds = by_kind(failed.values())
    if failed and not explored:
        raise RroError(
            f"every task failed ({kinds}): fix the cause of the warnings above, then resume the run"
        )
    tasks = counted(wanted, "tasks")
    if failed:
        log.warning("%d of %s failed, counted as missing (%s)", len(failed), tasks, kinds)
    if budget.exhausted:
        log.info("the budget of %s is spent; explored: %d of %s", budget.exhausted, explored, tasks)


def _grow_trees(
    run: Run, choices: Choices, iteration: int, limits: BudgetConfig, tasks: Sequence[Task]
) -> tuple[Budget, dict[str, str]]:
    """Explore the tasks that the journal does not hold yet; returns the budget and the failed
    tasks, each with the class of its error."""
    config, strategy, credit = run.config, choices.strategy, choices.credit(iteration)
    stage, acting = f"explore-{iteration}", run.label(taught(run, iteration - 1))
    with (
        closing(
            Policies(run, acting, stage, frozen_pricer=config.explore.pricing == "sft")
        ) as policies,
        Progress(f"explore {iteration}", len(tasks), "tasks") as progress,
        tracking(config.report_to, run.folder.path, tracked_name(run, stage)) as track,
        run.folder.pairs_so_far(iteration).open("w", encoding="utf-8") as so_far,
    ):
        progress.before = spent(run, iteration)
        keep_scale(run.journal, run.benchmark)
        budget = Budget(limits, progress.before, progress.spend)
        acting_policies = policies.explorer, policies.pricer
        predictor = open_predictor(run, stage)
        logprobs = getattr(choices.learner, "wants_logprobs", False)
        context = exploration_context(
            run, *acting_policies, iteration, strategy, predictor, logprobs
        )
        figures = RunningFigures(track)

        def observe(tree: Tree) -> str:
            rows = credited(credit, tree)
            if credit.gives == "pairs":
                so_far.writelines(json.dumps(to_row(pair)) + "\n" for pair in rows)
                so_far.flush()
            figures.add(tree, len(rows))
            return counted(figures.pairs, credit.gives)

        context = replace(context, budget=budget)
        concurrency = config.explore.concurrency
        failed = asyncio.run(
            explorer.explore(tasks, strategy, context, concurrency, progress, observe)
        )
    return budget, failed


def _export(run: Run, credit: Credit, trees: Iterable[Tree], iteration: int) -> int:
    """Count the credit's rows; pairs are written to the run folder, too."""
    rows = (row for tree in trees for row in credited(credit, tree))
    if credit.gives == "pairs":
        return write_pairs((to_row(pair) for pair in rows), run.folder.pairs(iteration))
    return sum(1 for _ in rows)


def optimise(run: Run, iteration: int) -> None:
    """Stage 3: what the trees gave teaches the policy: DPO of the pairs against pi_ref (the SFT
    policy; the base model where the run has no SFT), or whatever learner the recipe names. Raises
    UsageError where the weights that it would write have explored or been evaluated."""

    def work() -> dict[str, Any]:
        _check_unused(run, iteration)
        label = run.label(iteration)
        previous, output = weights_after(run, iteration - 1), run.folder.checkpoint(label)
        choices = Choices(run)
        learner, rows = choices.learner, _rows(run, choices, iteration)
        reference, context = weights_after(run, 0), training_context(run, iteration)
        try:
            if not rows:
                raise NothingToTrain("its trees gave no rows")
            report = finished_training(output) or (
                learner.train(rows, previous, reference, output, context).record()
            )
        except NothingToTrain as error:
            if run.config.rounds.count == 1:
                raise NothingToLearn(_how_to_go_on(run, choices, iteration)) from error
            log.warning("round %d: the weights stay as they are: %s", iteration, error)
            return {"skipped": True}
        capped = report["rows"].get("capped", 0)
        left_out = {"pairs_left_out": capped} if learner.takes == "pairs" else {}
        return {learner.takes: len(rows) - capped, **left_out, "training": report}

    output = run.folder.checkpoint(run.folder.trained(iteration))
    run_stage(run, optimise_stage(iteration), work, output)
    if rank() == 0:
        drop_old_checkpoints(run, iteration)


def imitate_successes(run: Run) -> None:
    """After the last round: fine-tune on the policy's own successes in all rounds."""

    def work() -> dict[str, Any]:
        last, output = rounds_done(run)[-1], run.folder.checkpoint(closing_label(run))
        rows = _successes(run)
        if not rows:
            log.warning("no episode of any round succeeded: there is nothing to imitate")
            return {"skipped": True}
        context = training_context(run, last)
        report = finished_training(output) or (
            Sft(run.config.closing)
            .train(rows, weights_after(run, last), None, output, context)
            .record()
        )
        return {"conversations": len(rows), "training": report}

    run_stage(run, CLOSING, work, run.folder.checkpoint(closing_label(run)))


def _successes(run: Run) -> list[tuple[Message, ...]]:
    """The shortest successes of each task over all rounds."""
    choices = Choices(run)
    credit = Successes(run.config.closing.successes, choices.credit_context(0))
    reached = (
        Success(tree.task.id, messages)
        for iteration in rounds_done(run)
        for tree in explored_trees(run, choices, iteration)
        for messages in credit.rows(tree)
    )
    return [success.messages for success in shortest(reached, credit.per_task)]


def _rows(run: Run, choices: Choices, iteration: int) -> list[Any]:
    """What a round gave its learner."""
    if choices.credit(iteration).gives == "pairs":
        return list(read_pairs(_pairs(run, choices, iteration)))
    credit = fitted_credit(run, choices, iteration)
    return [
        row for tree in explored_trees(run, choices, iteration) for row in credited(credit, tree)
    ]


def _pairs(run: Run, choices: Choices, iteration: int) -> Path:
    """The file of an iteration's pairs, written again from the trees if a power cut tore it."""
    file = run.folder.pairs(iteration)
    record = run.journal.get("stage", f"explore-{iteration}") or {}
    if record.get("pairs") and is_torn(file):
        log.warning("%s is damaged, as by a power cut: written again", file)
        trees = explored_trees(run, choices, iteration)
        _export(run, fitted_credit(run, choices, iteration), trees, iteration)
    return file


def _how_to_go_on(run: Run, choices: Choices, iteration: int) -> str:
    explored, folder = len(tasks_of(run, choices, iteration)), shlex.quote(str(run.folder.path))
    nothing = f"iteration {iteration} gave no {choices.credit(iteration).gives} to learn from"
    if explored >= len(choices.all_tasks):
        epochs = "" if run.config.sft is None else ", or with fewer sft.epochs"
        return (
            f"{nothing}, and no train task is left to explore: start a new run with a higher "
            f"policy.temperature{epochs}"
        )
    return (
        f"{nothing}. To explore more tasks in this run: rro explore {folder} --iteration "
        f"{iteration} --tasks {min(2 * explored, len(choices.all_tasks))}, then "
        f"rro run --resume {folder}"
    )


def _check_unused(run: Run, iteration: int) -> None:
    """Raises UsageError where training would put other weights behind journalled figures. One that
    is done comes here only to make its damaged weights again, from the same rows."""
    stage = optimise_stage(iteration) if iteration else "sft"
    if not run.is_done(stage) and run.has_acted(iteration):
        raise UsageError(
            f"{run.folder.path}: the weights {run.label(iteration)!r} have explored or been "
            "evaluated in this run, and training now would put other weights behind those figures: "
            "start a new run with another --out"
        )
