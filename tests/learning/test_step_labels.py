"""Labels of steps, against values that were worked out by hand."""

import pytest
from credit_toys import OPENING, THREE, act, rollout, tree_of
from hypothesis import given
from hypothesis import strategies as st

from rro.exploration.tree import Node, Tree
from rro.learning.credit.base import CreditContext
from rro.learning.credit.step_labels import StepLabels, interval
from rro.learning.exports import label_row
from rro.types import Message, ProcessReward, Step, StopReason, Task


def shown(rows):
    """(action, its number, outcomes, those before, label) of each row."""
    return [
        (
            row.action.content,
            row.step,
            list(row.reward.outcomes),
            row.before and row.before.mean,
            row.label,
        )
        for row in rows
    ]


def test_a_step_of_a_rollout_has_the_outcomes_of_all_that_came_through():
    """x led to the outcomes 1 and 0, w to 0; from the start they were 1, 0, 0."""
    third = pytest.approx(1 / 3)
    assert shown(StepLabels().rows(THREE)) == [
        ("x", 1, [1.0, 0.0], third, True),
        ("y", 2, [1.0], 0.5, True),
        ("z", 2, [0.0], 0.5, False),
        ("w", 1, [0.0], third, False),
    ]


def test_an_action_whose_step_before_rests_on_the_same_outcomes_has_no_rise():
    """After w only one rollout is known: its last step says nothing new."""

    def after_w(label):
        rows = StepLabels(label).rows(THREE)
        return [row for row in rows if "w" in [message.content for message in row.prompt]]

    assert after_w("rising") == []
    assert len(after_w("success")) == 1


def test_success_is_whether_any_outcome_reached_the_success_reward():
    rows = StepLabels(label="success").rows(THREE)
    assert [(row.action.content, row.label) for row in rows] == [
        ("x", True),
        ("y", True),
        ("z", False),
        ("w", False),
        ("y", False),
    ]
    strict = StepLabels(label="success", context=CreditContext(success_reward=2.0)).rows(THREE)
    assert not any(row.label for row in strict)


def test_few_outcomes_are_left_out_but_exact_ones_stay():
    rows = StepLabels(label="success", min_outcomes=2).rows(THREE)
    assert [(row.action.content, row.reward.n, row.reward.exact) for row in rows] == [
        ("x", 2, False),
        ("y", 1, True),
        ("z", 1, True),
        ("y", 1, True),
    ]


def estimated():
    """r_0 = 0.5, r(x) = 0.75, and y, which ends the episode with 0; rolled out once after x."""
    root = Node("0", None, opening=OPENING)
    root.estimate = ProcessReward((1.0, 0.0), "p")
    first = Node("0.0", root, step=Step(act("x"), "seen", 0.0, False, state="s1"))
    first.estimate = ProcessReward((1.0, 1.0, 1.0, 0.0), "p")
    first.rollouts = {0: rollout([("z", "")], 1.0, first.history())}
    last = Node("0.0.0", first, step=Step(act("y"), "end", 0.0, True), stop=StopReason.TERMINAL)
    last.estimate = ProcessReward((0.0,), "p", exact=True)
    root.children, first.children = [first], [last]
    return Tree(Task("t"), root)


def test_candidates_have_the_process_rewards_that_the_strategy_estimated():
    assert shown(StepLabels(rollouts=False).rows(estimated())) == [
        ("x", 1, [1.0, 1.0, 1.0, 0.0], 0.5, True),
        ("y", 2, [0.0], 0.75, False),
    ]
    assert [row.action.content for row in StepLabels(label="success").rows(estimated())] == [
        "x",
        "y",
        "z",
    ]


def test_one_text_has_one_row():
    twice = tree_of(*(rollout([("x", "s1"), ("y", "")], 1.0) for _ in range(3)))
    rows = StepLabels(label="success").rows(twice)
    assert [(row.action.content, row.reward.n) for row in rows] == [("x", 3), ("y", 1)]


def test_a_row_is_trls_stepwise_supervision_with_one_completion():
    row = label_row(StepLabels(context=CreditContext(strategy="s", iteration=2)).rows(THREE)[1])
    history = [*OPENING, Message("assistant", "x"), Message("user", "seen s1")]
    assert row == {
        "prompt": [message.chat() for message in history],
        "completions": ["y"],
        "labels": [True],
        "task": "t",
        "step": 2,
        "reward": 1.0,
        "outcomes": [1.0],
        "n": 1,
        "low": 1.0,
        "high": 1.0,
        "exact": True,
        "before": 0.5,
        "source": "policy",
        "pricing_policy": "p",
        "strategy": "s",
        "iteration": 2,
        "node": "0",
        "in_rollout": True,
        "committed": False,
    }


@pytest.mark.parametrize(
    ("outcomes", "low", "high"),
    [((1.0,), 0.2065, 1.0), ((0.0, 0.0, 0.0), 0.0, 0.5615), ((1.0, 0.0), 0.0945, 0.9055)],
)
def test_an_interval_is_wilsons_and_never_a_point(outcomes, low, high):
    found = interval(ProcessReward(outcomes, "p"), (0.0, 1.0))
    assert found == pytest.approx((low, high), abs=1e-4)
    wide = interval(ProcessReward(tuple(2 * value - 1 for value in outcomes), "p"), (-1.0, 1.0))
    assert wide == pytest.approx((2 * low - 1, 2 * high - 1), abs=2e-4)


def test_an_exact_reward_is_a_point():
    assert interval(ProcessReward((0.4,), "p", exact=True), (0.0, 1.0)) == (0.4, 0.4)


@given(st.integers(1, 60), st.integers(0, 60), st.sampled_from([(0.0, 1.0), (-1.0, 1.0)]))
def test_the_mean_lies_in_its_interval(n, successes, bounds):
    low, width = bounds[0], bounds[1] - bounds[0]
    outcomes = tuple(low + width * (number < successes) for number in range(n))
    reward = ProcessReward(outcomes, "p")
    found = interval(reward, bounds)
    assert bounds[0] <= found[0] <= reward.mean <= found[1] <= bounds[1]
