"""Calls into environments: short ones in turn, long ones aside, hung ones given up; no thread
outlives its use."""

import asyncio
import gc
import multiprocessing
import threading
import time

import pytest

from rro.environments import calls
from rro.environments.base import Environment
from rro.environments.calls import call_with_timeout
from rro.errors import RroError
from rro.exploration.forks import Watched


@pytest.fixture
def hanging():
    """How many calls hang before the test; those of other tests may only just be ending."""
    for _ in range(100):
        if calls.hanging_calls() == 0:
            break
        time.sleep(0.02)
    return calls.hanging_calls()


class Quick(Environment):
    def reset(self, task, seed=0):
        raise NotImplementedError

    def step(self, action):
        raise NotImplementedError


class Other(Quick):
    """Of another class, so that what Quick's calls did is not held against it."""


class Blocking(Quick):
    blocking = True


def together(*coroutines):
    async def gathered():
        return await asyncio.gather(*coroutines, return_exceptions=True)

    return asyncio.run(gathered())


def test_short_calls_are_made_in_turn_in_one_thread_and_blocking_ones_each_in_its_own():
    open_calls, most, threads = [], [], set()
    barrier = threading.Barrier(20)

    def call(number):
        open_calls.append(number)
        most.append(len(open_calls))
        threads.add(threading.current_thread())
        open_calls.remove(number)
        return number

    assert together(
        *(call_with_timeout(Quick(), 60, lambda n=n: call(n)) for n in range(200))
    ) == list(range(200))
    assert (max(most), len(threads)) == (1, 1)
    assert threading.current_thread() not in threads
    assert sorted(
        together(*(call_with_timeout(Blocking(), 60, barrier.wait) for _ in range(20)))
    ) == list(range(20))


@pytest.mark.parametrize("kind", [Quick, Blocking])
@pytest.mark.parametrize("error", [ValueError("no"), StopIteration("no"), SystemExit("no")])
def test_what_a_call_raises_is_raised_where_it_is_awaited(kind, error):
    def fail():
        raise error

    async def catch():
        with pytest.raises(BaseException, match=r"no|StopIteration") as caught:
            await call_with_timeout(kind(), 60, fail)
        return caught.value

    raised = asyncio.run(catch())
    assert (
        raised is error or raised.__cause__ is error
    )  # Python makes a RuntimeError of a StopIteration in a coroutine


@pytest.mark.parametrize("kind", [Quick, Blocking])
def test_calls_that_hang_are_given_up_and_stall_no_other(kind):
    never = threading.Event()

    async def work():
        hung = [asyncio.ensure_future(call_with_timeout(kind(), 0.1, never.wait)) for _ in range(5)]
        quick = await asyncio.gather(
            *(call_with_timeout(Other(), 60, lambda n=n: n) for n in range(50))
        )
        return quick, await asyncio.gather(*hung, return_exceptions=True)

    quick, hung = asyncio.run(work())
    never.set()
    assert quick == list(range(50))
    assert [str(error) for error in hung] == [f"{kind.__name__} did not answer within 0.1 s"] * 5


def test_a_long_call_that_ends_in_time_holds_up_the_others_once(monkeypatch):
    """While the first is being made, another of its class begins and ends: in a thread of its
    own."""
    monkeypatch.setattr(calls, "PATIENCE", 0.05)
    ended = threading.Event()
    assert together(
        call_with_timeout(Quick(), 60, lambda: ended.wait(60)),
        call_with_timeout(Quick(), 60, ended.set),
    ) == [True, None]

    async def again():
        first, barrier = threading.Event(), threading.Barrier(2)
        await asyncio.gather(
            call_with_timeout(Quick(), 60, lambda: first.wait(60)),
            call_with_timeout(Quick(), 60, first.set),
        )
        return await asyncio.gather(
            *(call_with_timeout(Quick(), 60, lambda: barrier.wait(60)) for _ in range(2))
        )

    assert sorted(asyncio.run(again())) == [0, 1]


def test_a_wrapped_environment_goes_by_its_own_name():
    never = threading.Event()
    (error,) = together(call_with_timeout(Watched(Blocking(), []), 0.05, never.wait))
    never.set()
    assert str(error) == "Blocking did not answer within 0.05 s"


@pytest.mark.parametrize("kind", [Quick, Blocking])
def test_a_thread_that_runs_for_ever_in_python_is_ended(kind, hanging):
    threads = []

    def spin():
        threads.append(threading.current_thread())
        while True:
            pass

    (error,) = together(call_with_timeout(kind(), 0.1, spin))
    assert isinstance(error, TimeoutError)
    threads[0].join(60)
    assert not threads[0].is_alive()
    assert calls.hanging_calls() <= hanging


def test_where_too_many_hang_the_run_ends_before_the_process_does(monkeypatch, hanging):
    monkeypatch.setattr(calls, "MOST_HANGING", hanging + 3)
    never = threading.Event()
    errors = together(*(call_with_timeout(Blocking(), 0.05, never.wait) for _ in range(3)))
    assert [type(error) for error in errors].count(RroError) == 1
    assert f"{hanging + 3} calls of Blocking never came back" in str(
        next(e for e in errors if isinstance(e, RroError))
    )
    threads = [thread for thread in threading.enumerate() if thread.name == "Blocking"]
    never.set()
    for thread in threads:
        thread.join(60)
    assert calls.hanging_calls() <= hanging  # those that come back after all are no longer counted


def test_what_no_one_waits_for_is_not_begun():
    made, holding, free = [], threading.Event(), threading.Event()

    async def work():
        first = asyncio.ensure_future(
            call_with_timeout(Quick(), 60, lambda: (holding.set(), free.wait(60)))
        )
        second = asyncio.ensure_future(
            call_with_timeout(Quick(), 60, lambda: made.append("second"))
        )
        while not holding.is_set():
            await asyncio.sleep(0)
        second.cancel()
        await asyncio.sleep(0)
        free.set()
        await first
        await call_with_timeout(Quick(), 60, lambda: made.append("third"))

    asyncio.run(work())
    assert made == ["third"]


def test_threads_end_with_their_event_loop():
    threads = [
        together(call_with_timeout(Quick(), 60, threading.current_thread))[0] for _ in range(5)
    ]
    gc.collect()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


def _called():
    return asyncio.run(call_with_timeout(Quick(), 60, lambda: 17))


def test_a_forked_process_has_threads_of_its_own():
    async def fork():
        assert await call_with_timeout(Quick(), 60, lambda: 1) == 1
        with multiprocessing.get_context("fork").Pool(1) as pool:
            return pool.apply_async(asyncio_free, ()).get(60)

    assert asyncio.run(fork()) == 17


def asyncio_free():
    """In the child: outside of the loop that was running in its parent."""
    answer = []
    thread = threading.Thread(target=lambda: answer.append(_called()))
    thread.start()
    thread.join(60)
    return answer[0]
