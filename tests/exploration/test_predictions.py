"""A process reward model in place of rollouts, and beside them."""

import pytest
from fakes import (
    Counted,
    ForkableTreeEnvironment,
    TreeBenchmark,
    fresh_journal,
    grow,
    make_context,
    uniform,
)

from rro.exploration.budget import Budget
from rro.exploration.records import read_tree, tree_record
from rro.exploration.strategies.fixed_size import FixedSizeExploration
from rro.exploration.strategies.rising import RisingExploration
from rro.runs.journal import Journal
from rro.types import ProcessReward, Task, Usage

TREE = {"a": {"x": 0.2, "y": {"p": 0.9, "q": 0.1}}, "b": {"x": 0.6, "y": 0.5}}
KNOWN = {"a": 0.4, "b": 0.55, "y": 0.5}


class Table:
    """Says what a table has; counts how often it is asked."""

    name = "prm table"

    def __init__(self, weight=3.0, beside=False):
        self.weight, self.beside, self.asked = weight, beside, 0

    async def value(self, messages):
        self.asked += 1
        return KNOWN[messages[-1].content], Usage(prompt_tokens=10)


def explored(folder, predictor, strategy=None, **changes):
    benchmark = TreeBenchmark({"t": TREE}, ForkableTreeEnvironment)
    policy = Counted(uniform())
    strategy = strategy or RisingExploration(2, 3)
    with fresh_journal(folder) as journal:
        tree = grow(
            strategy, make_context(benchmark, policy, journal, predictor=predictor, **changes)
        )
        journal.append("task", "0/t", tree_record(tree, "rro", False, 1.0))
        again = read_tree(journal, "0/t", Task("t"))
    return tree, again, policy


def test_alone_it_takes_the_place_of_all_rollouts_but_those_of_the_start(tmp_path):
    spent = []
    tree, _, policy = explored(tmp_path, table := Table(), budget=Budget(observe=spent.append))
    for node in tree.root.walk():
        if node.parent is not None:
            assert not node.rollouts
            expected = node.reward if node.stop else KNOWN[node.action.content]
            assert node.estimate.mean == expected
            assert node.stop or node.estimate.policy == "prm table"
    assert tree.root.rollouts
    drawn = [node for node in tree.root.walk() if node.parent is not None]
    assert table.asked < len(drawn)
    assert tree.usage().policy_calls == policy.calls
    asked = sum(node.predicted is not None for node in drawn)
    assert asked == table.asked


def test_beside_rollouts_it_counts_as_much_as_its_weight(tmp_path):
    tree, _, _ = explored(tmp_path, Table(weight=2.0, beside=True))
    estimated = [n for n in tree.root.walk() if n.parent is not None and n.stop is None]
    assert estimated
    for node in estimated:
        reward = node.estimate
        assert (reward.n, reward.weight) == (2, 2.0)
        expected = (2 * KNOWN[node.action.content] + sum(reward.outcomes)) / 4
        assert reward.mean == pytest.approx(expected)


@pytest.mark.parametrize("beside", [False, True])
def test_a_tree_is_read_back_and_a_resumed_one_asks_nothing_twice(tmp_path, beside):
    tree, again, _ = explored(tmp_path, Table(beside=beside), FixedSizeExploration(2, 2))
    for one, two in zip(tree.root.walk(), again.root.walk(), strict=True):
        assert (one.id, one.predicted, one.estimate) == (two.id, two.predicted, two.estimate)
    assert tree.usage() == again.usage()
    table = Table(beside=beside)
    benchmark = TreeBenchmark({"t": TREE}, ForkableTreeEnvironment)
    with Journal(tmp_path / "journal.jsonl") as journal:
        context = make_context(benchmark, uniform(), journal, predictor=table)
        resumed = grow(FixedSizeExploration(2, 2), context)
    assert table.asked == 0
    assert resumed.usage().prompt_tokens == tree.usage().prompt_tokens


def test_a_mixed_reward_has_the_mean_of_both():
    reward = ProcessReward((1.0, 0.0), "p", predicted=0.2, weight=2.0)
    assert reward.mean == pytest.approx((0.4 + 1.0) / 4)
    assert reward.n == 2
