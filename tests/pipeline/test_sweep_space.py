"""What a sweep tries, as the command line has it."""

import pytest

from rro.errors import UsageError
from rro.pipeline.sweep_space import Choice, Range, parse_space


def test_choices_ranges_and_fixed_settings():
    space = parse_space(
        ["a.b=1, 2,x", "c=log:1e-5:1e-3", "d=int:1:3", "e=uniform:-1:1", "f=[1, 2]", 'g="h,i"',
         "j=[1, 2],[3]", "k=http://x:1"]
    )  # fmt: skip
    assert space.fixed == ("f=[1, 2]", 'g="h,i"', "k=http://x:1")
    assert space.dimensions == (
        Choice("a.b", ("1", "2", "x")),
        Range("c", "log", 1e-5, 1e-3),
        Range("d", "int", 1, 3),
        Range("e", "uniform", -1, 1),
        Choice("j", ("[1, 2]", "[3]")),
    )
    assert space.size is None
    assert parse_space(["a=1,2", "d=int:1:3", "f=0"]).size == 6
    assert space.overrides({"a.b": "x", "c": 1e-4, "d": 2}) == [
        *space.fixed, "a.b=x", "c=0.0001", "d=2",
    ]  # fmt: skip


def test_every_value_is_checked_once_before_the_first_trial():
    assert parse_space(["a=1,2,3", "b=int:1:9", "c=0"]).corners() == [
        ["c=0", "a=1", "b=1"],
        ["c=0", "a=2", "b=1"],
        ["c=0", "a=3", "b=1"],
        ["c=0", "a=1", "b=9"],
    ]


def test_a_range_of_numbers_is_checked_with_a_fraction():
    values = Range("a", "uniform", 1, 3).extremes()
    assert (values[0], values[-1]) == ("1", "3")
    assert any(not float(value).is_integer() and 1 < float(value) < 3 for value in values)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "nothing to sweep"),
        (["a=1"], "nothing to sweep"),
        (["a"], "a: write key=a,b,c"),
        (["=1,2"], "write key"),
        (["a=1,2", "a=3"], "a is given twice"),
        (["a=1,1"], "1 is there twice"),
        (["a=1,,2"], "a value is missing"),
        (["a=1,"], "a value is missing"),
        (["a=,"], "a value is missing"),
        (["a=1, ,2"], "a value is missing"),
        (["a=log:0:1"], "above 0"),
        (["a=log:1:0.1"], "below the second"),
        (["a=uniform:nan:1"], "both finite"),
        (["a=uniform:0:inf"], "both finite"),
        (["a=int:1:2.5"], "whole numbers"),
        (["a=log:x:1"], "are numbers"),
        (["a=log:1"], "a range is log:LOW:HIGH"),
        (["a=log:1:2:3"], "a range is log:LOW:HIGH"),
        (["evaluate.tasks=1,2"], "measured by"),
        (["environment.validation_split=a,b"], "measured by"),
    ],
)
def test_what_fits_nothing_is_told(words, problem):
    with pytest.raises(UsageError, match=problem):
        parse_space(words)
