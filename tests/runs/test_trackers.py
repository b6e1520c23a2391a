"""Trackers: nothing unless asked for, a clear error for one that is missing, and the figures of an
exploration."""

import os
import sys

import pytest
from fakes import TreeBenchmark, finished_trees, fresh_journal, make_context, pairs_of
from report_toys import TREE, speaker

from rro.config import parse_config
from rro.errors import UsageError
from rro.exploration.explorer import summarise
from rro.exploration.metrics import RunningFigures
from rro.exploration.strategies.rising import RisingExploration
from rro.policies.scripted import ScriptedPolicy
from rro.runs.trackers import require, tracked_training, tracking


def test_a_tracker_that_is_not_installed_is_named_with_the_fix(monkeypatch):
    monkeypatch.setattr("rro.runs.trackers.find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match=r"report_to names trackio, which is not installed: pip install trackio"
    ):
        require(["trackio"])
    require([])


def test_an_unknown_tracker_is_refused():
    with pytest.raises(UsageError, match="report_to"):
        parse_config({"report_to": ["mlflow"]}, "recipe")


def test_without_trackers_nothing_is_imported_or_set(tmp_path):
    before, environment = set(sys.modules), dict(os.environ)
    with tracked_training([], tmp_path, "run"), tracking([], tmp_path, "run") as log:
        log({"a": 1.0}, 1)
        assert dict(os.environ) == environment
    assert set(sys.modules) == before
    assert list(tmp_path.iterdir()) == []


def test_training_is_told_where_to_write_and_the_users_environment_takes_precedence(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    with tracked_training(["tensorboard"], tmp_path, "run-sft"):
        assert os.environ["TENSORBOARD_LOGGING_DIR"] == str(tmp_path / "tensorboard" / "run-sft")
        assert os.environ["WANDB_PROJECT"] == "mine"
    assert "TENSORBOARD_LOGGING_DIR" not in os.environ
    assert os.environ["WANDB_PROJECT"] == "mine"


def test_the_figures_end_at_the_summary(tmp_path):
    """Explored in two parts, the second a resumed one: the first part counts too."""
    import asyncio

    from rro.exploration import explorer
    from rro.runs.progress import Progress

    benchmark = TreeBenchmark({f"task/{number}": TREE for number in range(8)})
    logged, strategy = [], RisingExploration(2, 3)
    with fresh_journal(tmp_path) as journal:
        context = make_context(benchmark, ScriptedPolicy(speaker, "p"), journal)
        for tasks in (benchmark.tasks()[:5], benchmark.tasks()):
            logged.clear()
            running = RunningFigures(lambda figures, step: logged.append((step, figures)))

            def watch(tree, running=running):
                running.add(tree, len(pairs_of(strategy, tree, 0)))

            with Progress("explore", len(tasks), "tasks") as progress:
                asyncio.run(explorer.explore(tasks, strategy, context, 3, progress, watch))
        trees = list(finished_trees(journal).values())
    summary, (step, figures) = summarise(trees), logged[-1]
    assert [number for number, _ in logged] == list(range(1, 9))
    assert step == summary.tasks
    assert figures["explore/pairs"] == sum(len(pairs_of(strategy, tree, 0)) for tree in trees)
    assert figures["explore/policy_calls"] == summary.usage.policy_calls
    assert figures["explore/candidates_per_step"] == summary.candidates_per_step
    ends = [tree.committed()[-1].estimate.mean for tree in trees]
    assert figures["explore/final_process_reward"] == pytest.approx(sum(ends) / len(ends))


def test_tensorboard_holds_what_was_logged(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tracking(["tensorboard"], tmp_path, "toy-explore-1") as log:
        for step in (1, 2):
            log({"explore/pairs": step * 3.0}, step)
    events = EventAccumulator(str(tmp_path / "tensorboard" / "toy-explore-1"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("explore/pairs")] == [
        (1, 3.0),
        (2, 6.0),
    ]
