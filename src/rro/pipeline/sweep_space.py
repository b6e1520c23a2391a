"""What a sweep tries: settings as the command line has them, read and checked. Knows no trial.

`key=a,b,c` is a choice, `key=log:1e-5:1e-3`, `key=uniform:0:1` and `key=int:1:8` are ranges, and
`key=value` stays as it is in all trials."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rro.errors import UsageError

_ITEM = re.compile(r"""(?:"[^"]*"|'[^']*'|\[[^\]]*\]|\{[^}]*\}|[^,])+""")
_RANGE = re.compile(r"(log|uniform|int):([^:]+):([^:]+)")
# What a sweep measures by is the same in all trials.
_MEASURE = ("environment.train_split", "environment.validation_split", "environment.test_split")


@dataclass(frozen=True)
class Choice:
    """A setting with some values, as a recipe's override has them."""

    key: str
    values: tuple[str, ...]

    @property
    def size(self) -> int | None:
        """How many values there are; None: too many to try all."""
        return len(self.values)

    def extremes(self) -> tuple[str, ...]:
        """The values that are checked before the first trial."""
        return self.values


@dataclass(frozen=True)
class Range:
    """A setting between two values, both included. `kind`: "log", "uniform" or "int"."""

    key: str
    kind: str
    low: float
    high: float

    @property
    def size(self) -> int | None:
        """How many values there are; None: too many to try all."""
        return int(self.high - self.low) + 1 if self.kind == "int" else None

    def extremes(self) -> tuple[str, ...]:
        """The values that are checked before the first trial: both ends, and a number between that
        no setting of whole numbers takes."""
        if self.kind == "int":
            return as_text(int(self.low)), as_text(int(self.high))
        between = self.low + (self.high - self.low) / math.pi
        return as_text(self.low), as_text(between), as_text(self.high)


@dataclass(frozen=True)
class Space:
    """`fixed` settings of all trials, and what differs between them."""

    fixed: tuple[str, ...]
    dimensions: tuple[Choice | Range, ...]

    @property
    def size(self) -> int | None:
        """How many combinations there are; None: more than can be tried."""
        sizes = [dimension.size for dimension in self.dimensions]
        return None if None in sizes else math.prod(size for size in sizes if size)

    def most(self, trials: int) -> int:
        """`trials`, but no more than there are combinations."""
        return min(trials, self.size or trials)

    def overrides(self, values: Mapping[str, Any]) -> list[str]:
        """The settings of a trial with these values of the dimensions."""
        return [*self.fixed, *(f"{key}={as_text(value)}" for key, value in values.items())]

    def corners(self) -> list[list[str]]:
        """Settings to check before the first trial: each extreme of each dimension once, the others
        at their first."""
        first = {dimension.key: dimension.extremes()[0] for dimension in self.dimensions}
        every = [first]
        for dimension in self.dimensions:
            every += [first | {dimension.key: value} for value in dimension.extremes()[1:]]
        return [self.overrides(values) for values in every]


def as_text(value: Any) -> str:
    """A value as an override has it."""
    return value if isinstance(value, str) else repr(value)


def parse_space(words: Sequence[str]) -> Space:
    """Read settings. Raises UsageError for what is no setting, a key that is given twice, an empty
    choice, a range that is none, and where nothing is to be swept."""
    fixed, dimensions, seen = list[str](), list[Choice | Range](), set[str]()
    for word in words:
        key, equals, text = (part.strip() for part in word.partition("="))
        if not equals or not key:
            raise UsageError(f"{word}: write key=a,b,c or key=log:LOW:HIGH or key=value")
        if key in seen:
            raise UsageError(f"{key} is given twice: name each setting once")
        seen.add(key)
        if key == "evaluate.validation" and text != "true":
            raise UsageError(f"{word}: a sweep measures on the validation tasks: leave it out")
        dimension = _dimension(key, text)
        if dimension is None:
            fixed.append(f"{key}={text}")
        elif key in _MEASURE or key.startswith("evaluate."):
            raise UsageError(f"{key} decides what a trial is measured by: give it one value")
        else:
            dimensions.append(dimension)
    if not dimensions:
        raise UsageError(
            "nothing to sweep: give a setting several values, as in dpo.epochs=1,2,4 or "
            "dpo.learning_rate=log:1e-5:1e-3"
        )
    return Space(tuple(fixed), tuple(dimensions))


def _dimension(key: str, text: str) -> Choice | Range | None:
    """None for a single value."""
    parts = _RANGE.fullmatch(text)
    if parts is not None:
        return _range(key, *parts.groups())
    if re.match(r"(log|uniform|int):", text):
        raise UsageError(f"{key}={text}: a range is {text.partition(':')[0]}:LOW:HIGH")
    values = [value.strip() for value in _ITEM.findall(text)]
    if len(values) < 2 and "," not in _ITEM.sub("", text):
        return None
    if not all(values) or re.search(r"^,|,,|,$", text.replace(" ", "")):
        raise UsageError(f"{key}={text}: a value is missing between the commas")
    twice = next((value for place, value in enumerate(values) if value in values[:place]), None)
    if twice is not None:
        raise UsageError(f"{key}={text}: {twice} is there twice")
    return Choice(key, tuple(values))


def _range(key: str, kind: str, *texts: str) -> Range:
    word = f"{key}={kind}:{':'.join(texts)}"
    try:
        low, high = (int(text) if kind == "int" else float(text) for text in texts)
    except ValueError:
        number = "whole numbers" if kind == "int" else "numbers"
        raise UsageError(f"{word}: the ends of this range are {number}") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(f"{word}: the first end must be below the second, and both finite")
    if kind == "log" and low <= 0:
        raise UsageError(f"{word}: the ends of a logarithmic range are above 0")
    return Range(key, kind, low, high)
