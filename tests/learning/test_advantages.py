"""Advantages of trees, against values that were worked out by hand and exact ones."""

from statistics import stdev

import pytest
from credit_toys import OPENING, THREE, act, rollout, tree_of

from rro.exploration.tree import Node, Tree
from rro.learning.credit.anchor_advantages import AnchorAdvantages
from rro.learning.credit.base import CreditContext
from rro.learning.credit.group_advantages import GroupAdvantages
from rro.learning.credit.rising_advantages import RisingAdvantages
from rro.learning.credit.successes import Successes
from rro.learning.credit.tree_advantages import TreeAdvantages
from rro.types import ProcessReward, Step, StopReason, Task, Trajectory


def own(row):
    return [value for value in row.advantages if value is not None]


def test_grpo_is_the_outcome_within_its_group():
    rows = GroupAdvantages().rows(THREE)
    assert [own(row) for row in rows] == [
        pytest.approx([1.1547, 1.1547], abs=1e-4),
        pytest.approx([-0.57735, -0.57735], abs=1e-4),
        pytest.approx([-0.57735, -0.57735], abs=1e-4),
    ]
    assert [row.success for row in rows] == [True, False, False]


def test_dr_grpo_does_not_divide_by_the_deviation():
    rows = GroupAdvantages(scale="none").rows(THREE)
    assert [own(row)[0] for row in rows] == pytest.approx([2 / 3, -1 / 3, -1 / 3])


def test_an_advantage_stands_at_the_message_that_it_is_of():
    row = GroupAdvantages(scale="none").rows(THREE)[0]
    assert [message.content for message in row.messages] == [
        "Walk.",
        "at the start",
        "x",
        "seen s1",
        "y",
    ]
    assert row.advantages == (None, None, pytest.approx(2 / 3), None, pytest.approx(2 / 3))
    assert row.logprobs is None


def test_gigpo_adds_the_advantage_within_a_state():
    rows = AnchorAdvantages(gamma=0.5).rows(THREE)
    assert [own(row) for row in rows] == [
        pytest.approx([2 * 1.1547, 1.1547 + 0.70711], abs=1e-4),
        pytest.approx([-2 * 0.57735, -0.57735 - 0.70711], abs=1e-4),
        pytest.approx([-2 * 0.57735, -0.57735], abs=1e-4),
    ]


def test_gigpo_without_its_steps_is_grpo():
    rows = AnchorAdvantages(step_weight=0.0).rows(THREE)
    grpo = GroupAdvantages().rows(THREE)
    assert [own(row) for row in rows] == [pytest.approx(own(row)) for row in grpo]


def test_an_invalid_action_costs_its_return_and_those_before_it():
    bad = rollout([("x", "s1"), ("y", "")], 1.0)
    first, last = bad.steps
    bad = Trajectory(
        "t",
        OPENING,
        (first, Step(last.action, last.observation, 1.0, True, invalid=True)),
        1.0,
        StopReason.TERMINAL,
        "p",
        0,
    )
    good = rollout([("x", "s1"), ("y", "")], 1.0)
    rows = AnchorAdvantages(gamma=0.5, scale="none", invalid_penalty=0.1).rows(tree_of(bad, good))
    assert own(rows[0]) == pytest.approx([-0.025, -0.05])
    assert own(rows[1]) == pytest.approx([0.025, 0.05])


def test_states_without_a_name_are_known_by_what_was_seen():
    plain = [
        Trajectory(
            "t",
            OPENING,
            tuple(Step(s.action, s.observation, s.reward, s.done) for s in each.steps),
            each.reward,
            StopReason.TERMINAL,
            "p",
            0,
        )
        for each in THREE.root.rollouts.values()
    ]
    rows = AnchorAdvantages(gamma=0.5).rows(tree_of(*plain))
    assert [own(row) for row in rows] == [
        pytest.approx(own(row)) for row in AnchorAdvantages(gamma=0.5).rows(THREE)
    ]


