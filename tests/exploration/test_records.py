"""A tree that is read from the journal is the tree that was explored."""

import asyncio
import itertools
import json
from dataclasses import replace

import pytest
from fakes import (
    Counted,
    ForkableTreeEnvironment,
    Overflowing,
    TreeBenchmark,
    TreeEnvironment,
    folded,
    fresh_journal,
    make_context,
    pairs_of,
    uniform,
)
from strategy_toys import BY_NAME, FOREST, STRATEGIES, FaultyByReplay, FaultyForkable

from rro.config import BudgetConfig
from rro.errors import DataError
from rro.exploration import explorer
from rro.exploration.budget import Budget
from rro.exploration.records import TaskRecords, build_tree, read_tree
from rro.exploration.strategies.adaptive import AdaptiveExploration
from rro.exploration.strategies.rising import RisingExploration
from rro.learning.pairs import to_row
from rro.runs.progress import Progress
from rro.types import StopReason, Task


def explored(journal, strategy, benchmark, policy, **changes):
    """The live trees by the key of their record."""
    context, live = make_context(benchmark, policy, journal, **changes), {}

    def observe(tree):
        live[context.key(tree.task)] = tree

    with Progress("explore", None, "tasks") as progress:
        tasks = benchmark.tasks()
        asyncio.run(explorer.explore(tasks, strategy, context, 4, progress, observe))
    return live


def run_fields(trajectory):
    """All of a trajectory; of a failed one, which has no record, all but its steps."""
    failed = trajectory.stop is StopReason.FAILED
    return (trajectory.error, trajectory.usage) if failed else trajectory


def suffix_fields(suffix):
    return suffix and (suffix.rollout, suffix.reward, suffix.start, suffix.began_at, suffix.number)


def node_fields(node):
    """All of a node but its parent and the environment's states."""
    return {
        "id": node.id,
        "parent": node.parent and node.parent.id,
        "opening": node.opening,
        "step": node.step,
        "policy": node.policy,
        "reward": node.reward,
        "stop": node.stop,
        "estimate": node.estimate,
        "logprobs": node.logprobs,
        "rollouts": {number: run_fields(run) for number, run in node.rollouts.items()},
        "inherited": list(map(suffix_fields, node.inherited)),
        "origin": suffix_fields(node.origin),
        "committed": (node.committed, node.rose, node.recycled),
        "usage": replace(node.usage, seconds=0.0),
    }


def assert_same(live, read):
    for one, other in itertools.zip_longest(live.root.walk(), read.root.walk()):
        assert node_fields(one) == node_fields(other)
        assert one.usage.seconds == pytest.approx(other.usage.seconds)
    assert {n: run_fields(run) for n, run in live.episodes.items()} == {
        n: run_fields(run) for n, run in read.episodes.items()
    }
    assert sorted(live.overflowed) == read.overflowed


def rows(strategy, tree):
    """All that is made of a tree."""
    pairs = [to_row(pair) for pair in pairs_of(strategy, tree, 3)]
    return pairs, strategy.demonstrations(tree), tree.candidates_per_step()


def check(strategy, journal, live):
    for key, tree in live.items():
        read = read_tree(journal, key, tree.task)
        assert_same(tree, read)
        assert rows(strategy, read) == rows(strategy, tree)


@pytest.mark.parametrize(
    "environment", [TreeEnvironment, ForkableTreeEnvironment, FaultyByReplay, FaultyForkable]
)
@pytest.mark.parametrize("strategy", STRATEGIES, ids=BY_NAME)
def test_a_tree_read_from_the_journal_is_the_one_that_was_explored(tmp_path, strategy, environment):
    """Also where some rollouts and episodes failed for good."""
    faulty = environment in (FaultyByReplay, FaultyForkable)

    def fails(calls, seed):
        if faulty and seed % 23 == 0:
            raise TimeoutError("no answer")

    with fresh_journal(tmp_path) as journal:
        policy, benchmark = Counted(uniform(), fails), TreeBenchmark(FOREST, environment)
        live = explored(journal, strategy, benchmark, policy)
        assert live
        check(strategy, journal, live)
    assert any(rows(strategy, tree)[:2] != ([], []) for tree in live.values())


