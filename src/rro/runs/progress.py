"""Progress of long work: on a terminal a bar with the rest and the cost, as wide as that is;
elsewhere a log line now and then."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from rro.errors import counted, printable
from rro.types import Usage

log = logging.getLogger("rro")

# Columns of the bar, and of a line in a log.
_BAR, _LOG_WIDTH, _LONG = 12, 100, 1000


class Progress:
    """Counts finished pieces of `total` and the cost so far. Use as a context manager; `advance`
    and `spend` from one thread."""

    def __init__(self, what: str, total: int | None, unit: str, log_every: float = 30.0) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done, self.old, self.usage, self.note = 0, 0, Usage(), ""
        # what earlier processes spent on the same work
        self.before = Usage()
        self.spent, self._spent_before = 0.0, 0.0
        self.failures, self.ended = Counter[str](), False
        self._begun = self._logged = time.perf_counter()
        self._log_every = log_every
        self._bar = _bar(total) if sys.stderr.isatty() else None

    def advance(self, count: int = 1, note: str = "", new: bool = True, spent: float = 0.0) -> None:
        """`count` more are finished; those that are not `new` were so before, and say nothing of
        the rate. `spent`: the share of a budget, where one may end the work before `total`."""
        self.done += count
        self.old += 0 if new else count
        self.spent = spent
        if not new:
            self._spent_before = spent
        self.note = note or self.note
        self._show()

    def spend(self, usage: Usage) -> None:
        self.usage += usage
        self._show()

    def fail(self, kind: str) -> None:
        """Something failed for good, with an error of this class."""
        self.failures[kind] += 1
        self._show()

    def figures(self) -> dict[str, Any]:
        """What is known of the work, as plain values: counts, pieces a second, the cost so
        far, and the seconds and the cost that are left (None: unknown)."""
        seconds, ratio = max(time.perf_counter() - self._begun, 1e-9), self._ratio()
        return {
            "stage": self.what,
            "done": self.done,
            "total": self.total,
            "unit": self.unit,
            "rate": (self.done - self.old) / seconds,
            "seconds": seconds,
            "seconds_left": None if ratio is None else seconds * ratio,
            "usage": asdict(self.before + self.usage),
            "cost_left": None if ratio is None else self.usage.cost * ratio,
            "failures": dict(self.failures),
            "text": self._text(_LONG),
            "ended": self.ended,
        }

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
            self._show()
        return self

    def __exit__(self, *error: object) -> None:
        self.ended = True
        _tell(self)
        if self._bar:
            self._show()
            self._bar.stop()
        else:
            log.info("%s", self._text(_LOG_WIDTH))

    def _text(self, width: int) -> str:
        """What fits into `width` characters, what matters most first."""
        total = f"/{self.total}" if self.total is not None else ""
        count = f": {self.done}{total} {self.unit}"
        text = _cut(self.what, width - len(count)) + count
        for part in filter(None, self._parts()):
            if len(text) + len(part) + 2 > width:
                break
            text = f"{text}, {part}"
        return printable(text)

    def _parts(self) -> Iterator[str]:
        seconds = max(time.perf_counter() - self._begun, 1e-9)
        ratio, usage = self._ratio(), self.usage
        first, *more = self.note.split(", ")
        yield first
        if ratio is not None:
            yield f"{_span(seconds * ratio)} left"
        yield from more
        if usage.policy_calls:
            yield counted(usage.policy_calls, "calls")
            yield f"{usage.policy_calls * ratio:,.0f} left" if ratio is not None else ""
        if usage.cost:
            yield f"cost {usage.cost:.2f}"
            yield f"{usage.cost * ratio:.2f} left" if ratio is not None else ""
        yield _rate((self.done - self.old) / seconds)
        if usage.generated_tokens:
            yield f"{usage.generated_tokens / seconds:,.0f} tokens/s"

    def _ratio(self) -> float | None:
        """The remaining pieces, or the rest of the budget, over what was done so far: what they
        will take if they are like it. None: unknown, or nothing remains."""
        fresh = self.done - self.old
        if not self.total or not fresh or self.done >= self.total:
            return None
        ratio = (self.total - self.done) / fresh
        if self.spent > self._spent_before:
            ratio = min(ratio, max(0.0, 1 - self.spent) / (self.spent - self._spent_before))
        return ratio

    def _show(self) -> None:
        _tell(self)
        if self._bar:
            width = self._bar.console.width - _BAR - 2
            text = self._text(width)
            self._bar.update(self._bar.task_ids[0], completed=self.done, description=text)
        elif time.perf_counter() - self._logged > self._log_every:
            self._logged = time.perf_counter()
            log.info("%s", self._text(_LOG_WIDTH))


_observers: list[Callable[[Progress], None]] = []


@contextmanager
def observed(observer: Callable[[Progress], None]) -> Iterator[None]:
    """While this is open, `observer` is given every Progress of this process when it changes."""
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.remove(observer)


def _tell(progress: Progress) -> None:
    for observer in _observers:
        observer(progress)


def _cut(text: str, width: int) -> str:
    """The end goes first; some letters always stay."""
    return text if len(text) <= width else f"{text[: max(8, width - 3)]}..."


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _rate(each_second: float) -> str:
    """In a unit that shows what is slow."""
    if not each_second or each_second >= 0.1:
        return f"{each_second:.1f}/s"
    each_minute = 60 * each_second
    return f"{each_minute:.1f}/min" if each_minute >= 0.1 else f"{60 * each_minute:.1f}/h"


def _bar(total: int | None) -> Any:  # rich is imported only where there is a terminal
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        BarColumn(_BAR),
        TextColumn("{task.description}", markup=False),
        console=Console(stderr=True),
        refresh_per_second=4,
    )
    bar.add_task("", total=total)
    return bar
