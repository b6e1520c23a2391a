"""An event loop in a thread of its own, for what outlives its callers' loops: each stage of a run
has one."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from rro.errors import RroError

T = TypeVar("T")


class LoopThread:
    """Runs coroutines that are handed in from any thread or loop. `what` names it in errors: "the
    connection to X"."""

    def __init__(self, what: str) -> None:
        self._what, self._closed = what, False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=what, daemon=True)
        self._thread.start()

    async def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` here, from a coroutine in any other loop. Raises RroError once `refuse` was
        called."""
        return await asyncio.wrap_future(self._submit(work))

    def do_now(self, work: Coroutine[Any, Any, T]) -> T:
        """The same for a caller without a loop: waits."""
        return self._submit(work).result()

    def refuse(self) -> bool:
        """Take no more work, and cancel what is in flight: its callers get an RroError. False if it
        was so before."""
        if self._closed:
            return False
        self._closed = True
        asyncio.run_coroutine_threadsafe(self._cancel(), self._loop).result()
        return True

    def stop(self, last: Coroutine[Any, Any, None] | None = None) -> None:
        """After `refuse`: run `last`, then end the thread."""
        if last is not None:
            asyncio.run_coroutine_threadsafe(last, self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        if self._closed:
            work.close()
            raise RroError(f"{self._what} is closed")
        return asyncio.run_coroutine_threadsafe(self._tracked(work), self._loop)

    async def _tracked(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            return await work
        except asyncio.CancelledError:
            if self._closed:
                raise RroError(f"{self._what} was closed before it answered") from None
            raise
        finally:
            self._tasks.discard(task)

    async def _cancel(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # let the callers hear of it
