"""ETO and IPR as their authors' programs explore, by the methods that come with rro: trees whose
pairs are worked out by hand (the table: docs/concepts.md)."""

from dataclasses import replace

import pytest
from fakes import (
    PROPOSE,
    Planned,
    TreeBenchmark,
    explore,
    finished_trees,
    fresh_journal,
    grow,
    make_context,
)

from rro.config import load_config, parse_options
from rro.exploration.strategies.base import StrategyContext
from rro.learning.credit.base import CreditContext
from rro.learning.credit.choosing import credit_of
from rro.plugins import STRATEGIES
from rro.types import Message, Source, Step, StopReason, Trajectory

# The expert's way is e, f, g. Rollouts take the first action that is listed, greedy play what a
# test plans: so every process reward is exact, and is not the outcome of the policy's own play.
TREE = {
    "e": {
        "f": {"g": 0.8, "h": 0.3},
        "o": {"low": 0.2, "high": 0.9},
        "p": {"more": 0.9, "less": 0.1},
        "q": 0.795,
    },
    "z": {"w": {"v": {"u": {"t": {"s": {"r": 0.5}}}}}},
    "b": 0.9,
}


def expert(*actions):
    steps, branch = [], TREE
    for number, action in enumerate(actions):
        branch, path = branch[action], "/".join(actions[: number + 1])
        done = not isinstance(branch, dict)
        shown = "the end" if done else f"at {path}: go {' '.join(branch)}"
        message = Message("assistant", action, Source.EXPERT)
        steps.append(Step(message, shown, branch if done else 0.0, done))
    opening = (Message("system", "Walk."), Message("user", "at : go e z b"))
    return Trajectory("t", opening, tuple(steps), branch, StopReason.TERMINAL, "expert", 0)


@pytest.fixture
def pairs(tmp_path):
    """What a method gives on the tree, where the policy's own actions are planned."""

    def of(method, expert_actions, proposals, *overrides, iteration=1, **options):
        recipe = tmp_path / "recipe.toml"
        recipe.write_text(f'method = "{method}"\n[environment]\nname = "webshop"\n')
        config = load_config(recipe, overrides)
        known = {"t": expert(*expert_actions)}
        plugin = STRATEGIES.find(config.explore.strategy)
        strategy = plugin.make(
            parse_options(config.explore, plugin, "explore"), StrategyContext(known)
        )
        assert config.explore.proposal_temperature == 0
        with fresh_journal(tmp_path) as journal:
            benchmark = TreeBenchmark({"t": TREE}, **options)
            context = make_context(benchmark, Planned(proposals), journal)
            assert explore(strategy, context) == []
            (tree,) = finished_trees(journal).values()
        context = CreditContext(known, strategy=strategy.name, iteration=iteration)
        return tree, [
            shown(pair) for pair in credit_of(strategy, context, config.credit).rows(tree)
        ]

    return of


def actions(messages):
    return [message.content for message in messages if message.role == "assistant"]


def shown(pair):
    rewards = (pair.chosen_reward.mean, pair.rejected_reward.mean)
    return (pair.kind, pair.step, actions(pair.chosen), actions(pair.rejected), rewards)


EFG, EF_OWN = ["e", "f", "g"], {"": ["e"], "e": ["f"]}


@pytest.mark.parametrize(
    ("plan", "pair"),
    [
        ({"": ["b"]}, (["b"], EFG, (0.9, 0.8))),
        ({**EF_OWN, "e/f": ["h"]}, (EFG, ["e", "f", "h"], (0.8, 0.3))),
        ({"": ["e"], "e": ["q"]}, (EFG, ["e", "q"], (0.8, 0.795))),
        ({**EF_OWN, "e/f": ["g"]}, None),
    ],
    ids=["own-better", "own-worse", "barely-worse", "equal"],
)
def test_eto_prefers_whichever_has_the_higher_outcome(pairs, plan, pair):
    _, found = pairs("eto", EFG, plan)
    assert found == ([] if pair is None else [("trajectory", 1, *pair)])


LONG = ["z", "w", "v", "u", "t", "s", "r"]


def test_eto_cuts_the_rejected_side_to_ten_messages_more_than_the_experts(pairs):
    plan = {"/".join(LONG[:n]): [action] for n, action in enumerate(LONG)}
    _, [(_, _, chosen, rejected, rewards)] = pairs("eto", ["b"], plan)
    # The expert has one message; 11 messages are six actions with five observations between them.
    assert (chosen, rejected, rewards) == (["b"], LONG[:6], (0.9, 0.5))
    _, [(*_, rejected, _)] = pairs("eto", ["b"], plan, "credit.outcome_pairs.extra_messages=1")
    assert rejected == LONG[:1]  # a cut ends with an action


def test_eto_does_not_cut_the_side_that_it_chooses(pairs):
    plan = {"/".join(LONG[:n]): [action] for n, action in enumerate(LONG)}
    _, [(_, _, chosen, rejected, _)] = pairs("eto", ["e", "f", "h"], plan)
    assert (chosen, rejected) == (LONG, ["e", "f", "h"])


def test_ipr_leaves_out_outcomes_that_differ_by_a_hundredth_or_less(pairs):
    _, found = pairs("ipr", EFG, {"": ["e"], "e": ["q", "f"], "e/f": ["g"]})
    assert found == []  # 0.795 is below 0.8, by 0.005


