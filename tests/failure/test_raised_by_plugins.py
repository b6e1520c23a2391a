"""Whatever an environment, a policy or a strategy raises is its failure: retried, then missing, and
counted by its class. And what an environment answers is compared as it is stored."""

import asyncio
import os

import numpy as np
import pytest
from fakes import (
    Counted,
    ForkableTreeEnvironment,
    TreeBenchmark,
    TreeEnvironment,
    explore,
    finished_trees,
    fresh_journal,
    make_context,
    uniform,
)

from rro.episodes.loop import Limits
from rro.errors import PluginError, describe, printable
from rro.evaluation.evaluate import evaluate
from rro.exploration.explorer import explore as explore_tasks
from rro.exploration.strategies.base import Strategy
from rro.exploration.strategies.rising import RisingExploration
from rro.runs.progress import Progress
from rro.types import Message, SamplingParams, StepResult, Task

TREE = {"a": {"x": 0.2, "y": 0.9}, "b": {"x": 0.6, "y": 0.3}}
FOREST = {f"t{number}": TREE for number in range(6)}
STRATEGY = RisingExploration(2, 2)


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class Own(BaseException):
    pass


RAISED = [
    SystemExit(0),
    SystemExit(3),
    KeyboardInterrupt(),
    asyncio.CancelledError(),
    TimeoutError(),
    GeneratorExit(),
    Own("mine"),
    BaseExceptionGroup("several", [SystemExit(1)]),
    ExceptionGroup("several", [ValueError("one")]),
    RecursionError("deep"),
    MemoryError(),
    StopIteration("end"),
    StopAsyncIteration(),
    Unprintable(),
    ValueError("\x1b[2J\x07" + "long " * 100_000),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
]
NAMES = [type(error).__name__ for error in RAISED]


def of_one_task(error):
    """Raises it at each step of task t3."""

    class Raising(ForkableTreeEnvironment):
        def step(self, action):
            if self.task == "t3":
                raise error
            return super().step(action)

    return Raising


@pytest.mark.parametrize("error", RAISED, ids=NAMES)
def test_what_an_environment_raises_costs_its_task_and_no_other(tmp_path, caplog, error):
    with fresh_journal(tmp_path) as journal:
        context = make_context(TreeBenchmark(FOREST, of_one_task(error)), uniform(), journal)
        tasks = context.benchmark.tasks()
        with Progress("explore", None, "tasks") as progress:
            failed = asyncio.run(explore_tasks(tasks, STRATEGY, context, 3, progress))
        assert failed == {"t3": type(error).__name__}
        assert len(finished_trees(journal)) == 5
    assert all(len(record.getMessage()) < 1000 for record in caplog.records)
    assert "\x1b" not in caplog.text


@pytest.mark.parametrize("where", ["make", "reset", "truncated_reward", "snapshot", "restore"])
@pytest.mark.parametrize("error", [SystemExit(0), asyncio.CancelledError(), KeyboardInterrupt()])
def test_it_does_not_matter_which_method_raises(tmp_path, where, error):
    def fail(*_):
        raise error

    benchmark = TreeBenchmark(FOREST, type("Odd", (ForkableTreeEnvironment,), {where: fail}))
    if where == "make":
        benchmark.make = fail
    if where == "truncated_reward":
        benchmark.max_steps = 1
    with fresh_journal(tmp_path) as journal:
        assert explore(STRATEGY, make_context(benchmark, uniform(), journal)) == sorted(FOREST)


def test_an_environment_that_will_not_close_costs_nothing(tmp_path):
    class Open(ForkableTreeEnvironment):
        def close(self):
            raise SystemExit(0)

    with fresh_journal(tmp_path) as journal:
        benchmark = TreeBenchmark(FOREST, Open)
        assert explore(STRATEGY, make_context(benchmark, uniform(), journal)) == []


@pytest.mark.parametrize("error", RAISED, ids=NAMES)
def test_what_a_policy_raises_now_and_then_is_tried_again(tmp_path, error):
    failed = set()

    def fault(calls, seed):
        if seed % 7 == 0 and seed not in failed:
            failed.add(seed)
            raise error

    with fresh_journal(tmp_path, "calm") as journal:
        explore(STRATEGY, make_context(TreeBenchmark(FOREST), uniform(), journal))
        calm = finished_trees(journal)
    with fresh_journal(tmp_path) as journal:
        policy = Counted(uniform(), fault)
        context = make_context(TreeBenchmark(FOREST), policy, journal, retries=20)
        assert explore(STRATEGY, context) == []
        assert {k: t.root.estimate for k, t in finished_trees(journal).items()} == {
            key: tree.root.estimate for key, tree in calm.items()
        }
    assert failed


@pytest.mark.parametrize("error", RAISED, ids=NAMES)
def test_what_a_strategy_raises_costs_its_task(tmp_path, error):
    class Moody(Strategy):
        name = "moody"

        async def explore(self, sampler):
            if sampler.task.id == "t3":
                raise error
            await STRATEGY.explore(sampler)

    with fresh_journal(tmp_path) as journal:
        context = make_context(TreeBenchmark(FOREST), uniform(), journal)
        assert explore(Moody(), context) == ["t3"]
        assert len(finished_trees(journal)) == 5


