"""What rro and fixed pick and pair, on trees small enough to work out by hand (the method:
docs/concepts.md), and how a recipe names each strategy."""

from dataclasses import replace

import pytest
from fakes import (
    ForkableTreeEnvironment,
    Overflowing,
    Planned,
    TreeBenchmark,
    explore,
    finished_trees,
    folded,
    fresh_journal,
    grow,
    make_context,
    place,
    uniform,
)
from planned_trees import CHOICES, TREE, grown

from rro.config import ExploreConfig, parse_options
from rro.exploration.sampler import TaskFailed
from rro.exploration.strategies.base import StrategyContext
from rro.exploration.strategies.eto import TrajectoryExploration
from rro.exploration.strategies.fixed_size import FixedSizeExploration
from rro.exploration.strategies.ipr import IterativeStepRefinement
from rro.exploration.strategies.rft import RejectionSampling
from rro.exploration.strategies.rising import RisingExploration
from rro.plugins import STRATEGIES
from rro.policies.scripted import ScriptedPolicy
from rro.types import Source, StopReason


def chosen(tree):
    return [(node.action.content, node.rose) for node in tree.committed()]


def drawn(tree, depth=0):
    node = [tree.root, *tree.committed()][depth]
    return [child.action.content for child in node.children]


def sides(strategy, tree):
    return [
        (
            p.step,
            p.chosen[0].content,
            p.rejected[0].content,
            p.chosen_reward.mean,
            p.rejected_reward.mean,
        )
        for p in strategy.pairs(tree, 1)
    ]


def test_rro_stops_at_the_first_strict_rise(tmp_path):
    strategy = folded(RisingExploration(rollouts=2, candidates=5))
    tree = grown(tmp_path, strategy, {"": ["d", "a", "b", "c"], "b": ["y", "x", "y", "y", "y"]})
    assert drawn(tree) == ["d", "a", "b"]  # a reaches 0.4 only; c is never drawn
    assert tree.root.estimate.mean == 0.4
    assert chosen(tree) == [
        ("b", True),
        ("x", False),
    ]  # 0.6 does not exceed 0.6: K exhausted, the best
    assert len(drawn(tree, 1)) == 5
    assert sides(strategy, tree) == [(1, "b", "d", 0.6, 0.2), (2, "x", "y", 0.6, 0.3)]


def test_rro_weak_is_content_with_reaching(tmp_path):
    strategy = folded(RisingExploration(rollouts=2, candidates=5, rising="weak"))
    tree = grown(tmp_path, strategy, {"": ["d", "a"], "a": ["x", "y"]})
    assert chosen(tree) == [("a", True), ("y", True)]
    assert sides(strategy, tree) == [(1, "a", "d", 0.4, 0.2), (2, "y", "x", 0.4, 0.2)]


def test_rro_from_zero_takes_the_first_that_is_above_it_and_prices_no_start(tmp_path):
    strategy = folded(RisingExploration(rollouts=2, candidates=5, start="zero"))
    tree = grown(tmp_path, strategy, {"": ["d"], "d": ["x"] * 5})
    assert tree.root.estimate is None
    assert not tree.root.rollouts
    assert chosen(tree) == [("d", True), ("x", False)]
    assert strategy.pairs(tree, 1) == []  # no sibling, no pair; siblings that say the same neither


def test_rro_takes_the_best_where_none_rises_and_the_first_of_equals(tmp_path):
    tree = grown(tmp_path, RisingExploration(2, 3), {"": ["d", "a", "a"], "a": ["y", "x", "y"]})
    assert chosen(tree) == [("a", False), ("y", False)]
    assert [node.id for node in tree.committed()] == ["0.1", "0.1.0"]


def test_rro_prices_an_end_exactly_without_rollouts(tmp_path):
    tree = grown(tmp_path, RisingExploration(4, 2), {"": ["c"]})
    (end,) = tree.committed()
    assert (end.estimate.mean, end.estimate.exact, end.estimate.n, end.rollouts) == (
        0.9,
        True,
        1,
        {},
    )
    assert tree.root.estimate.n == 4


@pytest.mark.parametrize(
    ("siblings", "margin", "rejected"),
    [
        ("lowest", 0.0, ["d"]),
        ("all", 0.0, ["d", "a"]),
        ("all", 0.19, ["d", "a"]),
        ("all", 0.2, ["d"]),  # a is lower by 0.2, not by more
        ("all", 0.4, []),
        ("lowest", 0.39, ["d"]),
    ],
)
def test_siblings_and_margin(tmp_path, siblings, margin, rejected):
    strategy = folded(RisingExploration(2, 5), siblings=siblings, margin=margin)
    tree = grown(tmp_path, strategy, {"": ["d", "a", "b"], "b": ["x"] * 5})
    assert [side[2] for side in sides(strategy, tree)] == rejected


