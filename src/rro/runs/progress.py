"""Progress of long work: a bar with rate and cost on a terminal, a quiet log line now and then
elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from rro.types import Usage

log = logging.getLogger("rro")


class Progress:
    """Counts finished pieces of `total` and the cost so far. Use as a context manager; `advance`
    and `spend` from one thread."""

    def __init__(self, what: str, total: int | None, unit: str, log_every: float = 30.0) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done, self.old, self.usage, self.note = 0, 0, Usage(), ""
        self.spent, self._spent_before = 0.0, 0.0
        self._begun = self._logged = time.perf_counter()
        self._log_every = log_every
        self._bar = _bar(what, total) if sys.stderr.isatty() else None

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

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar:
            self._show()
            self._bar.stop()
        else:
            log.info("%s", self._text())

    def _text(self) -> str:
        seconds = max(time.perf_counter() - self._begun, 1e-9)
        total = f"/{self.total}" if self.total is not None else ""
        fresh = self.done - self.old
        parts = [f"{self.what}: {self.done}{total} {self.unit}", f"{fresh / seconds:.1f}/s"]
        if self.usage.policy_calls:
            tokens = f"{self.usage.generated_tokens / seconds:.0f} tokens/s"
            parts.append(
                f"{self.usage.policy_calls} policy calls, "
                f"{self.usage.generated_tokens} tokens ({tokens})"
            )
        if self.usage.cost:
            parts.append(f"cost {self.usage.cost:.2f}")
        return ", ".join([part for part in (*parts, self._rest(seconds, fresh), self.note) if part])

    def _rest(self, seconds: float, fresh: int) -> str:
        """What the remaining pieces, or the rest of the budget, will take if they are like what was
        done so far."""
        if not self.total or not fresh or not self.usage.policy_calls or self.done >= self.total:
            return ""
        ratio = (self.total - self.done) / fresh
        if self.spent > self._spent_before:
            ratio = min(ratio, max(0.0, 1 - self.spent) / (self.spent - self._spent_before))
        money = f", cost {self.usage.cost * ratio:.2f}" if self.usage.cost else ""
        calls = f"{self.usage.policy_calls * ratio:,.0f} calls"
        return f"left about {calls}{money}, {_span(seconds * ratio)}"

    def _show(self) -> None:
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=self.done, description=self._text())
        elif time.perf_counter() - self._logged > self._log_every:
            self._logged = time.perf_counter()
            log.info("%s", self._text())


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _bar(what: str, total: int | None) -> Any:  # rich is imported only where there is a terminal
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        BarColumn(20),
        TextColumn("{task.description}", markup=False),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        refresh_per_second=4,
    )
    bar.add_task(what, total=total)
    return bar
