"""Recycling, merging and budgets of the adaptive strategy, by hand on small trees."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import (
    TREE,
    Counted,
    ForkableTreeEnvironment,
    Overflowing,
    TreeBenchmark,
    TreeEnvironment,
    explore,
    finished_trees,
    folded,
    fresh_journal,
    grow,
    make_context,
    place,
    uniform,
)

from rro.config import CreditConfig, ExploreConfig, parse_options
from rro.errors import RestoreError, UsageError
from rro.exploration.sampler import TaskFailed
from rro.exploration.strategies.adaptive import AdaptiveExploration
from rro.exploration.strategies.base import StrategyContext
from rro.exploration.tree import RolloutSuffix
from rro.learning.credit.choosing import credit_of
from rro.learning.pairs import from_row, to_row
from rro.plugins import STRATEGIES
from rro.policies.scripted import ScriptedPolicy
from rro.types import StepResult, StopReason, Usage

sys.path.insert(0, str(Path(__file__).parents[2]))


EARLY = {"good": {"x": 1.0, "y": 1.0}, "bad": {"x": 0.0, "y": 0.0}}


def adaptive(siblings="lowest", reward_range=(0.0, 1.0), **options):
    context = StrategyContext(reward_range=reward_range)
    strategy = AdaptiveExploration(**options, context=context)
    return folded(strategy, reward_range=reward_range, siblings=siblings)


def grown(folder, strategy, tree=TREE, policy=None, environment=ForkableTreeEnvironment, **options):
    with fresh_journal(folder) as journal:
        benchmark = TreeBenchmark({"t": tree}, environment, **options)
        return grow(strategy, make_context(benchmark, policy or Counted(uniform()), journal))


def rollouts_of(tree):
    return [rollout for node in tree.root.walk() for rollout in node.rollouts.values()]


def taken(rollout):
    """The texts of a rollout's actions from the start of the task."""
    return [m.content for m in rollout.messages() if m.role == "assistant"]


@pytest.mark.parametrize("environment", [TreeEnvironment, ForkableTreeEnvironment])
def test_rollouts_supply_the_candidates_and_their_outcomes_at_no_cost(tmp_path, environment):
    policy = Counted(uniform())
    tree = grown(tmp_path, adaptive(draws=6), TREE, policy, environment)
    root = tree.root
    first_steps = [rollout.steps[0] for rollout in root.rollouts.values()]
    assert {child.action.content for child in root.children} == {
        step.action.content for step in first_steps
    }
    for child in root.children:
        through = [
            r.reward
            for _, r in sorted(root.rollouts.items())
            if r.steps[0].action.content == child.action.content
        ]
        assert [suffix.reward for suffix in child.inherited] == through
        assert [m.content for m in child.history()[len(root.opening) :]] == [
            child.action.content,
            child.step.observation,
        ]
        assert child.recycled
        if not child.rollouts:
            assert child.usage == Usage()
    assert tree.usage().policy_calls == policy.calls


def test_only_rollouts_from_here_or_above_price_a_node(tmp_path):
    tree = grown(tmp_path, adaptive(draws=7), {"a": TREE, "b": TREE})
    assert any(node.rollouts for node in tree.root.walk() if node.parent)
    for node in tree.root.walk():
        if node.estimate is None or node.estimate.exact:
            continue
        started = [
            rollout for place in [tree.root, *node.path()] for rollout in place.rollouts.values()
        ]
        steps = [step.action.content for step in (n.step for n in node.path())]
        through = [
            r.reward for r in started if r.reward is not None and taken(r)[: len(steps)] == steps
        ]
        assert sorted(node.estimate.outcomes) == sorted(through)


def test_an_end_is_exact_and_never_rolled_out(tmp_path):
    tree = grown(tmp_path, adaptive(), {"win": 1.0, "lose": 0.0})
    assert {child.estimate.mean: child.estimate.exact for child in tree.root.children} == {
        1.0: True,
        0.0: True,
    }
    (pair,) = adaptive().pairs(tree, 1)
    assert (pair.chosen[0].content, pair.rejected[0].content) == ("win", "lose")
    assert (pair.credibility, pair.gap) == (1.0, 1.0)
    assert tree.usage().policy_calls == len(tree.root.rollouts) == 4


def test_each_state_of_the_trajectory_is_drawn_from_as_often_and_no_more(tmp_path):
    always = ScriptedPolicy(lambda messages, rng: place(messages)[1][0])
    tree = grown(tmp_path, adaptive(draws=5), {"a": {"x": 0.5}}, always)
    assert [len(node.suffixes()) for node in [tree.root, *tree.committed()]] == [5, 5, 5]
    assert len(rollouts_of(tree)) == 5
    assert adaptive().pairs(tree, 1) == []
    assert [node.action.content for node in tree.committed()] == ["a", "x"]


