"""When to retry a request, and how many requests a server can take at once.

Plain arithmetic: knows neither HTTP nor models."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

# seconds
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0


class TransientError(Exception):
    """A failure after which the request is sent again. `kind` is its name in the account of
    failures, `overload` whether the server had too much to do, `retry_after` the wait in seconds
    that the server asked for."""

    def __init__(
        self, kind: str, text: str, *, overload: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(text)
        self.kind, self.overload, self.retry_after = kind, overload, retry_after


@dataclass
class Patience:
    """The seconds that a request may still wait because of the server."""

    left: float = float("inf")

    async def wait(self, seconds: float) -> bool:
        """Wait, if that much is left; returns whether it was."""
        if seconds > self.left:
            return False
        self.left -= seconds
        await asyncio.sleep(seconds)
        return True


def backoff(attempt: int, rng: random.Random) -> float:
    """Seconds to wait after attempt number `attempt` (from 0): doubling, with "equal jitter"."""
    longest = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(attempt, 16))
    return longest * rng.uniform(0.5, 1.0)


def parse_retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds to wait by a Retry-After header, which holds a number or an HTTP date; None if it is
    absent or invalid. A date in the past gives 0. `now` is for tests."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
            date = date.replace(tzinfo=UTC) if date.tzinfo is None else date
            return max(0.0, (date - (now or datetime.now(UTC))).total_seconds())
        except (ValueError, OverflowError, TypeError, IndexError):
            return None
    return seconds if 0 <= seconds < float("inf") else None


class AdaptiveLimit:
    """Limits the requests in flight to at most `most`, halves that when the server has too much to
    do, and raises it by one for each full round of answers after that (additive increase,
    multiplicative decrease, as in TCP). For one event loop.

    `now` is the limit, `busy` how many requests are in flight, `lowest` the lowest limit so far."""

    def __init__(self, most: int) -> None:
        self.most, self.now = most, float(most)
        self.busy, self.lowest = 0, most
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._decreases = 0
        self._pause_until = 0.0

    @asynccontextmanager
    async def slot(self, patience: Patience | None = None) -> AsyncIterator[None]:
        """Wait until one more request may be sent, and adapt the limit to how it ends. A pause that
        the server asks for lets all requests wait, unless it is beyond the request's patience.
        Raises TransientError if such a pause of another request is."""
        patience = patience or Patience()
        await self._enter(patience)
        decreases = self._decreases
        try:
            yield
        except TransientError as error:
            if error.overload:
                self._decrease(decreases)
            if error.retry_after and error.retry_after <= patience.left:
                self._pause(error.retry_after)
            raise
        else:
            self.now = min(float(self.most), self.now + 1 / self.now)
        finally:
            self.busy -= 1
            self._wake()

    def _decrease(self, decreases: int) -> None:
        """Halve the limit, unless that was done since the request began, after `decreases`
        times."""
        if decreases == self._decreases:
            self._decreases += 1
            self.now = max(1.0, self.now / 2)
            self.lowest = min(self.lowest, int(self.now))

    def _pause(self, seconds: float) -> None:
        """Let all requests wait as long as the server asked one of them to."""
        self._pause_until = max(self._pause_until, asyncio.get_running_loop().time() + seconds)

    async def _enter(self, patience: Patience) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if (left := self._pause_until - loop.time()) > 0:
                if not await patience.wait(left):
                    self._wake()
                    raise TransientError("pause", f"it asks for a pause of {left:.0f} s more")
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
            # woken, but no longer there to use it
            if turn.done():
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
