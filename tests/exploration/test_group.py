"""Groups of episodes, forks where their outcomes disagree, and both read back."""

import asyncio

import pytest
from fakes import (
    ForkableTreeEnvironment,
    TreeBenchmark,
    TreeEnvironment,
    explore,
    fresh_journal,
    grow,
    make_context,
    uniform,
)

from rro.errors import UsageError
from rro.exploration.records import read_tree
from rro.exploration.sampler import Sampler
from rro.exploration.strategies.base import StrategyContext
from rro.exploration.strategies.group import Group
from rro.exploration.visits import played_rollouts
from rro.learning.credit.anchor_advantages import AnchorAdvantages
from rro.learning.credit.base import CreditContext
from rro.types import Task

TREE = {"a": {"x": 0.0, "y": {"p": 1.0, "q": 0.0}}, "b": {"x": 0.0, "y": 0.0}}
SOLVED = StrategyContext(success_reward=1.0)


def benchmark(kind=ForkableTreeEnvironment):
    return TreeBenchmark({"t": TREE}, environment=kind)


def rows(tree):
    return AnchorAdvantages(context=CreditContext()).rows(tree)


@pytest.mark.parametrize("kind", [ForkableTreeEnvironment, TreeEnvironment])
def test_a_group_has_so_many_episodes_from_the_start(tmp_path, kind):
    with fresh_journal(tmp_path) as journal:
        tree = grow(Group(episodes=5), make_context(benchmark(kind), uniform(), journal))
    played = played_rollouts(tree)
    assert len(played) == 5
    assert {each.states[0] for each in played} == {played[0].states[0]}


def outcomes(folder, seed, **options):
    with fresh_journal(folder, f"{seed}-{len(options)}.jsonl") as journal:
        context = make_context(benchmark(), uniform(), journal, seed=seed)
        tree = grow(Group(**options, context=SOLVED), context)
    return [each.outcome for each in played_rollouts(tree)]


def test_a_group_can_end_with_the_first_outcomes_that_disagree(tmp_path):
    lengths = set()
    for seed in range(12):
        full = outcomes(tmp_path, seed, episodes=8)
        found = outcomes(tmp_path, seed, episodes=8, until="disagree")
        assert found == full[: len(found)]
        assert len(set(found[:-1])) == 1
        assert len(set(found)) == 2 or len(found) == 8
        lengths.add(len(found))
    assert len(lengths) > 2


def test_a_group_can_end_with_its_first_success(tmp_path):
    lengths = set()
    for seed in range(12):
        full = outcomes(tmp_path, seed, episodes=8)
        found = outcomes(tmp_path, seed, episodes=8, until="success")
        assert found == full[: len(found)]
        assert max(found[:-1], default=0) == 0
        assert found[-1] == 1 or len(found) == 8
        lengths.add(len(found))
    assert len(lengths) > 2


@pytest.mark.parametrize("kind", [ForkableTreeEnvironment, TreeEnvironment])
def test_forks_start_only_where_outcomes_disagree(tmp_path, kind):
    strategy = Group(episodes=16, waves=2, forks=2, context=SOLVED)
    with fresh_journal(tmp_path) as journal:
        tree = grow(strategy, make_context(benchmark(kind), uniform(), journal))
    forks = [each for each in played_rollouts(tree) if each.node.depth > 0]
    assert 2 <= len(played_rollouts(tree)) - 16 <= 4
    # Nothing succeeds after b.
    assert all(each.node.path()[0].action.content == "a" for each in forks)


def test_forks_can_be_kept_to_a_depth(tmp_path):
    strategy = Group(episodes=16, waves=1, forks=3, min_depth=2, context=SOLVED)
    with fresh_journal(tmp_path) as journal:
        tree = grow(strategy, make_context(benchmark(), uniform(), journal))
    forks = played_rollouts(tree)[16:]
    assert {each.node.depth for each in played_rollouts(tree) if each.node.depth} <= {2}
    assert len(forks) <= 3


def test_a_solved_task_is_not_forked_where_only_unsolved_ones_are(tmp_path):
    easy = TreeBenchmark({"t": {"a": 1.0, "b": 1.0}}, environment=ForkableTreeEnvironment)
    strategy = Group(episodes=4, waves=3, fork_when="unsolved", context=SOLVED)
    with fresh_journal(tmp_path) as journal:
        tree = grow(strategy, make_context(easy, uniform(), journal))
    assert len(played_rollouts(tree)) == 4


@pytest.mark.parametrize("kind", [ForkableTreeEnvironment, TreeEnvironment])
def test_a_group_is_read_back_with_its_states_and_advantages(tmp_path, kind):
    strategy = Group(episodes=8, waves=2, context=SOLVED)
    with fresh_journal(tmp_path) as journal:
        context = make_context(benchmark(kind), uniform(), journal)
        assert not explore(strategy, context)
        again = read_tree(journal, context.key(Task("t", TREE)), Task("t", TREE))
    assert again is not None
    with fresh_journal(tmp_path, "other.jsonl") as journal:
        live = grow(strategy, make_context(benchmark(kind), uniform(), journal))
    assert rows(again) == rows(live)


def test_a_resumed_group_forks_at_the_same_places(tmp_path):
    strategy = Group(episodes=8, waves=2, context=SOLVED)
    with fresh_journal(tmp_path, "whole.jsonl") as journal:
        whole = grow(strategy, make_context(benchmark(), uniform(), journal))
    with fresh_journal(tmp_path) as journal:
        context = make_context(benchmark(), uniform(), journal)
        grow(Group(episodes=8), context)
        resumed = grow(strategy, context)
    assert rows(resumed) == rows(whole)


def test_states_are_named_alike_in_every_order_of_a_set():
    from rro.exploration.forks import state_name

    assert state_name((1, frozenset("abc"))) == state_name((1, frozenset("cab")))
    assert state_name((1, frozenset("abc"))) != state_name((1, frozenset("abd")))
    assert state_name(None) == ""


def test_the_root_keeps_its_state(tmp_path):
    with fresh_journal(tmp_path) as journal:
        sampler = Sampler(make_context(benchmark(), uniform(), journal), Task("t", TREE))
        asyncio.run(sampler.start())
        assert sampler.tree.root.state


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"context": StrategyContext(one_policy=False)}, "leave out explore.pricing"),
        ({"min_depth": 3, "max_depth": 1}, "max_depth = 1 is below min_depth = 3"),
    ],
)
def test_a_group_that_could_not_teach_its_policy_is_refused(options, problem):
    with pytest.raises(UsageError, match=problem):
        Group(**options)