def test_a_credible_order_makes_a_pair_with_its_gap(tmp_path):
    strategy = adaptive(draws=12)
    tree = grown(tmp_path, strategy, EARLY)
    (pair,) = strategy.pairs(tree, 1)
    assert (pair.chosen[0].content, pair.rejected[0].content) == ("good", "bad")
    assert pair.credibility >= 0.97
    assert 0.5 < pair.gap < pair.chosen_reward.mean - pair.rejected_reward.mean == 1.0
    row = to_row(pair)
    assert (row["credibility"], row["gap"]) == (pair.credibility, pair.gap)
    assert from_row(row) == pair


class Synonyms(ForkableTreeEnvironment):
    """Texts that differ in their marks alone do the same."""

    def step(self, action):
        return super().step(replace(action, content=action.content.rstrip("!")))


def shouting():
    return ScriptedPolicy(
        lambda messages, rng: rng.choice(place(messages)[1]) + "!" * rng.randrange(6)
    )


def test_candidates_that_do_the_same_share_outcomes_and_make_no_pair(tmp_path):
    strategy = adaptive("all", draws=30, max_error=0.5)
    tree = grown(tmp_path, strategy, EARLY, shouting(), Synonyms)
    texts = {child.action.content for child in tree.root.children}
    assert len(texts) > 4
    by_kind = {child.action.content.rstrip("!"): child.estimate for child in tree.root.children}
    assert all(
        child.estimate == by_kind[child.action.content.rstrip("!")] for child in tree.root.children
    )
    assert sum(estimate.n for estimate in by_kind.values()) == 30 + sum(
        len(c.rollouts) for c in tree.root.children
    )
    pairs = strategy.pairs(tree, 1)
    assert {p.rejected[0].content.rstrip("!") for p in pairs if p.step == 1} == {"bad"}
    (tmp_path / "alone").mkdir()
    apart = grown(tmp_path / "alone", replace_share(strategy), EARLY, shouting(), Synonyms)
    assert max(child.estimate.n for child in apart.root.children if not child.committed) < 15


def replace_share(strategy):
    return replace(strategy, strategy=replace(strategy.strategy, merge_equal=False))


class SaidSo(TreeBenchmark):
    """Has no snapshots, but knows what a message does."""

    def action_of(self, message):
        return message.content.rstrip("!")


class PlainSynonyms(TreeEnvironment):
    def step(self, action):
        return super().step(replace(action, content=action.content.rstrip("!")))


@pytest.mark.parametrize(("kind", "shared"), [(SaidSo, True), (TreeBenchmark, False)])
def test_without_snapshots_the_benchmark_says_what_is_the_same(tmp_path, kind, shared):
    with fresh_journal(tmp_path) as journal:
        benchmark = kind({"t": EARLY}, PlainSynonyms)
        tree = grow(
            adaptive(draws=30),
            make_context(benchmark, shouting(), journal),
        )
    good = [c for c in tree.root.children if c.action.content.startswith("good")]
    assert (len({child.estimate.n for child in good}) == 1 and good[0].estimate.n > 8) is shared


def test_a_state_that_differs_is_not_the_same_though_it_looks_so(tmp_path):
    class Hidden(ForkableTreeEnvironment):
        def show(self):
            return "at : go good bad" if not self.path else "at here: go x y"

    tree = grown(tmp_path, adaptive(draws=20), EARLY, environment=Hidden)
    assert {child.action.content: set(child.estimate.outcomes) for child in tree.root.children} == {
        "good": {1.0},
        "bad": {0.0},
    }


def test_failed_rollouts_are_missing_and_never_zero(tmp_path):
    def fault(path, action):
        if path == "bad" and action == "y":
            raise ConnectionError("gone")

    branches = {"good": {"x": 1.0}, "bad": {"x": 1.0, "y": 1.0}}
    tree = grown(tmp_path, adaptive(draws=20), branches, fault=fault)
    failed = [r for r in rollouts_of(tree) if r.stop is StopReason.FAILED]
    assert failed
    assert all(set(node.estimate.outcomes) == {1.0} for node in tree.root.walk() if node.estimate)
    assert adaptive().pairs(tree, 1) == []


def test_nothing_but_failures_leaves_the_task_open(tmp_path):
    def fault(path, action):
        if path:
            raise ConnectionError("gone")

    with pytest.raises(TaskFailed, match="every rollout from node 0 failed"):
        grown(tmp_path, adaptive(), EARLY, fault=fault)


def test_what_failed_and_came_on_resume_moves_no_record_to_another_action(tmp_path):
    """A rollout that is there only the second time adds a candidate; were candidates numbered, the
    journal's rollouts of the later ones would be taken for another action's."""

    def fault(calls, seed):
        asked.append(seed)
        if broken and len(asked) in (3, 5):
            raise ConnectionError("gone")

    asked: list[int] = []
    strategy, broken = adaptive(draws=8), True
    with fresh_journal(tmp_path) as journal:
        context = make_context(
            TreeBenchmark({"t": TREE}), Counted(uniform(), fault), journal, retries=0
        )
        before = grow(strategy, context)
        broken = False
        after = grow(strategy, context)
    assert sum(r.reward is None for r in rollouts_of(before)) == 2
    assert all(r.reward is not None for r in rollouts_of(after))
    for rollout in rollouts_of(after):
        branch = TREE
        for text in taken(rollout):
            branch = branch[text]
        assert rollout.reward == branch


