"""Environments whose methods are coroutines: same trees, all at once, and what they raise
or wait for ever for is their failure."""

import asyncio
import threading

import pytest
from fakes import (
    ROLL_OUT,
    ForkableTreeEnvironment,
    TreeBenchmark,
    TreeEnvironment,
    explore,
    finished_trees,
    fresh_journal,
    make_context,
    pairs_of,
    uniform,
)

from rro.environments.base import Environment, TaskList
from rro.episodes.loop import Limits, play_task
from rro.exploration.strategies.fixed_size import FixedSizeExploration
from rro.types import Message, StepResult, StopReason, Task

TREES = {
    "t": {"a": {"c": 0.0, "d": 1.0}, "b": {"c": 0.25, "d": 0.5}},
    "u": {"a": 0.0, "b": {"c": 1.0, "d": {"e": 1.0, "f": 0.0}}},
}


class Awaited(TreeEnvironment):
    """The same as coroutines, which give up their turn in each call."""

    async def reset(self, task, seed=0):
        await asyncio.sleep(0)
        return super().reset(task, seed)

    async def step(self, action):
        await asyncio.sleep(0)
        return super().step(action)

    async def truncated_reward(self):
        return super().truncated_reward()

    async def close(self):
        await asyncio.sleep(0)
        super().close()


class AwaitedSnapshots(Awaited, ForkableTreeEnvironment):
    async def snapshot(self):
        return super().snapshot()

    async def restore(self, snapshot):
        super().restore(snapshot)


@pytest.mark.parametrize(
    ("plain", "awaited"),
    [(TreeEnvironment, Awaited), (ForkableTreeEnvironment, AwaitedSnapshots)],
)
def test_coroutines_give_the_same_pairs(tmp_path, plain, awaited):
    found, strategy = [], FixedSizeExploration()
    for kind in (plain, awaited):
        benchmark = TreeBenchmark(TREES, kind, max_steps=2, truncated=0.125)
        with fresh_journal(tmp_path, f"{kind.__name__}.jsonl") as journal:
            assert explore(strategy, make_context(benchmark, uniform(), journal)) == []
            trees = finished_trees(journal)
            found.append({key: pairs_of(strategy, tree) for key, tree in trees.items()})
        assert benchmark.calls.made == benchmark.calls.closed > 0
    assert found[0] == found[1]
    assert any(found[0].values())


def play(environment, count=1, timeout=60.0):
    """`count` episodes of one step at once."""
    benchmark = TaskList("awaited", environment, {"train": [Task("t")]})
    limits = Limits(step_timeout=timeout)

    async def together():
        episodes = (
            play_task(
                benchmark,
                uniform(),
                Task("t"),
                params=ROLL_OUT,
                limits=limits,
                seed=seed,
                environment_seed=0,
            )
            for seed in range(count)
        )
        return await asyncio.gather(*episodes)

    return asyncio.run(together())


class Meeting(Environment):
    """A step ends when 20 environments are in it. One gathering serves several event loops."""

    barrier = None

    async def reset(self, task, seed=0):
        Meeting.barrier = Meeting.barrier or asyncio.Barrier(20)
        return [Message("user", "at : go a")]

    async def step(self, action):
        await Meeting.barrier.wait()
        return StepResult("all are here", reward=1.0, done=True)


def test_all_wait_at_once_and_keep_what_they_opened_beyond_an_event_loop():
    for _ in range(2):
        assert [episode.reward for episode in play(Meeting, 20)] == [1.0] * 20


class Raising(Meeting):
    async def step(self, action):
        raise self.error


@pytest.mark.parametrize(
    "raised",
    [ValueError("no"), SystemExit("no"), KeyboardInterrupt("no"), asyncio.CancelledError("no")],
)
def test_what_a_coroutine_raises_is_its_failure(raised):
    kind = type(raised).__name__
    (episode,) = play(type("Once", (Raising,), {"error": raised}))
    assert (episode.reward, episode.stop) == (None, StopReason.FAILED)
    assert episode.error == f"{kind}: no"
    assert [episode.reward for episode in play(Meeting, 20)] == [1.0] * 20


class Stuck(Meeting):
    ended = None

    async def step(self, action):
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()


def test_a_coroutine_that_waits_for_ever_is_given_up_and_cancelled():
    ended = threading.Event()
    (episode,) = play(type("Hanging", (Stuck,), {"ended": ended}), timeout=0.1)
    assert episode.error == "TimeoutError: Hanging did not answer within 0.1 s"
    assert ended.wait(60)