def test_siblings_that_do_the_same_share_their_outcomes_and_make_no_pair(tmp_path):
    strategy = folded(FixedSizeExploration(rollouts=2, candidates=3), siblings="all")
    tree = grown(
        tmp_path, strategy, {"": ["a", "e", "a"], "a": ["y", "y", "y"]}, {**TREE, "e": 0.4}
    )
    assert strategy.pairs(tree, 1) == []
    (tmp_path / "noisy").mkdir()
    with fresh_journal(tmp_path / "noisy") as journal:
        always_a = ScriptedPolicy(
            lambda messages, rng: "a" if len(messages) == 2 else rng.choice("xy")
        )
        tree = grow(
            strategy, make_context(TreeBenchmark({"t": TREE}, max_steps=2), always_a, journal)
        )
    assert len({child.estimate.outcomes for child in tree.root.children}) == 1
    assert [len(child.rollouts) for child in tree.root.children] == [2, 0, 0]
    assert {pair.step for pair in strategy.pairs(tree, 1)} <= {2}


class Mumbling(ForkableTreeEnvironment):
    """Only the first letter of a message is the action; what follows is a thought."""

    def step(self, action):
        return super().step(replace(action, content=action.content[:1]))


@pytest.mark.parametrize(
    "strategy",
    [
        folded(FixedSizeExploration(rollouts=2, candidates=4), siblings="all"),
        folded(RisingExploration(rollouts=2, candidates=5), siblings="all"),
    ],
    ids=["fixed", "rro"],
)
def test_another_thought_before_the_same_action_is_no_other_side(tmp_path, strategy):
    def speak(messages, rng):
        return rng.choice(place(messages)[1]) + rng.choice("123456789")

    policy = ScriptedPolicy(speak)
    benchmark = TreeBenchmark({"t": TREE}, environment=Mumbling, max_steps=2)
    twins, pairs = 0, []
    for seed in range(6):
        (tmp_path / str(seed)).mkdir()
        with fresh_journal(tmp_path / str(seed)) as journal:
            tree = grow(strategy, make_context(benchmark, policy, journal, seed=seed))
        pairs += strategy.pairs(tree, 1)
        for node in tree.root.walk():
            by_action = {}
            for child in node.children:
                by_action.setdefault(child.action.content[:1], []).append(child)
            for alike in by_action.values():
                twins += len(alike) - 1
                assert len({child.estimate.outcomes for child in alike}) == 1
                assert all(not child.rollouts for child in alike[1:])
    assert twins > 3
    assert pairs
    assert all(p.chosen[0].content[:1] != p.rejected[0].content[:1] for p in pairs)


def test_pairs_say_where_they_come_from(tmp_path):
    strategy = folded(RisingExploration(rollouts=2, candidates=5))
    tree = grown(tmp_path, strategy, {"": ["d", "b"], "b": ["y", "x", "y", "y", "y"]})
    first, second = strategy.pairs(tree, 3)
    assert [m.content for m in first.prompt] == ["Walk.", "at : go a b d c"]
    assert [m.content for m in second.prompt] == ["Walk.", "at : go a b d c", "b", "at b: go x y"]
    assert (first.task, first.strategy, first.kind, first.iteration) == ("t", "rro", "step", 3)
    assert (first.chosen_reward.n, first.chosen_reward.policy) == (2, "planned")
    assert second.chosen_reward.exact
    assert {m.source for m in (*first.chosen, *first.rejected)} == {Source.POLICY}


def test_a_candidate_without_price_is_missing_and_not_bad(tmp_path):
    def fault(path, action):
        if path == "d":
            raise ConnectionError("gone")

    strategy = folded(RisingExploration(2, 3))
    tree = grown(tmp_path, strategy, {"": ["d", "a", "d"], "a": ["x", "y", "x"]}, fault=fault)
    assert [node.estimate and node.estimate.mean for node in tree.root.children] == [
        None,
        0.4,
        None,
    ]
    assert chosen(tree) == [("a", False), ("y", False)]
    assert [side[0] for side in sides(strategy, tree)] == [
        2
    ]  # d would be a pair of the first step, had it counted as 0
    fixed = folded(FixedSizeExploration(2, 3))
    (tmp_path / "fixed").mkdir()
    tree = grown(
        tmp_path / "fixed", fixed, {"": ["d", "a", "b"], "b": ["x", "x", "y"]}, fault=fault
    )
    assert sides(fixed, tree) == [(1, "b", "a", 0.6, 0.4), (2, "x", "y", 0.6, 0.3)]


@pytest.mark.parametrize(
    "strategy",
    [RisingExploration(2, 2), RisingExploration(2, 2, start="zero"), FixedSizeExploration(2, 2)],
)
def test_nothing_priced_leaves_the_task_open(tmp_path, strategy):
    def fault(path, action):
        if path or (strategy.name == "rro" and strategy.start == "estimated"):
            raise ConnectionError("gone")

    with pytest.raises(TaskFailed):
        grown(tmp_path, strategy, {"": ["a", "b"]}, fault=fault)


