"""Many coroutines at once, with results and errors that do not depend on which ends first. Knows
nothing of what they do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from rro.errors import PluginError, as_interrupt

T = TypeVar("T")
Item = TypeVar("Item")


@contextmanager
def contained() -> Iterator[None]:
    """Around the code of a plug-in: what it raises is an Exception, its failure, and ends neither
    this process nor this worker in silence. Raises PluginError in place of SystemExit,
    CancelledError and the like. A cancellation that was asked for, and Ctrl-C, pass."""
    try:
        with as_interrupt():
            yield
    except Exception:
        raise
    except BaseException as error:
        if _is_ours(error):
            raise
        raise PluginError(error) from error


def _is_ours(error: BaseException) -> bool:
    """Whether the user or this program stopped the work. In a task of an event loop, Ctrl-C arrives
    as a cancellation; elsewhere as KeyboardInterrupt."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    if task is None:
        return isinstance(error, KeyboardInterrupt | GeneratorExit)
    return task.cancelling() > 0


async def gather_all(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all together, wait for every one to end, then raise the first error if there is one.
    Returns the results in the order of the coroutines."""

    async def run(coroutine: Coroutine[Any, Any, T]) -> T:
        with contained():
            return await coroutine

    results = await asyncio.gather(*map(run, coroutines), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results  # type: ignore[return-value]


async def for_each(
    items: Iterable[Item], work: Callable[[Item], Awaitable[None]], workers: int
) -> None:
    """Await `work` for every item, for at most `workers` at once: the next begins when one ends.
    The first error cancels the others and is raised."""
    queue = iter(items)

    async def worker() -> None:
        for item in queue:
            with contained():
                await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(worker())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def map_all(
    items: Iterable[Item], work: Callable[[Item], Awaitable[T]], workers: int
) -> list[T]:
    """The results of `work` in the order of the items; otherwise as `for_each`."""
    listed = list(items)
    results: dict[int, T] = {}

    async def keep(number: int) -> None:
        results[number] = await work(listed[number])

    await for_each(range(len(listed)), keep, min(workers, len(listed)))
    return [results[number] for number in range(len(listed))]