class Moody(TreeEnvironment):
    """Not deterministic, where it shows after the fork: what it answers depends on how often it was
    asked."""

    def step(self, action):
        result = super().step(action)
        return StepResult(
            f"{result.observation} {self.benchmark.calls.steps}", result.reward, result.done
        )


def test_one_action_with_two_answers_is_an_error(tmp_path):
    with pytest.raises(RestoreError, match="not deterministic"):
        grown(tmp_path, adaptive(draws=8), TREE, environment=Moody)


def test_a_full_context_ends_the_trajectory(tmp_path):
    with fresh_journal(tmp_path) as journal:
        benchmark = TreeBenchmark({"t": {"a": {"x": 0.5}, "b": {"x": 0.5}}}, truncated=0.25)
        assert (
            explore(adaptive(), make_context(benchmark, Overflowing(uniform(), 3), journal)) == []
        )
        (tree,) = finished_trees(journal).values()
    assert [(node.estimate.mean, node.reward) for node in tree.committed()] == [(0.25, None)]


def test_the_step_limit_is_an_exact_end(tmp_path):
    tree = grown(tmp_path, adaptive(), max_steps=1, truncated=0.25)
    assert {child.stop for child in tree.root.children} <= {
        StopReason.STEP_LIMIT,
        StopReason.TERMINAL,
    }
    assert all(child.estimate.exact for child in tree.root.children)


@pytest.mark.parametrize(
    ("unit", "budget"), [("policy_calls", 9), ("generated_tokens", 9), ("rollouts", 3)]
)
def test_nothing_begins_once_the_budget_is_spent_and_what_is_there_is_used(tmp_path, unit, budget):
    policy = Counted(uniform())
    strategy = adaptive(budget=budget, budget_unit=unit, draws=4)
    tree = grown(tmp_path, strategy, TREE, policy)
    spent = len(rollouts_of(tree)) if unit == "rollouts" else getattr(tree.usage(), unit)
    # The last draws are at most four rollouts of three steps.
    assert budget <= spent <= budget + 4 * 3
    assert tree.committed()
    assert policy.calls == tree.usage().policy_calls


def test_a_path_goes_on_after_the_budget_where_rollouts_lead(tmp_path):
    tree = grown(tmp_path, adaptive(budget=1, draws=5))
    assert len(tree.root.rollouts) == 5
    assert tree.committed()[-1].stop is not None
    assert len(rollouts_of(tree)) == 5


def test_a_range_too_small_is_the_users_to_fix(tmp_path):
    narrow, wide = adaptive(draws=9), adaptive(draws=9, reward_range=(-1.0, 2.0))
    tree = grown(tmp_path, narrow, {"a": -1.0, "b": 2.0})
    with pytest.raises(UsageError, match="set reward_range"):
        narrow.pairs(tree, 1)
    assert [pair.chosen[0].content for pair in wide.pairs(tree, 1)] == ["b"]


def make(**section):
    plugin, section = STRATEGIES.find("adaptive"), ExploreConfig(strategy="adaptive", **section)
    context = StrategyContext(
        reward_range=(-1.0, 1.0),
        one_policy=section.pricing == "policy" and section.proposal_temperature is None,
    )
    return plugin.make(parse_options(section, plugin, "explore"), context)


def test_recipes_make_it():
    strategy = make(adaptive={"draws": 3, "max_error": 0.1})
    credit = credit_of(strategy, section=CreditConfig(siblings="lowest", margin=0.1))
    assert (credit.siblings, credit.margin, credit.off_path) == ("lowest", 0.1, "tree")
    assert (strategy.draws, credit.max_error) == (3, 0.1)
    for change in ({"pricing": "sft"}, {"proposal_temperature": 0.5}):
        with pytest.raises(UsageError, match=r"explore\.strategy=fixed with credit\.name=credible"):
            make(**change)


def test_options_of_earlier_versions_have_new_names(caplog):
    strategy = make(adaptive={"error": 0.1, "first": 2, "share": False})
    assert (strategy.max_error, strategy.draws, strategy.merge_equal) == (0.1, 2, False)
    assert "option error of strategy adaptive is now called max_error" in caplog.text


def test_a_passage_knows_its_next_step(tmp_path):
    rollout = grown(tmp_path, adaptive()).root.rollouts[0]
    steps = len(rollout.steps)
    assert [RolloutSuffix(rollout, 1.0, taken).next for taken in range(steps + 1)] == [
        *rollout.steps,
        None,
    ]
    assert [RolloutSuffix(rollout, 1.0, taken).is_last for taken in range(steps)] == [False] * (
        steps - 1
    ) + [True]
    cut = replace(rollout, stop=StopReason.CONTEXT)
    assert not RolloutSuffix(cut, 1.0, steps - 1).is_last