OWN = {"": ["b"], "e/f": ["g"]}
"""The policy's whole trajectory is b (0.9), and at the last step it does what the expert does. The
rollouts after e, f go to 0.8, as its expert does."""
OUTCOME = ("trajectory", 1, ["b"], EFG, (0.9, 0.8))


@pytest.mark.parametrize(
    ("plan", "pair"),
    [
        # Process reward 0.2 < 0.8, and greedy play gets 0.2 < 0.8 too.
        ({"e": ["o"], "e/o": ["low"]}, (["f", "g"], ["o", "low"], (0.8, 0.2))),
        # Process reward 0.2 < 0.8, but greedy play gets 0.9 > 0.8.
        ({"e": ["o"], "e/o": ["high"]}, None),
        # Process reward 0.9 > 0.8, and greedy play gets 0.9 > 0.8.
        ({"e": ["p"], "e/p": ["more"]}, (["p", "more"], ["f", "g"], (0.9, 0.8))),
        # Process reward 0.9 > 0.8, but greedy play gets 0.1 < 0.8.
        ({"e": ["p"], "e/p": ["less"]}, None),
        # An end, 0.005 lower: both are within the margin.
        ({"e": ["q"]}, None),
        # What the expert does.
        ({"e": ["f"]}, None),
    ],
    ids=["worse", "worse-but-lucky", "better", "better-but-unlucky", "end", "same"],
)
def test_ipr_wants_process_reward_and_outcome_to_agree(pairs, plan, pair):
    tree, found = pairs("ipr", EFG, {**OWN, **plan})
    assert found == [OUTCOME, *([] if pair is None else [("continuation", 2, *pair)])]
    # The first step has no candidate of the policy's own, and its whole trajectory is greedy.
    assert [child.action.source for child in tree.root.children] == [Source.EXPERT]
    assert [len(node.rollouts) for node in tree.committed()] == [
        0,
        0 if plan == {"e": ["f"]} else 5,
        0,
    ]


def test_ipr_margins_hold_for_process_rewards_and_for_outcomes(pairs):
    plan = {**OWN, "e": ["o"], "e/o": ["low"]}
    for margin, count in (("0.6", 1), ("0.59", 2)):
        assert len(pairs("ipr", EFG, plan, f"credit.margin={margin}")[1]) == count
    # The outcome pair differs by 0.1, the outcomes after the second step by 0.6.
    key = "credit.expert_pairs.outcome_margin"
    for margin, count in (("0.09", 2), ("0.1", 1), ("0.6", 0)):
        assert len(pairs("ipr", EFG, plan, f"{key}={margin}")[1]) == count


def test_a_continuation_that_failed_is_missing_and_not_worth_nothing(pairs):
    def fault(path, action):
        if (path, action) == ("e/o", "high"):
            raise ConnectionError("gone")

    tree, found = pairs("ipr", EFG, {**OWN, "e": ["o"], "e/o": ["high", "high"]}, fault=fault)
    assert found == [OUTCOME]  # a failure that counted as 0 would agree with 0.2 < 0.8
    (own,) = [node for node in tree.committed()[1].parent.children if not node.committed]
    assert (own.estimate.mean, own.episodes[0].stop) == (0.2, StopReason.FAILED)


def test_without_a_rollout_that_ended_a_step_has_no_pair(pairs):
    def fault(path, action):
        if (path, action) == ("e/f", "g"):  # where the expert goes, and its rollouts
            raise ConnectionError("gone")

    with pytest.raises(AssertionError):  # the expert's own action fails: the task is dropped
        pairs("ipr", EFG, {**OWN, "e": ["o"], "e/o": ["low"]}, fault=fault)


def test_one_step_gives_the_outcome_pair_alone(pairs):
    _, found = pairs("ipr", ["b"], {"": ["e"], "e": ["q"]})
    assert found == [("trajectory", 1, ["b"], ["e", "q"], (0.9, 0.795))]


def test_the_credit_leaves_the_first_step_out_of_a_tree_that_has_it(pairs):
    plan = {"": ["b", "b"], "e": ["f"], "e/f": ["g"]}
    overrides = ("explore.ipr.first_step=true", "credit.expert_pairs.first_step=false")
    assert pairs("ipr", EFG, plan, *overrides)[1] == [OUTCOME]
    both = pairs("ipr", EFG, {**plan, "": ["b", "b"]}, overrides[0])[1]
    assert both == [OUTCOME, ("continuation", 1, ["b"], EFG, (0.9, 0.8))]


def test_own_play_is_the_policys_at_the_temperature_of_its_actions(tmp_path):
    """Rollouts are those of the model that estimates."""

    class Noting(Planned):
        params = ()

        async def sample(self, messages, n, params, seed):
            self.params = (*self.params, params)
            return await super().sample(messages, n, params, seed)

    plan = {"": ["b"], "e": ["o"], "e/o": ["low"], "e/f": ["g"]}
    policy, pricer = Noting(plan), Noting({})
    plugin = STRATEGIES.find("ipr")
    known = StrategyContext({"t": expert(*EFG)})
    strategy = replace(plugin.factory(context=known), first_step=False, play_on=True)
    with fresh_journal(tmp_path) as journal:
        context = make_context(TreeBenchmark({"t": TREE}), policy, journal, rollout_policy=pricer)
        tree = grow(strategy, context)
    assert set(policy.params) == {PROPOSE}
    assert PROPOSE not in pricer.params
    (own,) = [node for node in tree.committed()[1].parent.children if not node.committed]
    assert own.episodes[0].policy == policy.name
    assert tree.usage().policy_calls == len(policy.params) + len(pricer.params)
