"""The whole path: experts -> SFT -> (explore -> optimise) x iterations -> evaluate. Each stage
alone, or all in a row.

A stage that the journal calls done is not run again; a stage that was cut off continues from what
it has journalled (exploration, evaluation) or from its last checkpoint (training)."""

from __future__ import annotations

import asyncio
import json
import logging
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rro.concurrency import contained
from rro.config import BudgetConfig
from rro.errors import RroError, UsageError, describe, place_of
from rro.evaluation.evaluate import evaluate
from rro.evaluation.results import collect_results
from rro.exploration import explorer
from rro.exploration.budget import Budget
from rro.exploration.metrics import RunningFigures
from rro.exploration.records import read_trees
from rro.exploration.strategies.fixed_size import FixedSizeExploration
from rro.exploration.tree import Tree
from rro.learning.base import REPORT_FILE
from rro.learning.credit.base import Credit
from rro.learning.pairs import read_pairs, to_row, write_pairs
from rro.learning.sft import Sft
from rro.pipeline.choices import Choices
from rro.pipeline.contexts import exploration_context, spent, training_context
from rro.pipeline.run import Run
from rro.pipeline.weights import Policies, make_base, weights_after
from rro.policies.base import Policy
from rro.processes import rank, world_size
from rro.runs.progress import Progress
from rro.runs.trackers import tracked_training, tracking
from rro.types import Task

log = logging.getLogger(__name__)


class NothingToLearn(RroError):
    """An iteration's trees gave its learner nothing. `results` are those of the policies before it,
    where they have been evaluated."""

    results: dict[str, Any] | None = None


def run_all(run: Run) -> dict[str, Any]:
    """Every stage in order; returns the results, which are also in results.json.

    Raises NothingToLearn where an iteration gives nothing to learn from, after the evaluation of
    the policies that there are."""
    sft(run)
    try:
        for iteration in range(1, run.config.iterations + 1):
            explore(run, iteration)
            optimise(run, iteration)
    except NothingToLearn as error:
        error.results = evaluate_run(run)
        raise
    return evaluate_run(run)


def sft(run: Run) -> None:
    """Stage 1: fine-tune on expert trajectories, loss on the assistant's tokens alone -> pi_ref."""

    def work() -> dict[str, Any]:
        conversations = run.demonstrations()
        start = make_base(run, conversations)
        output = run.folder.checkpoint("sft")
        report = (
            _trained(output)
            or Sft(run.config.sft)
            .train(conversations, start, None, output, training_context(run))
            .record()
        )
        return {"conversations": len(conversations), "training": report}

    _stage(run, "sft", work)


def explore(
    run: Run, iteration: int, limits: BudgetConfig | None = None, tasks: int | None = None
) -> None:
    """Stage 2: grow every train task's tree with the current policy, and export the preference
    pairs. `limits` takes the place of the recipe's budget.

    `tasks` extends an exploration that is done to so many tasks; what is there stays. Raises
    UsageError where it has as many already, or where its policy has been trained."""
    limits, name = limits or run.config.explore.budget, f"explore-{iteration}"
    if tasks is not None:
        name = _extension(run, iteration, tasks)

    def work() -> dict[str, Any]:
        _single_process("explore")
        choices = Choices(run)
        credit, wanted = choices.credit(iteration), _tasks(run, choices, iteration, tasks)
        budget, failed = _grow_trees(run, choices, iteration, limits, wanted)
        keys = _explored(run, wanted, iteration)
        if failed and not keys:
            raise RroError(
                f"every task failed ({_by_kind(failed.values())}): fix the cause of the warnings "
                "above, then resume the run"
            )
        if failed:
            kinds = _by_kind(failed.values())
            log.warning(
                "%d of %d tasks failed and are missing (%s)", len(failed), len(wanted), kinds
            )
        if budget.exhausted:
            log.info(
                "the budget of %s is spent; %d of %d tasks were explored",
                budget.exhausted,
                len(keys),
                len(wanted),
            )
        rows = _export(run, credit, keys, iteration)
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

    _stage(run, name, work)


def _extension(run: Run, iteration: int, tasks: int) -> str:
    """The name of the stage that extends an exploration to so many tasks."""
    if run.is_done(f"optimise-{iteration}"):
        raise UsageError(
            f"{run.folder.path}: iteration {iteration} has been trained on its pairs "
            "already; start a new run to explore more tasks"
        )
    if not run.is_done(f"explore-{iteration}"):
        raise UsageError(
            f"{run.folder.path}: nothing is explored yet that --tasks could extend; leave it out"
        )
    return f"explore-{iteration}-to-{tasks}"


def _tasks(run: Run, choices: Choices, iteration: int, tasks: int | None = None) -> Sequence[Task]:
    """The tasks of an iteration's exploration: those of the recipe, or of its last extension."""
    prefix = f"explore-{iteration}-to-"
    stages = (str(record["key"]) for record in run.journal.records("stage", prefix))
    counts = [int(stage.removeprefix(prefix)) for stage in stages]
    most = max([*counts, tasks or 0])
    return choices.tasks if not most else choices.all_tasks[: max(most, len(choices.tasks))]


