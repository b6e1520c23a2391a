"""What is in flight: tasks begin as others end, none waits forever, and one that hangs stalls no
other."""

import asyncio
import itertools
import threading
from dataclasses import dataclass, field

import pytest
from fakes import (
    TREE,
    ForkableTreeEnvironment,
    TreeBenchmark,
    explore,
    finished_trees,
    fresh_journal,
    make_context,
    pairs_of,
    uniform,
)

from rro.exploration.strategies.adaptive import AdaptiveExploration
from rro.exploration.strategies.fixed_size import FixedSizeExploration
from rro.exploration.strategies.rft import RejectionSampling
from rro.exploration.strategies.rising import RisingExploration
from rro.types import Message


def forest(count):
    return {f"t{number}": TREE for number in range(count)}


@dataclass
class Held:
    """Explores nothing; the tasks in `hold` end only when all others have. Notes what was open at
    each beginning."""

    others: int
    hold: frozenset[str]
    name: str = "held"
    started: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    open: list[int] = field(default_factory=list)

    async def explore(self, sampler):
        self.started.append(sampler.task.id)
        self.open.append(len(self.started) - len(self.ended))
        while sampler.task.id in self.hold and len(self.ended) < self.others:
            await asyncio.sleep(0)
        self.ended.append(sampler.task.id)

    def pairs(self, tree, iteration):
        return []

    def demonstrations(self, tree):
        return []


def test_tasks_begin_as_others_end_and_the_slow_ones_hold_up_none(tmp_path):
    """Two of three places are held to the end: all the others go through the third."""
    strategy = Held(48, frozenset({"t0", "t7"}))
    with fresh_journal(tmp_path) as journal:
        assert (
            explore(strategy, make_context(TreeBenchmark(forest(50)), uniform(), journal), 3) == []
        )
    assert strategy.started == list(forest(50))  # in their order
    assert set(strategy.ended[-2:]) == {"t0", "t7"}
    assert max(strategy.open) == 3


class InFlight:
    """A policy that answers late, and counts the most that were asked at once."""

    def __init__(self):
        self.inner, self.name, self.now, self.most = uniform(), "uniform", 0, 0

    async def sample(self, messages, n, params, seed):
        self.now += 1
        self.most = max(self.most, self.now)
        for _ in range(20):
            await asyncio.sleep(0)
        self.now -= 1
        return await self.inner.sample(messages, n, params, seed)


@pytest.mark.parametrize(
    ("strategy", "at_once"),
    [
        (RisingExploration(3, 4), 3),
        (FixedSizeExploration(3, 4), 3 * 4),
        (RejectionSampling(5), 5),
        (AdaptiveExploration(draws=4), 4),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_calls_in_flight_are_bounded_by_the_tasks_in_flight(tmp_path, strategy, at_once):
    policy, benchmark = InFlight(), TreeBenchmark(forest(60))
    with fresh_journal(tmp_path) as journal:
        assert explore(strategy, make_context(benchmark, policy, journal), 5) == []
    assert at_once < policy.most <= 5 * at_once
    assert benchmark.calls.most_open <= 5 * at_once
    assert benchmark.calls.made == benchmark.calls.closed


class Named(ForkableTreeEnvironment):
    """Says which task it is."""

    def reset(self, task, seed=0):
        return [Message("system", task.id), *super().reset(task, seed)[1:]]


class Queue:
    """A policy that answers one request after another, in the order in which they come, and notes
    whose."""

    def __init__(self):
        self.inner, self.name, self.turn, self.served = uniform(), "uniform", asyncio.Lock(), []

    async def sample(self, messages, n, params, seed):
        async with self.turn:
            await asyncio.sleep(0)
            self.served.append(messages[0].content)
            return await self.inner.sample(messages, n, params, seed)


def test_a_long_task_goes_on_among_many_short_ones(tmp_path):
    """Between two of its answers it waits for a turn at most six times with an environment (for a
    candidate: make, restore, step, snapshot; for its rollout: make, restore) and once with the
    policy; at each, every other task in flight goes first once."""
    long = 1.0
    for _ in range(12):
        long = {"a": long}
    trees = {"short 0": {"a": 1.0}, "long": long} | {
        f"short {n}": {"a": {"b": 0.5}} for n in range(1, 200)
    }
    policy, concurrency = Queue(), 4
    with fresh_journal(tmp_path) as journal:
        context = make_context(TreeBenchmark(trees, Named, max_steps=12), policy, journal)
        assert explore(RisingExploration(1, 1), context, concurrency) == []
    turns = [number for number, task in enumerate(policy.served) if task == "long"]
    assert len(turns) > 50
    assert max(after - before for before, after in itertools.pairwise(turns)) <= 1 + (6 + 1) * (
        concurrency - 1
    )


@pytest.mark.parametrize("blocking", [False, True])
@pytest.mark.parametrize("where", ["reset", "step", "make"])
def test_tasks_whose_environment_hangs_are_missing_and_the_others_as_ever(
    tmp_path, where, blocking
):
    never, hanging = threading.Event(), frozenset({"t0", "t1", "t5"})

    class Hangs(ForkableTreeEnvironment):
        def reset(self, task, seed=0):
            if where == "reset" and task.id in hanging:
                never.wait()
            return super().reset(task, seed)

        def step(self, action):
            if where == "step" and self.task in hanging:
                never.wait()
            return super().step(action)

    class Benchmark(TreeBenchmark):
        def make(self):
            if where == "make" and self.calls.made % 50 == 7:
                self.calls.count("made")
                never.wait()
            return super().make()

    with fresh_journal(tmp_path, "calm") as journal:
        explore(
            RisingExploration(2, 2), make_context(TreeBenchmark(forest(10)), uniform(), journal)
        )
        calm = finished_trees(journal)
    with fresh_journal(tmp_path, "hung") as journal:
        benchmark = Benchmark(forest(10), Hangs, blocking=blocking)
        context = make_context(benchmark, uniform(), journal, step_timeout=0.5, retries=2)
        failed = explore(RisingExploration(2, 2), context)
        found = finished_trees(journal)
    never.set()
    assert set(failed) == (set() if where == "make" else hanging)
    assert set(found) == {key for key in calm if key.removeprefix("0/") not in failed}
    strategy = RisingExploration(2, 2)
    for key, tree in found.items():
        assert pairs_of(strategy, tree, 0) == pairs_of(strategy, calm[key], 0)
        assert [node.id for node in tree.committed()] == [node.id for node in calm[key].committed()]
    assert found
