"""Many coroutines at once: order of results, how many run, and what an error does to the others."""

import asyncio

import pytest

from rro.concurrency import for_each, gather_all, map_all


def test_results_are_in_the_order_of_the_items_and_few_run_at_once():
    running, most, items = 0, 0, list(range(20))

    async def work(item):
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(item % 5):  # later ones overtake
            await asyncio.sleep(0)
        running -= 1
        return item * item

    assert asyncio.run(map_all(items, work, 3)) == [item * item for item in items]
    assert most == 3
    assert asyncio.run(map_all([], work, 3)) == []


def test_the_first_error_cancels_the_others_and_is_raised():
    started, cancelled = [], []

    async def work(item):
        started.append(item)
        if item == 2:
            raise LookupError("two")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(item)
            raise

    with pytest.raises(LookupError, match="two"):
        asyncio.run(for_each(range(100), work, 3))
    assert (started, sorted(cancelled)) == ([0, 1, 2], [0, 1])


def test_gather_all_waits_for_every_one_before_it_raises():
    ended = []

    async def fails():
        raise LookupError("at once")

    async def ends():
        await asyncio.sleep(0)
        ended.append(True)
        return 1

    with pytest.raises(LookupError, match="at once"):
        asyncio.run(gather_all([fails(), ends(), ends()]))
    assert ended == [True, True]
    assert asyncio.run(gather_all([ends(), ends()])) == [1, 1]