def _grow_trees(
    run: Run, choices: Choices, iteration: int, limits: BudgetConfig, tasks: Sequence[Task]
) -> tuple[Budget, dict[str, str]]:
    """Explore the tasks that the journal does not hold yet; returns the budget and the failed
    tasks, each with the class of its error."""
    config, strategy, credit = run.config, choices.strategy, choices.credit(iteration)
    stage, acting = f"explore-{iteration}", run.folder.trained(iteration - 1)
    with (
        closing(
            Policies(run, acting, stage, frozen_pricer=config.explore.pricing == "sft")
        ) as policies,
        Progress(f"explore {iteration}", len(tasks), "tasks") as progress,
        tracking(config.report_to, run.folder.path, _tracked_name(run, stage)) as track,
        run.folder.pairs_so_far(iteration).open("w", encoding="utf-8") as so_far,
    ):
        budget = Budget(limits, spent(run, iteration), progress.spend)
        context = exploration_context(run, policies.explorer, policies.pricer, iteration, strategy)
        figures = RunningFigures(track)

        def observe(tree: Tree) -> str:
            rows = _credited(credit, tree)
            if credit.gives == "pairs":
                so_far.writelines(json.dumps(to_row(pair)) + "\n" for pair in rows)
                so_far.flush()
            figures.add(tree, len(rows))
            return f"{figures.pairs} {credit.gives}"

        context = replace(context, budget=budget)
        concurrency = config.explore.concurrency
        failed = asyncio.run(
            explorer.explore(tasks, strategy, context, concurrency, progress, observe)
        )
    return budget, failed


def _explored(run: Run, tasks: Sequence[Task], iteration: int) -> list[tuple[str, Task]]:
    """The journal's keys of the tasks whose trees are finished, in the order of the tasks."""
    keys = [(f"{iteration}/{task.id}", task) for task in tasks]
    return [(key, task) for key, task in keys if ("task", key) in run.journal]


def _export(run: Run, credit: Credit, keys: Sequence[tuple[str, Task]], iteration: int) -> int:
    """Count the credit's rows; pairs are written to the run folder, too."""
    rows = (row for tree in read_trees(run.journal, keys) for row in _credited(credit, tree))
    if credit.gives == "pairs":
        return write_pairs((to_row(pair) for pair in rows), run.folder.pairs(iteration))
    return sum(1 for _ in rows)


def _credited(credit: Credit, tree: Tree) -> Sequence[Any]:
    """What a tree gives. Raises RroError where the credit fails: without its rows a training would
    not be what the recipe says."""
    try:
        with contained():
            return credit.rows(tree)
    except RroError:
        raise
    except Exception as error:
        raise RroError(
            f"the credit of task {tree.task.id} failed: {describe(error)}{place_of(error)}; fix "
            "it, then resume the run"
        ) from error


def _by_kind(kinds: Iterable[str]) -> str:
    """Failures, counted: "TimeoutError 3, SystemExit 1"."""
    return ", ".join(f"{kind} {count}" for kind, count in Counter(kinds).most_common())


def optimise(run: Run, iteration: int) -> None:
    """Stage 3: what the trees gave teaches the policy: DPO of the pairs against pi_ref, the SFT
    policy, or whatever learner the recipe names."""

    def work() -> dict[str, Any]:
        label = run.folder.trained(iteration)
        previous, output = weights_after(run, iteration - 1), run.folder.checkpoint(label)
        choices = Choices(run)
        learner, rows = choices.learner, _rows(run, choices, iteration)
        reference, context = weights_after(run, 0), training_context(run, iteration)
        report = _trained(output) or (
            learner.train(rows, previous, reference, output, context).record()
        )
        capped = report["rows"].get("capped", 0)
        left_out = {"pairs_left_out": capped} if learner.takes == "pairs" else {}
        return {learner.takes: len(rows) - capped, **left_out, "training": report}

    _stage(run, f"optimise-{iteration}", work)


def _rows(run: Run, choices: Choices, iteration: int) -> list[Any]:
    """What an iteration gave its learner. Raises RroError where that is nothing."""
    credit = choices.credit(iteration)
    if credit.gives == "pairs":
        rows: list[Any] = list(read_pairs(run.folder.pairs(iteration)))
    else:
        keys = _explored(run, _tasks(run, choices, iteration), iteration)
        trees = read_trees(run.journal, keys)
        rows = [row for tree in trees for row in _credited(credit, tree)]
    if not rows:
        raise NothingToLearn(_how_to_go_on(run, choices, iteration, credit.gives))
    return rows


def _how_to_go_on(run: Run, choices: Choices, iteration: int, gives: str) -> str:
    explored, folder = len(_tasks(run, choices, iteration)), shlex.quote(str(run.folder.path))
    nothing = f"iteration {iteration} gave no {gives} to learn from"
    if explored >= len(choices.all_tasks):
        return (
            f"{nothing}, and no train task is left to explore: start a new run with a higher "
            "policy.temperature, or with fewer sft.epochs"
        )
    return (
        f"{nothing}. To explore more tasks in this run: rro explore {folder} --iteration "
        f"{iteration} --tasks {min(2 * explored, len(choices.all_tasks))}, then "
        f"rro run --resume {folder}"
    )


