"""An event loop in a thread of its own, for what outlives its callers' event loops: each stage of a
run has one."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from rro.errors import RroError

T = TypeVar("T")
# Seconds after which a thread that waits notices what was raised in it.
_POLL = 1.0


class LoopThread:
    """Runs coroutines that come from any thread or event loop. `name` stands in errors: "the
    connection to X"."""

    def __init__(self, name: str) -> None:
        self._name, self._closed = name, False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` here and await its result in the caller's loop. Raises RroError if the thread
        is closed, or is closed before `work` ends."""
        future = self._submit(work)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if self._closed and caller is not None and not caller.cancelling():
                raise RroError(f"{self._name} was closed before it answered") from None
            raise

    def run_blocking(self, work: Coroutine[Any, Any, T]) -> T:
        """The same for a caller without an event loop: waits. An error that is raised in the
        waiting thread from outside ends the wait within `_POLL` seconds, and cancels `work`."""
        future = self._submit(work)
        try:
            while not future.done():
                concurrent.futures.wait([future], _POLL)
        except BaseException:
            future.cancel()
            raise
        return future.result()

    def close(self, last: Callable[[], Awaitable[None]]) -> bool:
        """Cancel what is running, await `last` and end the thread. False if it was closed
        before."""
        if self._closed:
            return False
        self._closed = True
        asyncio.run_coroutine_threadsafe(_cancel_all(last), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        return True

    def _submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        if self._closed:
            work.close()
            raise RroError(f"{self._name} is closed")
        return asyncio.run_coroutine_threadsafe(work, self._loop)


async def _cancel_all(last: Callable[[], Awaitable[None]]) -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await last()
