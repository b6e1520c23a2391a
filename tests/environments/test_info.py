"""What an environment says beside its observation: kept as plain JSON of a bounded size."""

import json
import math

import numpy as np
import pytest

from rro.codec import from_plain, to_plain
from rro.environments import contract
from rro.environments.base import Environment
from rro.environments.info import LONGEST_VALUE, MOST_FIELDS, plain_info
from rro.types import Message, Step, StepResult


class Raises:
    def __repr__(self):
        raise OSError


class Says(Environment):
    def __init__(self, info):
        self.said = info

    def reset(self, task, seed=0):
        return (Message("user", "go"),)

    def step(self, action):
        return StepResult("seen", info=self.said)


CIRCLE = {}
CIRCLE["itself"] = CIRCLE
DEEP = []
for _ in range(100_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (3, 3),
        (np.float32(0.5), 0.5),
        (np.arange(3), [0, 1, 2]),
        ({"a": (1, None, True)}, {"a": [1, None, True]}),
        ({1: 2}, {"1": 2}),
        (math.nan, "nan"),
        ([math.inf], "[inf]"),
        ({(1, 2): 3}, "{(1, 2): 3}"),
        (b"raw", "b'raw'"),
        ("half \ud800", "half ?"),
    ],
    ids=repr,
)
def test_values_become_plain_json(value, kept):
    assert plain_info({"x": value}) == {"x": kept}


@pytest.mark.parametrize("value", [CIRCLE, DEEP, Raises(), "x" * 10**6, list(range(10**5))])
def test_no_value_fails_or_is_long(value):
    kept = plain_info({"x": value})
    assert len(json.dumps(kept, allow_nan=False)) <= 2 * LONGEST_VALUE


def test_fields_are_bounded_and_named():
    assert len(plain_info({n: n for n in range(1_000)})) == MOST_FIELDS
    assert plain_info(None) == plain_info({}) == {}
    assert plain_info("a text") == {"info": "a text"}
    assert plain_info({("a", 1): 2, "\ud800": 3}) == {"('a', 1)": 2, "?": 3}


def test_a_step_keeps_it_and_it_survives_the_journal():
    said = {"score": np.int64(8), "path": ("a", "b")}
    step = contract.step(Says(said), Message("assistant", "go"))
    assert step.info == {"score": 8, "path": ["a", "b"]}
    assert from_plain(Step, json.loads(json.dumps(to_plain(step)))) == step
    assert "info" not in to_plain(contract.step(Says({}), Message("assistant", "go")))
    assert len({step, contract.step(Says(None), Message("assistant", "go"))}) == 2
