"""The evaluation of a run's policies on the test tasks, and the run's results."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from rro.evaluation.evaluate import evaluate
from rro.evaluation.results import collect_results
from rro.exploration import explorer
from rro.exploration.budget import Budget
from rro.exploration.records import read_trees
from rro.exploration.strategies.fixed_size import FixedSizeExploration
from rro.pipeline.contexts import exploration_context
from rro.pipeline.rounds import labels_to_evaluate
from rro.pipeline.run import Run
from rro.pipeline.stage import by_kind, run_stage, single_process, tracked_name
from rro.pipeline.weights import Policies
from rro.policies.base import Policy
from rro.runs.progress import Progress
from rro.runs.trackers import tracking

log = logging.getLogger(__name__)


def evaluate_run(run: Run, labels: Sequence[str] | None = None) -> dict[str, Any]:
    """Evaluate the SFT policy and that of each iteration (or `labels`) on the test tasks; writes
    and returns the results."""
    labels = labels or labels_to_evaluate(run)
    for label in labels:
        if run.is_done(f"evaluate-{label}") and _missing(run, label):
            _evaluate_policy(run, label)  # its time is not counted twice
        run_stage(run, f"evaluate-{label}", lambda label=label: _evaluate_policy(run, label))  # type: ignore[misc]
    expected = {mode: len(run.test_tasks) * episodes for mode, _, episodes in run.modes()}
    results = collect_results(run.journal, run.config, run.benchmark, labels, expected)
    run.folder.write_results(results)
    with tracking(run.config.report_to, run.folder.path, tracked_name(run, "evaluate")) as track:
        for row in results["evaluations"]:
            figures = {
                f"evaluate/{row['mode']}/{name}": row[name]["mean"]
                for name in ("reward", "success")
            }
            track(figures, list(labels).index(row["label"]))
    return results


def _evaluate_policy(run: Run, label: str) -> dict[str, Any]:
    single_process("evaluate")
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
                    by_kind(failed.elements()),
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
