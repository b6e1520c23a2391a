"""What the progress line says of the rest."""

import io
import logging
import re
import sys

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
    found = re.search(r" calls, ([\d,]+) left", caplog.messages[-1])
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


class Terminal(io.StringIO):
    """Standard error where it is a terminal."""

    def isatty(self) -> bool:
        return True


def lines_of(progress: Progress) -> None:
    """An exploration nearly at its end."""
    with progress:
        progress.advance(90, new=False)
        progress.spend(Usage(policy_calls=13176, generated_tokens=1_401_233, cost=12.5))
        progress.advance(219, "764 pairs")


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_on_a_terminal_it_fits(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    lines_of(Progress("explore 1", 350, "tasks"))
    shown = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", terminal.getvalue())
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", shown) if line.strip()]
    assert max(map(len, lines)) <= columns
    assert "explore 1: 309/350 tasks, 764 pairs, " in lines[-1]
    assert (", 13,176 calls" in lines[-1]) == (columns > 60)
    assert ("tokens/s" in lines[-1]) == (columns == 200)


def test_a_line_of_a_log_has_up_to_100_characters(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "rro"):
        lines_of(Progress("explore 1", 350, "tasks"))
        lines_of(Progress("replaying " + "long" * 40 + ".jsonl", 350, "lines"))
    explored, replayed = caplog.messages
    assert re.match(
        r"explore 1: 309/350 tasks, 764 pairs, \d+ s left, 13,176 calls, 2,467 left, cost 12.50",
        explored,
    )
    assert re.match(r"replaying (long)+l?o?n?\.\.\.: 309/350 lines", replayed)
    assert all(len(line) <= 100 for line in caplog.messages)


@pytest.mark.parametrize(
    ("seconds", "rate"), [(4, "0.5/s"), (120, "1.0/min"), (7200, "1.0/h"), (20, "0.1/s")]
)
def test_the_rate_of_slow_work_has_a_unit_that_shows_it(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, seconds: float, rate: str
) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    with caplog.at_level(logging.INFO, "rro"), Progress("sft", 10, "steps") as progress:
        now[0] += seconds
        progress.advance(2)
    assert caplog.messages[-1].endswith(f", {rate}")
