"""Recycling, racing, merging, budgets: by hand on small trees, and by exact values on random ones
(benchmarks/trees.py)."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import (
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
from rro.exploration.beliefs import Prior
from rro.exploration.sampler import TaskFailed
from rro.exploration.strategies.adaptive import AdaptiveExploration
from rro.exploration.strategies.base import StrategyContext
from rro.exploration.tree import RolloutSuffix
from rro.learning.credit.choosing import credit_of
from rro.learning.pairs import to_row
from rro.plugins import STRATEGIES
from rro.policies.scripted import ScriptedPolicy
from rro.types import StepResult, StopReason, Usage

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks import exploration as measured
from benchmarks.trees import SHAPES, Forest

TREE = {
    "a": {"x": 0.2, "y": {"p": 0.9, "q": 0.1}},
    "b": {"x": 0.6, "y": {"p": 0.5, "q": 0.3}},
    "c": 0.5,
}
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
    tree = grown(
        tmp_path, adaptive(min_draws=6, max_draws=6, race=False), TREE, policy, environment
    )
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
    tree = grown(tmp_path, adaptive(max_error=0.02, step_calls=40))
    assert any(node.rollouts for node in tree.root.walk() if node.parent), (
        "nothing was directed anywhere"
    )
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
    assert (pair.chosen[0].content, pair.rejected[0].content, pair.credibility) == (
        "win",
        "lose",
        1.0,
    )
    assert tree.usage().policy_calls == len(tree.root.rollouts) <= 8


def test_draws_go_on_until_there_is_something_to_compare_or_enough(tmp_path):
    always = ScriptedPolicy(lambda messages, rng: place(messages)[1][0])
    tree = grown(
        tmp_path, adaptive(min_draws=2, max_draws=5, step_calls=100), {"a": {"x": 0.5}}, always
    )
    assert [len(node.suffixes()) for node in [tree.root, *tree.committed()]] == [5, 5, 5]
    assert adaptive().pairs(tree, 1) == []
    assert [node.action.content for node in tree.committed()] == ["a", "x"]


def test_the_race_goes_to_the_open_order_and_stops_when_it_is_settled(tmp_path):
    strategy = adaptive(min_draws=4, max_draws=4, max_error=0.03, step_calls=60)
    tree = grown(tmp_path, strategy, EARLY)
    directed = {child.action.content: len(child.rollouts) for child in tree.root.children}
    assert sum(directed.values()) > 0
    assert sum(directed.values()) < 15
    (pair,) = strategy.pairs(tree, 1)
    assert (pair.chosen[0].content, pair.rejected[0].content) == ("good", "bad")
    assert pair.credibility >= 0.97
    assert (pair.chosen_reward.n, set(pair.chosen_reward.outcomes)) == (
        len(tree.committed()[0].suffixes()),
        {1.0},
    )
    assert to_row(pair)["credibility"] == pair.credibility


class Synonyms(ForkableTreeEnvironment):
    """Texts that differ in their marks alone do the same."""

    def step(self, action):
        return super().step(replace(action, content=action.content.rstrip("!")))


def shouting():
    return ScriptedPolicy(
        lambda messages, rng: rng.choice(place(messages)[1]) + "!" * rng.randrange(6)
    )


def test_candidates_that_do_the_same_share_outcomes_and_make_no_pair(tmp_path):
    strategy = adaptive("all", min_draws=30, max_draws=30, race=False, max_error=0.5)
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
            adaptive(min_draws=30, max_draws=30, race=False),
            make_context(benchmark, shouting(), journal),
        )
    good = [c for c in tree.root.children if c.action.content.startswith("good")]
    assert (len({child.estimate.n for child in good}) == 1 and good[0].estimate.n > 8) is shared


def test_a_state_that_differs_is_not_the_same_though_it_looks_so(tmp_path):
    class Hidden(ForkableTreeEnvironment):
        def show(self):
            return "at : go good bad" if not self.path else "at here: go x y"

    tree = grown(
        tmp_path, adaptive(min_draws=20, max_draws=20, race=False), EARLY, environment=Hidden
    )
    assert {child.action.content: set(child.estimate.outcomes) for child in tree.root.children} == {
        "good": {1.0},
        "bad": {0.0},
    }


def test_failed_rollouts_are_missing_and_never_zero(tmp_path):
    def fault(path, action):
        if path == "bad" and action == "y":
            raise ConnectionError("gone")

    branches = {"good": {"x": 1.0}, "bad": {"x": 1.0, "y": 1.0}}
    tree = grown(tmp_path, adaptive(min_draws=20, max_draws=20), branches, fault=fault)
    failed = [r for r in rollouts_of(tree) if r.stop is StopReason.FAILED]
    assert failed
    assert all(set(node.estimate.outcomes) == {1.0} for node in tree.root.walk() if node.estimate)
    assert adaptive().pairs(tree, 1) == []


@pytest.mark.parametrize(
    ("recycle", "sentence"),
    [(True, "every rollout from node 0 failed"), (False, "no candidate at node 0 has an estimate")],
)
def test_nothing_but_failures_leaves_the_task_open(tmp_path, recycle, sentence):
    def fault(path, action):
        if path:
            raise ConnectionError("gone")

    with pytest.raises(TaskFailed, match=sentence):
        grown(tmp_path, adaptive(recycle=recycle), EARLY, fault=fault)


def test_failures_that_cost_nothing_do_not_go_on_for_ever(tmp_path):
    def fault(calls, seed):
        if calls > 12:
            raise ConnectionError("gone")

    policy = Counted(uniform(), fault)
    tree = grown(tmp_path, adaptive(max_draws=10**6, step_calls=30, max_error=0.001), TREE, policy)
    assert tree.committed()
    assert (
        12 < policy.calls <= 12 + 2 * (3 + 30) * 3
    )  # two attempts at the first draws and thirty more, at three steps


def test_what_failed_and_came_on_resume_moves_no_record_to_another_action(tmp_path):
    """A rollout that is there only the second time adds a candidate; were candidates numbered, the
    journal's rollouts of the later ones would be taken for another action's."""

    def fault(calls, seed):
        asked.append(seed)
        if broken and len(asked) in (3, 5):
            raise ConnectionError("gone")

    asked: list[int] = []
    strategy, broken = adaptive(min_draws=8, max_draws=12, max_error=0.1, step_calls=60), True
    with fresh_journal(tmp_path) as journal:
        context = make_context(
            TreeBenchmark({"t": TREE}), Counted(uniform(), fault), journal, retries=0
        )
        before = grow(strategy, context)
        broken = False
        after = grow(strategy, context)
    assert sum(r.reward is None for r in rollouts_of(before)) == 2
    assert all(r.reward is not None for r in rollouts_of(after))
    assert any(node.rollouts for node in after.root.children)
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
        grown(tmp_path, adaptive(min_draws=8), TREE, environment=Moody)


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
    strategy = adaptive(
        budget=budget, budget_unit=unit, min_draws=2, max_error=0.01, step_calls=1000, max_draws=50
    )
    tree = grown(tmp_path, strategy, TREE, policy)
    spent = len(rollouts_of(tree)) if unit == "rollouts" else getattr(tree.usage(), unit)
    assert (
        budget <= spent <= budget + 2 * 3
    )  # the last draws are at most `first` rollouts of three steps
    assert tree.committed()
    assert policy.calls == tree.usage().policy_calls


def test_a_path_goes_on_after_the_budget_where_rollouts_lead(tmp_path):
    tree = grown(tmp_path, adaptive(budget=1, min_draws=5))
    assert len(tree.root.rollouts) == 5
    assert tree.committed()[-1].stop is not None
    assert len(rollouts_of(tree)) == 5


def test_a_range_too_small_is_the_users_to_mend(tmp_path):
    with pytest.raises(UsageError, match="set reward_range"):
        grown(tmp_path, adaptive(), {"a": -1.0, "b": 2.0})
    (tmp_path / "wide").mkdir()
    wide = adaptive(reward_range=(-1.0, 2.0))
    assert (
        grown(tmp_path / "wide", wide, {"a": -1.0, "b": 2.0}).committed()[0].action.content == "b"
    )


def make(**section):
    plugin, section = STRATEGIES.find("adaptive"), ExploreConfig(strategy="adaptive", **section)
    context = StrategyContext(
        reward_range=(-1.0, 1.0),
        one_policy=section.pricing == "policy" and section.proposal_temperature is None,
    )
    return plugin.make(parse_options(section, plugin, "explore"), context)


def test_recipes_make_it():
    strategy = make(adaptive={"prior": 3.0, "max_error": 0.1})
    credit = credit_of(strategy, section=CreditConfig(siblings="all", margin=0.1))
    assert (credit.siblings, credit.margin) == ("all", 0.1)
    assert (credit.prior, credit.max_error) == (3.0, 0.1)
    assert strategy.beliefs == Prior(3.0, -1.0, 1.0)
    for change in ({"pricing": "sft"}, {"proposal_temperature": 0.5}):
        with pytest.raises(UsageError, match=r"explore\.adaptive\.recycle=false"):
            make(**change)
    assert make(pricing="sft", adaptive={"recycle": False}).recycle is False


def test_options_of_earlier_versions_have_new_names(caplog):
    strategy = make(adaptive={"error": 0.1, "first": 2, "most": 5, "share": False, "weigh": False})
    new = (strategy.max_error, strategy.min_draws, strategy.max_draws)
    assert new == (0.1, 2, 5)
    assert (strategy.merge_equal, strategy.dispersion) == (False, False)
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


# -- on trees whose values are known


def sums(shape, name, seeds=4, tasks=6, concurrency=16):
    make = measured.strategies()[name]
    counts = [
        measured.explore(Forest(shape, tasks, seed), make, seed, concurrency)
        for seed in range(seeds)
    ]
    return {
        key: sum(getattr(c, key) for c in counts)
        for key in ("calls", "pairs", "correct", "tasks", "end", "start")
    }


@pytest.mark.parametrize("name", ["shallow", "equal actions", "two actions"])
def test_pairs_are_right_and_cost_a_fraction_of_the_papers(name):
    shape = next(shape for shape in SHAPES if shape.name == name)
    paper, ours = sums(shape, "rro"), sums(shape, "adaptive")
    assert ours["correct"] / ours["pairs"] > 0.85
    assert ours["pairs"] > 0.5 * ours["tasks"]
    assert ours["calls"] / ours["correct"] < 0.5 * paper["calls"] / paper["correct"]
    assert ours["end"] > ours["start"]


def test_the_trees_hold_what_they_are_said_to():
    for shape in SHAPES:
        forest = Forest(replace(shape, width=30), 1, 5)
        (root,) = forest.trees.values()
        again = Forest(replace(shape, width=30), 1, 5).trees["tree-0"]
        assert (root.value, root.best) == (again.value, again.best)
        assert shape.range[0] <= root.value <= root.best <= shape.range[1]
        assert abs(sum(action.odds for action in root.actions) - 1) < 1e-9
        expert = forest.expert_episode("tree-0")
        walk = forest.make()
        walk.reset(forest.tasks()[0])
        results = [walk.step(step.action) for step in expert.steps]
        assert results[-1] == StepResult(expert.steps[-1].observation, root.best, True)


def test_a_values_estimate_by_play_is_the_value():
    forest = Forest(replace(SHAPES[4], width=30), 1, 2)
    (tree,) = measured.grow(forest, measured.RejectionSampling(600), 0).values()
    rewards = [episode.reward for episode in tree.episodes.values()]
    assert abs(sum(rewards) / 600 - forest.trees["tree-0"].value) < 0.06  # three standard errors


@pytest.mark.parametrize("name", measured.strategies())
def test_the_same_pairs_at_any_concurrency(name):
    forest, make = Forest(SHAPES[4], 5, 1), measured.strategies()[name]
    one, many = (measured.explore(forest, make, 1, concurrency) for concurrency in (1, 64))
    assert one == many