def test_tree_advantages_leave_one_out_and_shrink():
    rows = TreeAdvantages(shrink=1.0).rows(THREE)
    assert [own(row) for row in rows] == [
        pytest.approx([0.5, 1.0]),
        pytest.approx([0.0, -0.75]),
        pytest.approx([-0.5, -0.5]),
    ]


def test_without_leaving_out_it_is_the_difference_of_values_along_the_episode():
    rows = TreeAdvantages(leave_one_out=False, shrink=0).rows(THREE)
    assert [own(row) for row in rows] == [
        pytest.approx([1 / 2 - 1 / 3, 1 - 1 / 2]),
        pytest.approx([1 / 2 - 1 / 3, 0 - 1 / 2]),
        pytest.approx([0 - 1 / 3, 0]),
    ]


def test_tree_advantages_over_the_deviation_of_the_outcomes():
    plain = TreeAdvantages().rows(THREE)
    scaled = TreeAdvantages(scale="std").rows(THREE)
    for one, other in zip(plain, scaled, strict=True):
        assert own(other) == pytest.approx(
            [value / stdev([1, 0, 0]) for value in own(one)], abs=1e-5
        )


def test_a_fork_is_compared_with_all_that_came_through_its_state():
    tree = tree_of(*THREE.root.rollouts.values())
    (child, _) = tree.recycle(tree.root)
    child.rollouts = {0: rollout([("y", "")], 1.0, child.history())}
    assert child.action.content == "x"
    rows = AnchorAdvantages(gamma=1.0, scale="none").rows(tree)
    # s1 saw the outcomes 1, 0 and the fork's 1.
    assert own(rows[-1]) == pytest.approx([2 * (1 - 2 / 3)])
    # The episodes are compared among themselves; the fork did not pass the start.
    assert own(rows[0]) == pytest.approx([2 * (1 - 1 / 3), 2 / 3 + 1 - 2 / 3])
    assert [len(own(row)) for row in TreeAdvantages().rows(tree)] == [2, 2, 2, 1]


def test_a_candidate_has_its_process_reward_against_the_other_samples_of_its_state():
    root = Node("0", None, opening=OPENING, opening_state="start")
    tree = Tree(Task("t"), root)
    for number, (text, outcomes) in enumerate([("x", (1.0, 0.0)), ("w", (0.0, 0.0))]):
        step = Step(act(text), "seen", 0.0, False, state=f"after {text}")
        child = Node(f"0.{number}", root, step=step)
        root.children.append(child)
        child.rollouts = {
            n: rollout([("y", "")], outcome, child.history()) for n, outcome in enumerate(outcomes)
        }
    rows = TreeAdvantages(shrink=0.0).rows(tree)
    candidates = [row for row in rows if len(row.messages) == 3]
    assert [own(row) for row in candidates] == [pytest.approx([0.5]), pytest.approx([-0.5])]
    assert not any(row.success for row in candidates)


def test_rising_is_the_difference_of_process_rewards():
    root = Node("0", None, opening=OPENING)
    root.estimate = ProcessReward((1.0, 0.0), "p")
    first = Node("0.0", root, step=Step(act("x"), "seen", 0.0, False))
    first.estimate = ProcessReward((1.0, 1.0, 1.0, 0.0), "p")
    last = Node("0.0.0", first, step=Step(act("y"), "end", 0.0, True), stop=StopReason.TERMINAL)
    last.estimate = ProcessReward((0.0,), "p", exact=True)
    root.children, first.children = [first], [last]
    tree = Tree(Task("t"), root)
    assert [own(row) for row in RisingAdvantages().rows(tree)] == [[0.25], [-0.75]]
    assert [own(row) for row in RisingAdvantages("sign").rows(tree)] == [[1.0], [-1.0]]


def test_successes_are_whole_episodes_shortest_first():
    long = rollout([("x", "s1"), ("v", "s3"), ("y", "")], 1.0)
    tree = tree_of(long, *THREE.root.rollouts.values())
    assert [len(row) for row in Successes(1).rows(tree)] == [5]
    assert [len(row) for row in Successes(3).rows(tree)] == [5, 7]
    assert Successes(3, CreditContext(success_reward=2.0)).rows(tree) == []
