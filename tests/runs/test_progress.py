"""What the progress line says of the rest."""

import logging
import re

import pytest

from rro.runs.progress import Progress
from rro.types import Usage


def rest(
    caplog: pytest.LogCaptureFixture,
    *,
    total: int,
    done: int,
    calls: int,
    spent: float,
    before: float = 0.0,
) -> int | None:
    """Policy calls that it says are left, after `done` pieces and, if a budget was begun in an
    earlier process, one old one."""
    with caplog.at_level(logging.INFO, "rro"), Progress("explore", total, "tasks") as progress:
        if before:
            progress.advance(new=False, spent=before)
        progress.spend(Usage(policy_calls=calls))
        progress.advance(done, spent=spent)
    found = re.search(r"left about ([\d,]+) calls", caplog.messages[-1])
    return int(found[1].replace(",", "")) if found else None


def test_the_rest_is_as_dear_as_what_was_done(caplog: pytest.LogCaptureFixture) -> None:
    assert rest(caplog, total=100, done=20, calls=50, spent=0.0) == 200


def test_a_budget_ends_it_sooner(caplog: pytest.LogCaptureFixture) -> None:
    assert rest(caplog, total=6410, done=20, calls=50, spent=0.25) == 150
    assert rest(caplog, total=6410, done=20, calls=50, spent=1.1) == 0


def test_a_large_budget_does_not_end_it_later(caplog: pytest.LogCaptureFixture) -> None:
    assert rest(caplog, total=100, done=20, calls=50, spent=0.01) == 200


def test_what_an_earlier_process_spent_says_nothing_of_the_rate(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert rest(caplog, total=6410, done=20, calls=50, spent=0.75, before=0.5) == 50


def test_nothing_is_left_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    assert rest(caplog, total=20, done=20, calls=50, spent=0.5) is None