@pytest.mark.parametrize("where", ["reset", "step"])
@pytest.mark.parametrize("error", RAISED, ids=NAMES)
def test_an_evaluation_misses_the_episodes_that_fail_and_counts_them(tmp_path, where, error):
    def fail(self, *arguments):
        if (arguments[0].id if where == "reset" else self.task) == "t3":
            raise error
        return getattr(TreeEnvironment, where)(self, *arguments)

    benchmark = TreeBenchmark(FOREST, type("Odd", (TreeEnvironment,), {where: fail}))
    with fresh_journal(tmp_path) as journal, Progress("evaluate", None, "episodes") as progress:
        failed = asyncio.run(
            evaluate(
                benchmark.tasks(),
                benchmark,
                uniform(),
                journal,
                label="sft",
                mode="sampled",
                episodes=2,
                params=SamplingParams(),
                limits=Limits(3, retries=1),
                seed=7,
                concurrency=4,
                progress=progress,
            )
        )
        assert failed == {type(error).__name__: 2}
        assert sum(1 for _ in journal.records("evaluation")) == 10


def test_a_cancellation_that_was_asked_for_is_none_of_theirs(tmp_path):
    async def work():
        with Progress("explore", None, "tasks") as progress:
            tasks = benchmark.tasks()
            running = asyncio.create_task(explore_tasks(tasks, STRATEGY, context, 3, progress))
            await asyncio.sleep(0.02)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

    benchmark = TreeBenchmark({f"t{number}": TREE for number in range(500)})
    with fresh_journal(tmp_path) as journal:
        context = make_context(benchmark, Counted(uniform()), journal)
        asyncio.run(work())
        assert len(finished_trees(journal)) < 500


class Text(str):
    """Equal to nothing."""

    __hash__ = str.__hash__

    def __eq__(self, other):
        return False

    def __str__(self):
        return "something else"


@pytest.mark.parametrize(
    ("observation", "reward", "done"),
    [
        ("a \udc80 surrogate", 0.0, False),
        ("o", np.float32(0.1), False),
        ("o", np.int64(1), np.bool_(False)),
        ("o", True, 0),
        (Text("o"), 0, None),
        ("nul \x00 \u2028 \ufeff", 0.1, ""),
    ],
)
def test_answers_are_compared_as_they_are_stored(tmp_path, observation, reward, done):
    """Without snapshots, every fork is a replay."""

    class Odd(TreeEnvironment):
        def reset(self, task, seed=0):
            return [Message("user", m.content + "\udc80") for m in super().reset(task, seed)]

        def show(self):
            return f"{super().show()} "

        def step(self, action):
            result = super().step(action)
            if result.done:
                return StepResult(observation, np.float32(result.reward), "yes")
            odd = type(observation)(observation + " at " + result.observation)
            return StepResult(odd, reward, done, result.invalid)

    class Fixed:
        name = "fixed"

        async def sample(self, messages, n, params, seed):
            text = messages[-1].content
            known = text[text.rindex("at ") :].replace("?", "")
            return await uniform().sample([Message("user", known)], n, params, seed)

        async def close(self):
            pass

    with fresh_journal(tmp_path) as journal:
        benchmark = TreeBenchmark(FOREST, Odd)
        assert explore(STRATEGY, make_context(benchmark, Fixed(), journal)) == []
        nodes = [node for tree in finished_trees(journal).values() for node in tree.root.walk()]
    steps = [node.step for node in nodes if node.step is not None]
    assert {type(value) for step in steps for value in (step.observation,)} == {str}
    assert {type(step.reward) for step in steps} == {float}
    assert {type(step.done) for step in steps} == {bool}


@pytest.mark.parametrize("reward", [float("nan"), np.float32("inf"), None, "1", b"1", [1], 10**400])
def test_a_reward_that_is_none_is_a_failure(tmp_path, reward):
    class Odd(TreeEnvironment):
        def step(self, action):
            return StepResult("o", reward, self.task == "t3")

    with fresh_journal(tmp_path) as journal:
        benchmark = TreeBenchmark({"t3": TREE}, Odd)
        assert explore(STRATEGY, make_context(benchmark, uniform(), journal)) == ["t3"]


@pytest.mark.parametrize("where", ["reset", "step"])
def test_an_observation_beyond_the_limit_is_a_failure_with_a_clear_sentence(
    tmp_path, caplog, where
):
    class Long(ForkableTreeEnvironment):
        def reset(self, task, seed=0):
            long = [Message("user", "x" * 10_000_000)]
            return long if where == "reset" else super().reset(task, seed)

        def step(self, action):
            return StepResult("x" * 10_000_000)

    with fresh_journal(tmp_path) as journal:
        benchmark = TreeBenchmark({"t0": TREE}, Long)
        assert explore(STRATEGY, make_context(benchmark, uniform(), journal)) == ["t0"]
    assert "10,000,000 characters is longer than environment.max_observation, 200,000" in (
        caplog.text
    )


def test_an_error_is_described_whatever_it_is():
    assert describe(PluginError(SystemExit(3))) == "SystemExit: 3"
    assert describe(Unprintable()) == "Unprintable: (its __str__ raised RuntimeError)"
    assert len(describe(ValueError("x" * 10**6))) < 600
    assert printable("a\x1b[31m\x00\u202e\tb\nc\udc80") == "a\\x1b[31m\\x00\\u202e\tb\nc\\udc80"


def test_this_process_is_alive():
    """None of the above ended it, as os._exit would: that cannot be caught."""
    assert os.getpid()
    assert Task("t").id == "t"
