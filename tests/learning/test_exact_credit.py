"""What credits are worth on a decision tree with known values: expectation, variance and the share
of actions with credit, summed over every group that can be drawn, against values that were worked
out by hand."""

import itertools
from math import comb, prod

import pytest
from credit_toys import OPENING, act, rollout, tree_of

from rro.exploration.tree import Node, Tree
from rro.learning.credit.anchor_advantages import AnchorAdvantages
from rro.learning.credit.group_advantages import GroupAdvantages
from rro.learning.credit.rising_advantages import RisingAdvantages
from rro.learning.credit.step_labels import StepLabels
from rro.learning.credit.tree_advantages import TreeAdvantages
from rro.types import ProcessReward, Step, Task

DECISIONS = {"x": {"y": 0.9, "z": 0.1}, "w": {"y": 0.2, "z": 0.4}}
"""Success probabilities after two uniform choices: V(start) = 0.4, Q(x) = 0.5, Q(w) = 0.3. Exact
advantages: x 0.1, y after x 0.4, z after w 0.1."""

EPISODES = [
    ((first, second, outcome), (chance if outcome else 1 - chance) / 4)
    for first, below in DECISIONS.items()
    for second, chance in below.items()
    for outcome in (1.0, 0.0)
]


def expected(credit, size, *actions):
    """(mean, variance, share other than 0) of the advantage of the last of `actions` in the first
    episode of a group, given that it took them: exact sums over all groups."""
    mean = square = share = total = 0.0
    for group in itertools.product(EPISODES, repeat=size):
        if group[0][0][: len(actions)] != actions:
            continue
        chance = prod(part for _, part in group)
        paths = [episode for episode, _ in group]
        tree = tree_of(*(rollout([(a, a), (b, "")], outcome) for a, b, outcome in paths))
        row = credit.rows(tree)[0]
        value = [each for each in row.advantages if each is not None][len(actions) - 1]
        mean, square = mean + chance * value, square + chance * value**2
        share, total = share + chance * (value != 0), total + chance
    mean, square, share = mean / total, square / total, share / total
    return mean, square - mean**2, share


DR_GRPO = GroupAdvantages(scale="none")


@pytest.mark.parametrize("size", [2, 3])
def test_a_groups_advantage_is_that_of_the_whole_path_shrunk_by_the_groups_size(size):
    """(1 - 1/G) (Q(h, a) - V(start)): too high by what earlier actions had gained already."""
    shrunk = 1 - 1 / size
    assert expected(DR_GRPO, size, "x")[0] == pytest.approx(shrunk * (0.5 - 0.4))
    assert expected(DR_GRPO, size, "x", "y")[0] == pytest.approx(shrunk * (0.9 - 0.4))
    # z is the better action after w, but lies on the worse path.
    assert expected(DR_GRPO, size, "w", "z")[0] == pytest.approx(0.0, abs=1e-12)


def test_variance_and_share_of_a_groups_advantage():
    """Two episodes: half their difference, so other than 0 where the outcomes differ."""
    _, variance, share = expected(DR_GRPO, 2, "x")
    assert share == pytest.approx(0.5 * 0.6 + 0.5 * 0.4)
    assert variance == pytest.approx(share / 4 - 0.05**2)


def test_an_anchors_advantage_adds_the_comparison_within_the_state():
    credit = AnchorAdvantages(gamma=1.0, scale="none")
    # The start is an anchor, too: the first action counts twice.
    assert expected(credit, 2, "x")[0] == pytest.approx(2 * 0.5 * 0.1)
    # The other episode is in the state with probability 1/2.
    assert expected(credit, 2, "x", "y")[0] == pytest.approx(0.5 * 0.5 + 0.5 * 0.5 * (0.9 - 0.5))
    alone = AnchorAdvantages(gamma=1.0, scale="none", step_weight=0.0)
    assert expected(alone, 2, "x", "y") == pytest.approx(expected(DR_GRPO, 2, "x", "y"))


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("shrink", [0.0, 1.0])
def test_a_trees_advantage_is_unbiased_at_the_first_step(size, shrink):
    credit = TreeAdvantages(shrink=shrink)
    assert expected(credit, size, "x")[0] == pytest.approx(0.1)
    assert expected(credit, size, "w")[0] == pytest.approx(-0.1)


@pytest.mark.parametrize(("size", "exact"), [(2, 0.9 - 0.4), (3, 0.9 - 0.425)])
def test_a_trees_advantage_later_on_is_biased_by_the_value_that_it_is_shrunk_toward(size, exact):
    """Exact is 0.4. Two episodes: the value of the state is the other's outcome, 0.5 or 0.3. Three:
    0.3, (0.4 + 0.5) / 2 or 0.5 where none, one or both of the others came through it."""
    assert expected(TreeAdvantages(shrink=1.0), size, "x", "y")[0] == pytest.approx(exact)


def test_variance_and_share_of_a_trees_advantage():
    """Two episodes: half their difference where both took x, else the whole of it."""
    _, variance, share = expected(TreeAdvantages(), 2, "x")
    assert share == pytest.approx(0.5)
    assert variance == pytest.approx(0.5 * 0.5 / 4 + 0.5 * 0.5 - 0.1**2)


def estimated(rollouts):
    """(probability, tree) of every estimate of the start and of x, from so many outcomes each."""
    for before, after in itertools.product(range(rollouts + 1), repeat=2):
        root = Node("0", None, opening=OPENING)
        child = Node("0.0", root, step=Step(act("x"), "seen x", 0.0, False, state="x"))
        root.children, chances = [child], []
        for node, ones, chance in ((root, before, 0.4), (child, after, 0.5)):
            node.estimate = ProcessReward((1.0,) * ones + (0.0,) * (rollouts - ones), "p")
            ways = comb(rollouts, ones)
            chances.append(ways * chance**ones * (1 - chance) ** (rollouts - ones))
        yield prod(chances), Tree(Task("t"), root)


def test_the_papers_differential_is_unbiased():
    values = [
        (chance, RisingAdvantages().rows(tree)[0].advantages[-1]) for chance, tree in estimated(2)
    ]
    mean = sum(chance * value for chance, value in values)
    assert mean == pytest.approx(0.5 - 0.4)
    square = sum(chance * value**2 for chance, value in values)
    assert square - mean**2 == pytest.approx((0.5 * 0.5 + 0.4 * 0.6) / 2)


def test_how_often_a_label_sees_a_rise():
    """r = 1/2 above r_0 = 0, or r = 1 above r_0 below 1."""
    seen = sum(chance * StepLabels().rows(tree)[0].label for chance, tree in estimated(2))
    assert seen == pytest.approx(0.5 * 0.36 + 0.25 * 0.84)
