"""What the strategies of whole trajectories (IPR, ETO, RFT) pick and pair, on trees small enough to
work out by hand."""

import pytest
from fakes import (
    Counted,
    Planned,
    TreeBenchmark,
    explore,
    finished_trees,
    folded,
    fresh_journal,
    grow,
    make_context,
    uniform,
)
from planned_trees import CHOICES, TREE, grown

from rro.errors import RroError
from rro.exploration.strategies.base import StrategyContext
from rro.exploration.strategies.eto import TrajectoryExploration
from rro.exploration.strategies.ipr import IterativeStepRefinement
from rro.exploration.strategies.rft import RejectionSampling
from rro.types import Message, Source, Step, StopReason, Trajectory


def expert(*actions, tree=TREE, policy="expert"):
    """An expert's episode along `actions` of the tree."""
    steps, branch = [], tree
    for number, action in enumerate(actions):
        branch, path = branch[action], "/".join(actions[: number + 1])
        done = not isinstance(branch, dict)
        shown = "the end" if done else f"at {path}: go {' '.join(branch)}"
        steps.append(
            Step(Message("assistant", action, Source.EXPERT), shown, branch if done else 0.0, done)
        )
    opening = (Message("system", "Walk."), Message("user", f"at : go {' '.join(tree)}"))
    return Trajectory("t", opening, tuple(steps), branch, StopReason.TERMINAL, policy, 0)


def texts(messages):
    return [message.content for message in messages]


@pytest.mark.parametrize("message_sides", [True, False])
def test_ipr_prefers_the_policy_where_it_is_better(tmp_path, message_sides):
    """At the start the policy's b (0.6) beats the expert's d (0.2); after d, both say x: nothing is
    estimated."""
    experts = {"t": expert("d", "x")}
    sides = "message" if message_sides else "continuation"
    strategy = folded(
        IterativeStepRefinement(2, context=StrategyContext(experts)),
        experts,
        expert_pairs={"sides": sides},
    )
    tree = grown(tmp_path, strategy, {"": ["a", "b"], "a": ["y"], "d": ["x"]})
    (pair,) = strategy.pairs(
        tree, 1
    )  # no outcome pair: the policy's own a, y is worth 0.4, the expert's 0.2
    assert pair.step == 1
    assert (pair.chosen_reward.mean, pair.rejected_reward.mean) == (0.6, 0.2)
    assert pair.kind == ("step" if message_sides else "continuation")
    assert texts(pair.chosen) == (["b"] if message_sides else ["b", "at b: go x y", "x"])
    assert texts(pair.rejected) == (["d"] if message_sides else ["d", "at d: go x", "x"])
    assert [node.rollouts for node in tree.committed()[0].children] == [{}, {}]
    assert all(child.estimate is None for child in tree.committed()[0].children)


def test_ipr_prefers_the_expert_where_it_is_better(tmp_path):
    """Own trajectory d, x (0.2) against the expert's b, x (0.6); own steps: a (0.4) at the start, y
    (0.3) after b."""
    strategy = folded(
        IterativeStepRefinement(2, context=StrategyContext({"t": expert("b", "x")})),
        {"t": expert("b", "x")},
    )
    tree = grown(tmp_path, strategy, {"": ["d", "a"], "d": ["x"], "b": ["y"]})
    outcome, first, second = strategy.pairs(tree, 1)
    assert (outcome.kind, texts(outcome.chosen), texts(outcome.rejected)) == (
        "trajectory", ["b", "at b: go x y", "x"], ["d", "at d: go x", "x"],
    )  # fmt: skip
    assert (outcome.chosen_reward.mean, outcome.rejected_reward.mean) == (0.6, 0.2)
    assert texts(outcome.prompt) == ["Walk.", "at : go a b d c"]
    assert (texts(first.chosen), texts(first.rejected)) == (
        ["b", "at b: go x y", "x"],
        ["a", "at a: go x y", "y"],
    )
    assert (texts(second.chosen), texts(second.rejected), second.kind) == (
        ["x"],
        ["y"],
        "continuation",
    )
    assert texts(second.prompt)[-2:] == ["b", "at b: go x y"]
    assert [node.action.content for node in tree.committed()] == [
        "b",
        "x",
    ]  # always along the expert
    assert {m.source for m in second.chosen} == {Source.EXPERT}


