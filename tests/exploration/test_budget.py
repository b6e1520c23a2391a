"""Budgets: kept to closely, whatever is in flight; what was explored by then is sound."""

import pytest
from fakes import (
    TREE,
    Counted,
    ForkableTreeEnvironment,
    TreeBenchmark,
    explore,
    finished_trees,
    fresh_journal,
    make_context,
    pairs_of,
    task_records,
    uniform,
)

from rro.cli.runs import parse_budget
from rro.config import BudgetConfig
from rro.errors import UsageError
from rro.exploration.budget import Budget, BudgetSpent
from rro.exploration.strategies.adaptive import AdaptiveExploration
from rro.exploration.strategies.fixed_size import FixedSizeExploration
from rro.exploration.strategies.rft import RejectionSampling
from rro.exploration.strategies.rising import RisingExploration
from rro.types import Usage

FOREST = {f"task/{number}": TREE for number in range(40)}


def run(folder, strategy, concurrency, **limits):
    """(policy calls really made, the budget, the task records, the trees) of an exploration within
    limits."""
    policy, budget = Counted(uniform()), Budget(BudgetConfig(**limits))
    with fresh_journal(folder, f"j{concurrency}{limits}") as journal:
        context = make_context(
            TreeBenchmark(FOREST, ForkableTreeEnvironment), policy, journal, budget=budget
        )
        assert explore(strategy, context, concurrency) == []
        return policy.calls, budget, task_records(journal), finished_trees(journal)


@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize(
    "strategy",
    [
        RisingExploration(3, 3),
        FixedSizeExploration(3, 3),
        RejectionSampling(4),
        AdaptiveExploration(),
    ],
    ids=lambda s: s.name,
)
def test_calls_stay_within_the_budget(tmp_path, strategy, concurrency):
    calls, budget, records, _ = run(tmp_path, strategy, concurrency, policy_calls=300)
    assert budget.exhausted == "policy_calls"
    assert 300 * 0.9 <= calls <= 300 * 1.15
    assert budget.spent.policy_calls == calls
    assert 0 < len(records) < len(FOREST)


def test_tasks_that_were_cut_keep_what_they_chose(tmp_path):
    strategy = RisingExploration(3, 3)
    whole = run(tmp_path, strategy, 8)[3]
    for calls in range(250, 330, 8):
        _, _, records, cut = run(tmp_path, strategy, 8, policy_calls=calls)
        if any(record["cut"] for record in records.values()):
            break
    else:
        pytest.fail("no budget cut a tree")
    for key, tree in cut.items():
        chosen = [(node.id, node.estimate, node.rose) for node in tree.committed()]
        assert chosen
        assert chosen == [
            (node.id, node.estimate, node.rose) for node in whole[key].committed()[: len(chosen)]
        ]
        assert pairs_of(strategy, tree, 0) == [
            pair for pair in pairs_of(strategy, whole[key], 0) if pair.step <= len(chosen)
        ]


def test_without_a_limit_nothing_is_cut(tmp_path):
    _, budget, records, _ = run(tmp_path, RisingExploration(2, 2), 4)
    assert (budget.exhausted, budget.share(), len(records)) == (None, None, len(FOREST))
    assert not any(record["cut"] for record in records.values())


def test_no_budget_at_all(tmp_path):
    assert run(tmp_path, RisingExploration(2, 2), 4, policy_calls=0)[0] == 0


def test_time_and_money_and_earlier_processes():
    budget = Budget(BudgetConfig(cost=1.0), Usage(cost=0.7))
    assert budget.share() == pytest.approx(0.7)
    with budget.reserve("rollout"):
        pass
    budget.spend("rollout", Usage(cost=0.2))
    with pytest.raises(BudgetSpent, match="cost"), budget.reserve("rollout"):
        pass
    with (
        pytest.raises(BudgetSpent, match="cost"),
        budget.reserve("candidate"),
    ):  # once over, it stays so
        pass
    with (
        pytest.raises(BudgetSpent, match="seconds"),
        Budget(BudgetConfig(seconds=0)).reserve("candidate"),
    ):
        pass


def test_thoughts_have_a_limit_of_their_own():
    budget = Budget(BudgetConfig(thought_tokens=100))
    for thought in (40, 40):
        with budget.reserve("rollout"):
            budget.spend("rollout", Usage(generated_tokens=900, thought_tokens=thought))
    assert budget.share() == 0.8
    with pytest.raises(BudgetSpent, match="thought_tokens"), budget.reserve("rollout"):
        pass


def test_the_command_line_reads_limits():
    assert parse_budget([]) is None
    assert parse_budget(["policy_calls=5_000", "cost=2.5"]) == BudgetConfig(
        policy_calls=5000, cost=2.5
    )
    for wrong in ("calls=5", "tokens=many", "tokens"):
        with pytest.raises(UsageError, match="--budget"):
            parse_budget([wrong])
