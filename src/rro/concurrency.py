"""Many coroutines at once, with results and errors that do not depend on which ends first. Knows
nothing of what they do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
Item = TypeVar("Item")


async def gather_all(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all together, wait for every one to end, then raise the first error if there is one.
    Returns the results in the order of the coroutines."""
    results = await asyncio.gather(*coroutines, return_exceptions=True)
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
