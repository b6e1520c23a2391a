"""When to ask a server again, and how many requests it can take: plain arithmetic, no network.

Knows neither HTTP nor models.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0


class Fault(Exception):
    """Something that may pass, so the request is sent again. `kind` is for the account of what went
    wrong; `overload` says that the server had too much to do; `retry_after` is how many seconds it
    asked for."""

    def __init__(
        self, kind: str, text: str, *, overload: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(text)
        self.kind, self.overload, self.retry_after = kind, overload, retry_after


def backoff(attempt: int, rng: random.Random) -> float:
    """Seconds to wait after try number `attempt` (from 0): doubling, with "equal jitter", so that
    requests that failed together do not come back together."""
    longest = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(attempt, 16))
    return longest * rng.uniform(0.5, 1.0)


def parse_retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds from a Retry-After header, which holds a number or an HTTP date; None where it is
    absent or senseless. A date in the past means now."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        date = date.replace(tzinfo=UTC) if date.tzinfo is None else date
        return max(0.0, (date - (now or datetime.now(UTC))).total_seconds())
    return seconds if 0 <= seconds < float("inf") else None


class AdaptiveLimit:
    """How many requests are in flight: at most `most`, halved when the server has too much to do,
    and one more for each full round of answers after that (additive increase, multiplicative
    decrease). For one event loop."""

    def __init__(self, most: int) -> None:
        self.most, self.now = most, float(most)
        self.busy, self.lowest = 0, most
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._decreases = 0
        self._pause_until = 0.0

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a place, and learn from how the request inside ends: a Fault is looked at and
        passed on."""
        await self._enter()
        begun = self._decreases
        try:
            yield
        except Fault as fault:
            if fault.overload:
                self._decrease(begun)
            if fault.retry_after:
                self._pause(fault.retry_after)
            raise
        else:
            self.now = min(float(self.most), self.now + 1 / self.now)
        finally:
            self.busy -= 1
            self._wake()

    def _decrease(self, begun: int) -> None:
        """Requests that were already in flight at the last decrease say nothing about the limit
        since then."""
        if begun == self._decreases:
            self._decreases += 1
            self.now = max(1.0, self.now / 2)
            self.lowest = min(self.lowest, int(self.now))

    def _pause(self, seconds: float) -> None:
        """What one request is told ("come back in 20 s") holds for all."""
        self._pause_until = max(self._pause_until, asyncio.get_running_loop().time() + seconds)

    async def _enter(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if (left := self._pause_until - loop.time()) > 0:
                await asyncio.sleep(left)
            elif self.busy < int(self.now):
                break
            else:
                await self._turn(loop)
        self.busy += 1

    async def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        turn = loop.create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done():  # woken, but no longer there to use it
                self._wake()
            raise
        finally:
            if turn in self._waiting:
                self._waiting.remove(turn)

    def _wake(self) -> None:
        free = int(self.now) - self.busy
        while free > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                free -= 1
