"""A server that was there and can no longer be reached: the run waits for it, and says so."""

from __future__ import annotations

import asyncio
import logging
import time

from rro.errors import RroError

log = logging.getLogger(__name__)

UNREACHABLE = "unreachable"
"""The kind of failure where there is no connection at all."""

# Seconds between two attempts, and between two lines about it.
_ASK_EVERY, _SAY_EVERY = 2.0, 60.0


class Outage:
    """The time for which the server at `url` cannot be reached, at most `longest` seconds. All
    requests to it share one."""

    def __init__(self, url: str, longest: float) -> None:
        self._url, self._longest = url, longest
        self._answered, self._since, self._said = False, 0.0, 0.0

    @property
    def counts(self) -> bool:
        """Whether to wait: the server has answered before, so its address is right."""
        return self._answered and self._longest > 0

    def over(self) -> None:
        """The server answered."""
        self._answered = True
        if self._since:
            waited, self._since = time.monotonic() - self._since, 0.0
            log.warning("%s answers again, after %.0f s", self._url, waited)

    async def wait(self, reason: str) -> None:
        """Wait a moment. Raises RroError where that was for too long."""
        now = time.monotonic()
        if not self._since:
            self._since, self._said = now, 0.0
        if now > self._since + self._longest:
            raise RroError(
                f"{self._url} could not be reached for {self._longest:g} s ({reason}): start the "
                "server, then resume the run"
            )
        if now > self._said + _SAY_EVERY:
            self._said = now
            log.warning("%s cannot be reached (%s): waiting for it", self._url, reason)
        await asyncio.sleep(min(_ASK_EVERY, self._longest / 4))
