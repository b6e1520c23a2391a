"""The head of a process reward model, on features whose values are known."""

import random

import pytest
import torch
from credit_toys import rollout, tree_of

from rro.errors import DataError
from rro.learning.credit.base import CreditContext
from rro.learning.reward_model import (
    Action,
    Labels,
    Learning,
    Rollout,
    fit_head,
    labels_of,
    lambda_returns,
    train_head,
)
from rro.types import Message


def made(tasks=40, actions=12, outcomes=4, seed=0):
    """Actions with three features; the true value is a sigmoid of the first."""
    draw, known, features, values = random.Random(seed), {}, {}, {}
    for task in range(tasks):
        for action in range(actions):
            text, row = (f"{task}", f"{action}"), [draw.gauss(0, 1) for _ in range(3)]
            values[text] = 1 / (1 + 2.718281828 ** (-1.5 * row[0]))
            seen = tuple(float(draw.random() < values[text]) for _ in range(outcomes))
            known[text] = Action((Message("assistant", text[1]),), f"t{task}", seen, False)
            features[text] = torch.tensor(row)
    rollouts = tuple(
        Rollout((text,), outcome) for text, a in known.items() for outcome in a.outcomes
    )
    return Learning(Labels(known, rollouts, (0.0, 1.0)), features), values


@pytest.mark.parametrize("kind", ["mc", "td"])
def test_a_head_learns_values_and_its_error_is_the_true_one(kind):
    learning, values = made()
    trained = train_head(learning, kind)
    texts = list(values)
    said = learning.values(trained.head, texts, trained.scale)
    true = sum((a - values[t]) ** 2 for a, t in zip(said, texts, strict=True)) / len(texts)
    assert true < 0.005
    assert trained.worth.error < 0.02
    assert trained.worth.spread == pytest.approx(0.075, abs=0.03)
    assert trained.worth.noise == pytest.approx(0.165, abs=0.03)
    assert trained.scale.weight > 8


def test_features_that_say_nothing_are_worth_no_more_than_the_spread():
    learning, _ = made()
    draw = torch.Generator().manual_seed(0)
    silent = {text: torch.randn(3, generator=draw) for text in learning.features}
    worth = train_head(Learning(learning.labels, silent)).worth
    assert worth.error == pytest.approx(worth.spread, rel=0.2)


def test_calibration_undoes_a_wrong_slope():
    learning, _ = made()
    head = learning.fit(learning.tasks, "mc", 0.9, 1e-4)
    steep = type(head)(head.weight * 4, head.bias * 4)
    slope, offset = learning.calibrated(steep, learning.tasks)
    assert slope == pytest.approx(0.25, rel=0.15)
    assert offset == pytest.approx(0.0, abs=0.2)


def test_lambda_returns_by_hand():
    taken = [Rollout((("a",), ("b",)), 1.0), Rollout((("a",), ("c",)), 0.0)]
    values = {("b",): 0.6, ("c",): 0.2}
    returns, counts = lambda_returns(taken, values, 0.5)
    assert returns == {("a",): pytest.approx((0.8 + 0.1) / 2), ("b",): 1.0, ("c",): 0.0}
    assert counts == {("a",): 2, ("b",): 1, ("c",): 1}
    assert lambda_returns(taken, values, 1.0)[0][("a",)] == 0.5
    assert lambda_returns(taken, values, 0.0)[0][("a",)] == pytest.approx(0.4)


def test_labels_are_those_of_the_trees():
    tree = tree_of(
        rollout([("x", "s1"), ("y", "")], 1.0),
        rollout([("x", "s1"), ("z", "")], 0.0),
    )
    found = labels_of([tree], CreditContext())
    by_action = {text[-1]: action for text, action in found.actions.items()}
    assert by_action["x"].outcomes == (1.0, 0.0)
    assert by_action["y"].exact
    assert [r.outcome for r in found.rollouts] == [1.0, 0.0]
    assert all(text in found.actions for r in found.rollouts for text in r.actions)


def test_equal_outcomes_are_refused():
    tree = tree_of(rollout([("x", "s1"), ("y", "")], 0.0), rollout([("z", "")], 0.0))
    with pytest.raises(DataError, match="every outcome is 0"):
        labels_of([tree], CreditContext())


def test_few_tasks_are_refused():
    learning, _ = made(tasks=3)
    with pytest.raises(DataError, match="3 tasks: 4 are needed"):
        train_head(learning)


def test_a_penalty_shrinks():
    rows, targets = torch.randn(200, 2), torch.rand(200)
    small = fit_head(rows, targets, torch.ones(200), 10.0)
    assert small.weight.abs().max() < 0.01
