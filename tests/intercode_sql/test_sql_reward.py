"""Both rewards, by hand, by brute force, and by their laws."""

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rro.intercode_sql.reward import grade, kendall

ROWS = st.lists(
    st.sampled_from(["(1,)", "(2,)", "(10,)", "('a',)", "('é',)", "(None,)"]), max_size=9
)


@pytest.mark.parametrize(
    ("rows", "gold", "published", "iou"),
    [
        ([], [], 1.0, 1.0),
        ([], ["(1,)"], 0.0, 0.0),
        (["(1,)"], [], 0.0, 0.0),
        (["(1,)", "(2,)"], ["(1,)", "(2,)"], 1.0, 1.0),
        (
            ["(2,)", "(1,)"],
            ["(1,)", "(2,)"],
            -1.0,
            1.0,
        ),  # the order counts, and a reversed one is worse than nothing
        (["(1,)"], ["(1,)", "(2,)"], 0.5, 0.5),  # one common row has no order
        (["(1,)", "(1,)"], ["(1,)"], 0.5, 0.5),  # a multiset
        (["(1,)", "(2,)", "(3,)"], ["(1,)", "(3,)", "(2,)"], 0.33, 1.0),
        (["(1,)", "(2,)", "(9,)"], ["(1,)", "(2,)"], 0.67, 2 / 3),
        (["(2,)", "(1,)", "(9,)"], ["(1,)", "(2,)"], -0.67, 2 / 3),
        (["(1,)", "(1,)"], ["(1,)", "(1,)"], 1.0, 1.0),  # two equal rows have no order
    ],
)
def test_by_hand(rows, gold, published, iou):
    assert grade(rows, gold) == published
    assert grade(rows, gold, "iou") == pytest.approx(iou)


def test_rows_compare_as_texts():
    """(10,) stands before (2,)."""
    assert kendall(["(10,)", "(2,)"], ["(2,)", "(10,)"]) == -1.0


def tau(one, other):
    """Tau-b by its definition."""
    sign = lambda a, b: (a > b) - (a < b)  # noqa: E731
    pairs = list(combinations(range(len(one)), 2))
    score = sum(sign(one[i], one[j]) * sign(other[i], other[j]) for i, j in pairs)
    untied = [sum(row[i] != row[j] for i, j in pairs) for row in (one, other)]
    return score / math.sqrt(untied[0] * untied[1])


@given(st.data())
def test_kendall_is_tau_b(data):
    one = data.draw(ROWS.filter(lambda rows: len(set(rows)) > 1))
    other = data.draw(st.permutations(one))
    assert kendall(one, other) == pytest.approx(tau(one, other))


@given(ROWS, ROWS)
def test_bounds_and_symmetry(one, other):
    for kind in ("published", "iou"):
        assert -1 <= grade(one, other, kind) <= 1
        assert grade(one, other, kind) == pytest.approx(grade(other, one, kind))
    assert abs(grade(one, other)) <= grade(one, other, "iou") + 0.005
    assert (grade(one, other, "iou") == 1) == (sorted(one) == sorted(other))
    assert grade(one, one) == 1.0
