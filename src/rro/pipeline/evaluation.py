"""The evaluation of a run's policies on the test or validation tasks, and the run's results."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

from rro.errors import counted
from rro.evaluation.evaluate import evaluate
from rro.evaluation.results import EPISODES, collect_results, keep_scale
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
from rro.types import Task

log = logging.getLogger(__name__)

WORDS = {"test": "evaluate", "validation": "validate"}
"""What the evaluation on a split is called: its stages, progress and tracked figures."""


def evaluate_run(
    run: Run, labels: Sequence[str] | None = None, split: str = "test"
) -> dict[str, Any]:
    """Evaluate the SFT policy and that of each iteration (or `labels`) on the tasks of a split,
    "test" or "validation"; writes and returns the results."""
    labels, word = labels or labels_to_evaluate(run), WORDS[split]
    for label in labels:
        stage, work = f"{word}-{label}", partial(_evaluate_policy, run, label, split)
        if run.is_done(stage) and misses_episodes(run, label, split):
            work()  # its time is not counted twice
        run_stage(run, stage, work)
    expected = {mode: len(_tasks(run, split)) * episodes for mode, _, episodes in run.modes()}
    results = collect_results(run.journal, run.config, run.benchmark, labels, expected, split)
    run.folder.write_results(results)
    with tracking(run.config.report_to, run.folder.path, tracked_name(run, word)) as track:
        for row in results["evaluations"]:
            figures = {
                f"{word}/{row['mode']}/{name}": row[name]["mean"] for name in ("reward", "success")
            }
            track(figures, list(labels).index(row["label"]))
    return results


def _tasks(run: Run, split: str) -> Sequence[Task]:
    return run.test_tasks if split == "test" else run.validation_tasks


def _evaluate_policy(run: Run, label: str, split: str) -> dict[str, Any]:
    single_process("evaluate")
    config, word, tasks = run.config.evaluate, WORDS[split], _tasks(run, split)
    keep_scale(run.journal, run.benchmark)
    with closing(Policies(run, label, f"{word}-{label}")) as policies:
        policy = policies.explorer
        for mode, params, episodes in run.modes():
            expected = len(tasks) * episodes
            with Progress(f"{word} {label} ({mode})", expected, "episodes") as progress:
                failed = asyncio.run(
                    evaluate(
                        tasks,
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
                        kind=EPISODES[split],
                    )
                )
            if failed:
                log.warning(
                    "%s %s (%s): %d of %s failed, counted as missing (%s)",
                    word,
                    label,
                    mode,
                    failed.total(),
                    counted(expected, "episodes"),
                    by_kind(failed.elements()),
                )
        return _trend(run, label, policy) if config.trend_tasks and split == "test" else {}


def misses_episodes(run: Run, label: str, split: str) -> bool:
    """Whether episodes of a finished evaluation failed."""
    return any(
        sum(1 for _ in run.journal.records(EPISODES[split], f"{label}/{mode}/"))
        < len(_tasks(run, split)) * episodes
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