def test_a_full_context_ends_the_trajectory_and_keeps_its_pairs(tmp_path):
    strategy = folded(RisingExploration(2, 2))
    with fresh_journal(tmp_path) as journal:
        policy = Overflowing(Planned({"": ["d", "a"]}, CHOICES), limit=2)
        benchmark = TreeBenchmark({"t": TREE}, truncated=0.1)
        assert explore(strategy, make_context(benchmark, policy, journal)) == []
        (tree,) = finished_trees(journal).values()
    assert [node.reward for node in tree.committed()] == [None]
    assert tree.candidates_per_step() == [2]
    assert tree.root.estimate.mean == 0.1


def test_a_step_limit_is_an_end(tmp_path):
    tree = grown(tmp_path, RisingExploration(2, 2), {"": ["a", "b"]}, max_steps=1, truncated=0.5)
    (end,) = tree.committed()
    assert (end.stop, end.estimate.mean, end.rose, end.estimate.exact) == (
        StopReason.STEP_LIMIT,
        0.5,
        False,
        True,
    )


def test_fixed_size_draws_k_everywhere_and_pairs_best_with_worst(tmp_path):
    strategy = folded(FixedSizeExploration(rollouts=2, candidates=3))
    tree = grown(tmp_path, strategy, {"": ["d", "b", "a"], "b": ["y", "x", "x"]})
    assert (drawn(tree), drawn(tree, 1)) == (["d", "b", "a"], ["y", "x", "x"])
    assert chosen(tree) == [("b", False), ("x", False)]
    assert sides(strategy, tree) == [(1, "b", "d", 0.6, 0.2), (2, "x", "y", 0.6, 0.3)]
    assert tree.root.estimate is None


def test_fixed_size_prices_the_start_where_a_trend_is_measured(tmp_path):
    tree = grown(tmp_path, FixedSizeExploration(2, 1, estimate_start=True), {"": ["a"], "a": ["x"]})
    assert tree.root.estimate.mean == 0.4


def test_the_price_names_the_model_that_priced(tmp_path):
    with fresh_journal(tmp_path) as journal:
        context = make_context(
            TreeBenchmark({"t": TREE}), uniform("policy"), journal, rollout_policy=uniform("sft")
        )
        tree = grow(FixedSizeExploration(2, 2), context)
    for node in list(tree.root.walk())[1:]:
        assert node.policy == "policy"
        assert node.estimate.policy == ("policy" if node.estimate.exact else "sft")


def make(section):
    plugin = STRATEGIES.find(section.strategy)
    return plugin.make(parse_options(section, plugin, "explore"), StrategyContext())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("rro", RisingExploration),
        ("fixed", FixedSizeExploration),
        ("ipr", IterativeStepRefinement),
        ("eto", TrajectoryExploration),
        ("rft", RejectionSampling),
    ],
)
def test_strategies_by_name(name, kind):
    strategy = make(ExploreConfig(strategy=name, rollouts=3))
    assert (type(strategy), strategy.name) == (kind, name)
    assert getattr(strategy, "rollouts", 3) == 3


def test_recipes_options_reach_rro():
    config = ExploreConfig(rollouts=2, candidates=4, rro={"rising": "weak", "start": "zero"})
    assert make(config) == RisingExploration(2, 4, "weak", "zero")


@pytest.mark.parametrize("rising", ["strict", "weak"])
def test_rro_on_random_draws_keeps_its_promises(tmp_path, rising):
    """Whatever is drawn: who is said to have risen did, was drawn last, and no one before did;
    pairs are in order."""
    tree = {
        a: {b: {c: (ord(a) * 7 + ord(b) * 3 + ord(c) * 5) % 11 / 10 for c in "xyz"} for b in "xyz"}
        for a in "xyz"
    }
    strategy = folded(RisingExploration(3, 4, rising))
    with fresh_journal(tmp_path) as journal:
        benchmark = TreeBenchmark({f"t{i}": tree for i in range(30)})
        trees = [
            grow(strategy, make_context(benchmark, uniform(), journal), task)
            for task in benchmark.tasks()
        ]

    def rises(estimate, previous):
        return estimate > previous or (rising == "weak" and estimate == previous)

    rose = 0
    for grown_tree in trees:
        previous = grown_tree.root.estimate.mean
        for node in grown_tree.committed():
            siblings = node.parent.children
            estimates = [sibling.estimate.mean for sibling in siblings]
            assert rises(node.estimate.mean, previous) == node.rose
            assert not any(
                rises(estimate, previous)
                for estimate in (estimates[:-1] if node.rose else estimates)
            )
            assert (
                siblings[-1] is node
                if node.rose
                else (len(siblings) == 4 and node.estimate.mean == max(estimates))
            )
            previous, rose = node.estimate.mean, rose + node.rose
        assert all(
            p.chosen_reward.mean > p.rejected_reward.mean for p in strategy.pairs(grown_tree, 1)
        )
    assert 0 < rose < sum(len(t.committed()) for t in trees)
