"""Waits between attempts, and the limit of concurrent requests."""

import asyncio
import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rro.policies.api.backoff import (
    FIRST_WAIT,
    LONGEST_WAIT,
    AdaptiveLimit,
    TransientError,
    backoff,
    parse_retry_after,
)

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@given(st.integers(0, 10_000), st.integers(0, 2**32))
def test_waits_double_with_jitter_up_to_a_bound(attempt, seed):
    wait, whole = (
        backoff(attempt, random.Random(seed)),
        min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(attempt, 20)),
    )
    assert whole / 2 <= wait <= whole


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("1.5", 1.5),
        (" 20 ", 20.0),
        ("Sun, 22 Nov 2026 12:00:30 GMT", 30.0),
        ("Sun, 22 Nov 2026 11:59:00 GMT", 0.0),
        ("Sunday, 22-Nov-26 12:00:30 GMT", 30.0),
        ("-5", None),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after(value, seconds):
    assert parse_retry_after(value, NOW) == seconds


@given(
    most=st.integers(1, 64),
    ends=st.lists(st.sampled_from(["ok", "overload", "error", "other"]), max_size=60),
)
def test_the_limit_stays_between_one_and_its_maximum(most, ends):
    async def body():
        limit = AdaptiveLimit(most)
        for end in ends:
            before = limit.now
            try:
                async with limit.slot():
                    assert limit.busy == 1
                    if end == "other":
                        raise KeyError
                    if end != "ok":
                        raise TransientError("kind", "text", overload=end == "overload")
            except (TransientError, KeyError):
                pass
            assert limit.busy == 0
            assert 1 <= limit.now <= most
            if end == "overload":
                assert limit.now == max(1, before / 2)
            else:
                assert (limit.now >= before) if end == "ok" else (limit.now == before)

    asyncio.run(body())


def test_one_wave_of_429_halves_the_limit_once_and_success_restores_it():
    async def body():
        limit = AdaptiveLimit(16)
        all_inside = asyncio.Event()

        async def refused():
            async with limit.slot():
                if limit.busy == 16:
                    all_inside.set()
                await all_inside.wait()
                raise TransientError("429", "too many", overload=True)

        results = await asyncio.gather(*(refused() for _ in range(16)), return_exceptions=True)
        assert all(isinstance(result, TransientError) for result in results)
        assert (limit.now, limit.lowest) == (8, 8)
        for _ in range(16 * 16):
            async with limit.slot():
                pass
        assert limit.now == 16

    asyncio.run(body())


@given(st.integers(1, 5), st.lists(st.booleans(), min_size=1, max_size=30), st.integers(0, 2**32))
def test_every_waiting_request_gets_its_turn_within_the_limit(most, cancelled, seed):
    """Also if some are cancelled while they wait."""

    async def body():
        limit, done, rng = AdaptiveLimit(most), [], random.Random(seed)

        async def work(number):
            async with limit.slot():
                assert limit.busy <= most
                for _ in range(rng.randrange(3)):
                    await asyncio.sleep(0)
                done.append(number)

        tasks = [asyncio.ensure_future(work(number)) for number in range(len(cancelled))]
        for task, give_up in zip(tasks, cancelled, strict=True):
            if rng.random() < 0.5:
                await asyncio.sleep(0)
            if give_up:
                task.cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
        assert {number for number, give_up in enumerate(cancelled) if not give_up} <= set(done)
        assert limit.busy == 0

    asyncio.run(body())