@pytest.mark.parametrize(("margin", "pairs"), [(0.01, 1), (0.2, 0), (0.19, 1)])
def test_ipr_wants_more_than_its_margin(tmp_path, margin, pairs):
    strategy = folded(
        IterativeStepRefinement(2, context=StrategyContext({"t": expert("b", "x")})),
        {"t": expert("b", "x")},
        margin=margin,
        expert_pairs={"sides": "message"},
    )
    tree = grown(
        tmp_path, strategy, {"": ["b", "a"], "b": ["x", "x"]}
    )  # own trajectory like the expert's: no outcome pair
    assert [texts(pair.rejected) for pair in strategy.pairs(tree, 1)] == [["a"]] * pairs


def test_ipr_counts_the_policys_candidates_and_not_the_experts(tmp_path):
    with fresh_journal(tmp_path) as journal:
        policy = Planned({"": ["d", "a"], "d": ["x"], "b": ["y"]}, CHOICES)
        explore(
            folded(
                IterativeStepRefinement(2, context=StrategyContext({"t": expert("b", "x")})),
                {"t": expert("b", "x")},
            ),
            make_context(TreeBenchmark({"t": TREE}), policy, journal),
        )
        (tree,) = finished_trees(journal).values()
    assert tree.candidates_per_step() == [1, 1]


@pytest.mark.parametrize(("own", "pairs"), [(["d", "x"], 1), (["b", "x"], 0), (["c"], 0)])
def test_eto_pairs_a_worse_own_trajectory_with_the_experts(tmp_path, own, pairs):
    strategy = folded(TrajectoryExploration(), {"t": expert("b", "x")})
    proposals = {"/".join(own[:i]): [action] for i, action in enumerate(own)}
    found = strategy.pairs(grown(tmp_path, strategy, proposals), 1)
    assert len(found) == pairs
    if found:
        assert (texts(found[0].chosen), texts(found[0].rejected)) == (
            ["b", "at b: go x y", "x"],
            ["d", "at d: go x", "x"],
        )
        assert (found[0].kind, found[0].chosen_reward.exact, found[0].rejected_reward.policy) == (
            "trajectory",
            True,
            "planned",
        )


def test_eto_makes_no_pair_of_a_failed_trajectory(tmp_path):
    def fault(path, action):
        if path == "d":
            raise ConnectionError("gone")

    strategy = folded(TrajectoryExploration(), {"t": expert("b", "x")})
    assert strategy.pairs(grown(tmp_path, strategy, {"": ["d", "d"]}, fault=fault), 1) == []


def test_eto_without_an_expert_says_so(tmp_path):
    strategy = folded(TrajectoryExploration(), {})
    with pytest.raises(RroError, match="task t has no expert episode"):
        strategy.pairs(grown(tmp_path, strategy, {"": ["c"]}), 1)


@pytest.mark.parametrize(
    "strategy",
    [
        folded(TrajectoryExploration(), {"t": expert("c")}),
        RejectionSampling(rollouts=1),
        folded(
            IterativeStepRefinement(3, context=StrategyContext({"t": expert("c")})),
            {"t": expert("c")},
        ),
    ],
)
def test_own_trajectories_are_the_policys_also_where_another_model_prices(tmp_path, strategy):
    policy, rollout_policy = Counted(uniform("policy")), Counted(uniform("sft"))
    with fresh_journal(tmp_path) as journal:
        tree = grow(
            strategy,
            make_context(
                TreeBenchmark({"t": TREE}), policy, journal, rollout_policy=rollout_policy
            ),
        )
    assert tree.episodes[0].policy == "policy"
    assert policy.calls > 0
    assert (rollout_policy.calls > 0) == (
        strategy.name == "ipr" and tree.root.children[0].action.content != "c"
    )


def test_rft_keeps_each_success_once(tmp_path):
    strategy = folded(RejectionSampling(), success_reward=0.6)
    proposals = {"": ["b", "c", "d", "b", "c"], "b": ["x", "y"], "d": ["x"]}
    tree = grown(tmp_path, strategy, proposals)
    assert strategy.pairs(tree, 1) == []
    kept = [texts(messages)[2:] for messages in strategy.demonstrations(tree)]
    assert sorted(kept) == [["b", "at b: go x y", "x"], ["c"]]