def evaluate_run(run: Run, labels: Sequence[str] | None = None) -> dict[str, Any]:
    """Evaluate the SFT policy and that of each iteration (or `labels`) on the test tasks; writes
    and returns the results."""
    labels = labels or [run.folder.trained(i) for i in range(_last_iteration(run) + 1)]
    for label in labels:
        if run.is_done(f"evaluate-{label}") and _missing(run, label):
            _evaluate_policy(run, label)  # its time is not counted twice
        _stage(run, f"evaluate-{label}", lambda label=label: _evaluate_policy(run, label))  # type: ignore[misc]
    expected = {mode: len(run.test_tasks) * episodes for mode, _, episodes in run.modes()}
    results = collect_results(run.journal, run.config, run.benchmark, labels, expected)
    run.folder.write_results(results)
    with tracking(run.config.report_to, run.folder.path, _tracked_name(run, "evaluate")) as track:
        for row in results["evaluations"]:
            figures = {
                f"evaluate/{row['mode']}/{name}": row[name]["mean"]
                for name in ("reward", "success")
            }
            track(figures, list(labels).index(row["label"]))
    return results


# -- below: what the stages share


def _stage(run: Run, name: str, work: Callable[[], dict[str, Any]]) -> None:
    if run.is_done(name):
        missing = (run.journal.get("stage", name) or {}).get("failed_tasks")
        said = f"; {missing} tasks failed then and are missing" if missing else ""
        log.info("%s: done before%s", name, said)
        return
    begun = time.perf_counter()
    tracked = tracked_training(run.config.report_to, run.folder.path, _tracked_name(run, name))
    with tracked, contained():
        record = work()
    if rank() == 0:
        run.journal.append("stage", name, {"seconds": time.perf_counter() - begun, **record})


def _tracked_name(run: Run, stage: str) -> str:
    return f"{run.config.name}-{stage}"


def _single_process(stage: str) -> None:
    if world_size() > 1:
        raise UsageError(
            f"{stage} runs in one process: use accelerate launch for rro sft and rro optimise alone"
        )


def _last_iteration(run: Run) -> int:
    done = [i for i in range(1, run.config.iterations + 1) if run.is_done(f"optimise-{i}")]
    return max(done, default=0)


def _evaluate_policy(run: Run, label: str) -> dict[str, Any]:
    _single_process("evaluate")
    config = run.config.evaluate
    with closing(Policies(run, label, f"evaluate-{label}")) as policies:
        policy = policies.explorer
        for mode, params, episodes in run.modes():
            expected = len(run.test_tasks) * episodes
            with Progress(f"evaluate {label} ({mode})", expected, "episodes") as progress:
                failed = asyncio.run(
                    evaluate(
                        run.test_tasks,
                        run.benchmark,
                        policy,
                        run.journal,
                        label=label,
                        mode=mode,
                        episodes=episodes,
                        params=params,
                        limits=run.limits,
                        seed=run.config.seed,
                        concurrency=config.concurrency,
                        progress=progress,
                    )
                )
            if failed:
                log.warning(
                    "evaluate %s (%s): %d of %d episodes failed and are missing (%s)",
                    label,
                    mode,
                    failed.total(),
                    expected,
                    _by_kind(failed.elements()),
                )
        return _trend(run, label, policy) if config.trend_tasks else {}


def _missing(run: Run, label: str) -> bool:
    """Whether episodes of a finished evaluation failed."""
    return any(
        sum(1 for _ in run.journal.records("evaluation", f"{label}/{mode}/"))
        < len(run.test_tasks) * episodes
        for mode, _, episodes in run.modes()
    )


def _trend(run: Run, label: str, policy: Policy) -> dict[str, Any]:
    """The share of rising steps by stage along the policy's own trajectories: one candidate a step,
    each estimated."""
    config = run.config.evaluate
    tasks = run.test_tasks[: config.trend_tasks]
    strategy = FixedSizeExploration(config.trend_rollouts, candidates=1, estimate_start=True)
    context = replace(
        exploration_context(run, policy, policy, 0, strategy), namespace=f"trend-{label}"
    )
    with Progress(f"trend {label}", len(tasks), "tasks") as progress:
        context = replace(context, budget=Budget(observe=progress.spend))
        asyncio.run(explorer.explore(tasks, strategy, context, config.concurrency, progress))
    keys = [(context.key(task), task) for task in tasks]
    summary = explorer.summarise(read_trees(run.journal, keys))
    return {"rising_share_by_stage": summary.rising, "trend_tasks": summary.tasks}


def _trained(output: Path) -> dict[str, Any] | None:
    """The report of a training that finished just before a crash kept its stage from being
    journalled."""
    report = output / REPORT_FILE
    return json.loads(report.read_text(encoding="utf-8")) if report.is_file() else None