@pytest.mark.parametrize("strategy", STRATEGIES, ids=BY_NAME)
def test_so_is_one_that_a_budget_or_a_full_context_ended(tmp_path, strategy):
    benchmark, policy = TreeBenchmark(FOREST, truncated=0.3), Counted(uniform())
    with fresh_journal(tmp_path, "whole") as journal:
        explored(journal, strategy, benchmark, policy)
    with fresh_journal(tmp_path) as journal:
        budget = Budget(BudgetConfig(policy_calls=policy.calls // 2))
        cut = explored(journal, strategy, benchmark, Counted(uniform()), budget=budget)
        check(strategy, journal, cut)
        full = explored(journal, strategy, benchmark, Overflowing(uniform(), 3), iteration=1)
        check(strategy, journal, full)
    assert len(cut) < len(FOREST)
    assert full


def test_rollouts_that_another_setting_left_are_no_part_of_it(tmp_path):
    """A run that is started again with fewer rollouts uses those that are there."""
    benchmark = TreeBenchmark({"t": FOREST["task/0"]})
    with fresh_journal(tmp_path, "more") as journal:
        explored(journal, folded(RisingExploration(5, 2)), benchmark, uniform())
    lines = (tmp_path / "more").read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith('{"kind":"task"')]
    (tmp_path / "fewer").write_text("".join(kept))
    strategy = folded(RisingExploration(2, 2))
    with fresh_journal(tmp_path, "fewer") as journal:
        live = explored(journal, strategy, benchmark, uniform())
        check(strategy, journal, live)


def test_a_task_under_way_has_the_tree_so_far(tmp_path):
    """Before its own record, each node, rollout and cost is there, with estimates of its own."""
    for strategy in (folded(RisingExploration(2, 3)), folded(AdaptiveExploration())):
        records, key = TaskRecords(), "0/task/0"
        with fresh_journal(tmp_path, strategy.name) as journal:
            benchmark = TreeBenchmark({"task/0": FOREST["task/0"]})
            live = explored(journal, strategy, benchmark, uniform())[key]
            names = journal.keys()
            for kind, name in names:
                if kind in ("candidate", "rollout", "episode"):
                    records.add(kind, name.removeprefix(f"{key}/"), journal.get(kind, name))
        tree = build_tree(records, live.task, journal.path)
        known = {node.id: node for node in tree.root.walk()}
        grown = {node.id: node for node in live.root.walk()}
        assert known.keys() <= grown.keys()
        assert {node.id for node in grown.values() if node.rollouts} <= known.keys()
        for name, node in known.items():
            assert node.step == grown[name].step
            assert node.rollouts.keys() == grown[name].rollouts.keys()
            assert not node.committed
        assert known["0"].estimate == grown["0"].estimate
        assert tree.usage().policy_calls == live.usage().policy_calls


def test_records_that_do_not_fit_together_are_refused(tmp_path):
    with fresh_journal(tmp_path) as journal:
        explored(
            journal, RisingExploration(2, 2), TreeBenchmark({"t": FOREST["task/0"]}), uniform()
        )
        path = journal.path
    lines = path.read_text().splitlines(keepends=True)
    gone = next(line for line in lines if json.loads(line)["kind"] == "candidate")
    path.write_text("".join(line for line in lines if line != gone))
    with fresh_journal(tmp_path) as journal:
        with pytest.raises(DataError, match=r"journal\.jsonl: the records of task 't' do not fit"):
            read_tree(journal, "0/t", Task("t"))
        assert read_tree(journal, "0/other", Task("other")) is None
