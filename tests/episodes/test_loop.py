"""The one agent loop: limits, failures, retries, and environments that block."""

import asyncio
import threading
import time

import numpy as np
import pytest
from fakes import ROLL_OUT, Counted, Overflowing, TreeBenchmark, uniform

from rro.environments.base import Environment
from rro.episodes.loop import (
    Limits,
    attempt_episode,
    call_with_timeout,
    open_environment,
    reset_checked,
    run_episode,
    step_checked,
)
from rro.errors import RroError, UsageError
from rro.policies.scripted import ScriptedPolicy
from rro.types import Message, Step, StepResult, StopReason, Task, Trajectory, Usage

DEEP = {"t": {"a": {"a": {"a": 0.75}}}}


def play(benchmark, policy, limits=None, seed=0, taken=0, on_step=None):
    environment = benchmark.make()
    limits = limits or Limits(step_timeout=0.05)

    async def work():
        opening = await reset_checked(environment, benchmark.tasks()[0], 0, 1.0)
        return await run_episode(
            environment,
            policy,
            opening,
            task="t",
            params=ROLL_OUT,
            limits=limits,
            seed=seed,
            taken=taken,
            on_step=on_step,
        )

    return asyncio.run(work())


def test_an_episode_to_its_end():
    seen = []
    episode = play(TreeBenchmark(DEEP), uniform(), on_step=seen.append)
    assert (episode.reward, episode.stop, len(episode.steps), episode.policy) == (
        0.75,
        StopReason.TERMINAL,
        3,
        "uniform",
    )
    assert (episode.usage.policy_calls, episode.usage.environment_steps) == (3, 3)
    assert tuple(seen) == episode.steps
    assert [m.role for m in episode.messages()] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
        "assistant",
    ]


@pytest.mark.parametrize(("max_steps", "taken", "steps"), [(2, 0, 2), (3, 2, 1), (2, 2, 0)])
def test_the_step_limit_counts_from_the_start_of_the_episode(max_steps, taken, steps):
    episode = play(TreeBenchmark(DEEP, truncated=-0.5), uniform(), Limits(max_steps), taken=taken)
    assert (episode.reward, episode.stop, len(episode.steps)) == (
        -0.5,
        StopReason.STEP_LIMIT,
        steps,
    )


def test_a_full_context_is_not_acted_on():
    episode = play(TreeBenchmark(DEEP, truncated=0.1), Overflowing(uniform(), limit=2))
    assert (episode.reward, episode.stop, len(episode.steps)) == (0.1, StopReason.CONTEXT, 1)
    assert episode.usage.prompt_tokens > 0


def test_a_failure_is_missing_and_not_zero():
    def break_down(path, action):
        if path == "a":
            raise ConnectionError("the line is dead")

    episode = play(TreeBenchmark(DEEP, fault=break_down), uniform())
    assert (episode.reward, episode.stop, len(episode.steps)) == (None, StopReason.FAILED, 1)
    assert episode.error == "ConnectionError: the line is dead"
    assert episode.usage.policy_calls == 2  # the one whose step failed was paid for as well


def test_errors_that_a_user_can_mend_are_raised():
    def refuse(calls, seed):
        raise RroError("no such model")

    with pytest.raises(RroError, match="no such model"):
        play(TreeBenchmark(DEEP), Counted(uniform(), refuse))


def test_turns_draw_different_numbers_and_seeds_different_episodes():
    wide = {
        "t": {
            "a": {"a": {"a": 0.0, "b": 0.1}, "b": {"a": 0.2, "b": 0.3}},
            "b": {"a": 0.4, "b": 0.5},
        }
    }
    benchmark, policy = TreeBenchmark(wide), Counted(uniform())
    rewards = [play(benchmark, policy, seed=seed).reward for seed in range(40)]
    assert set(rewards) == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5}
    assert max(policy.seeds.values()) == 1
    assert rewards == [play(benchmark, uniform(), seed=seed).reward for seed in range(40)]


def test_a_failed_episode_is_tried_again_and_all_tries_are_paid():
    stops = [StopReason.FAILED, StopReason.FAILED, StopReason.TERMINAL]
    results = [
        Trajectory("t", (), (), None if s is StopReason.FAILED else 1.0, s, "m", 0, Usage(2))
        for s in stops
    ]

    async def run():
        return results.pop(0)

    episode = asyncio.run(attempt_episode(run, 5))
    assert (episode.reward, episode.usage.policy_calls, len(results)) == (1.0, 6, 0)
    results = [Trajectory("t", (), (), None, StopReason.FAILED, "m", 0, Usage(1))] * 3
    episode = asyncio.run(attempt_episode(run, 1))
    assert (episode.reward, episode.usage.policy_calls, len(results)) == (None, 2, 1)


def test_a_blocking_environment_that_hangs_is_timed_out_and_stalls_no_one():
    never = threading.Event()
    hanging = TreeBenchmark(
        DEEP,
        blocking=True,
        fault=lambda path, action: None if path == "" else never.wait(30) and None,
    )

    async def beside():
        environment, quick = hanging.make(), TreeBenchmark(DEEP)
        opening = await reset_checked(environment, hanging.tasks()[0], 0, 5.0)
        arguments = {"task": "t", "params": ROLL_OUT, "limits": Limits(step_timeout=0.2), "seed": 0}
        slow = asyncio.create_task(run_episode(environment, uniform(), opening, **arguments))
        other = quick.make()
        reward = (
            await run_episode(
                other, uniform(), await reset_checked(other, Task("t"), 0, 1.0), **arguments
            )
        ).reward
        return reward, slow.done(), await slow

    reward, was_done, episode = asyncio.run(beside())
    never.set()
    assert reward == 0.75
    assert not was_done
    assert (episode.reward, episode.stop) == (None, StopReason.FAILED)
    assert episode.error == "TimeoutError: ForkableTreeEnvironment did not answer within 0.2 s"


def test_more_blocking_calls_at_once_than_any_pool_has_threads():
    environment = TreeBenchmark(DEEP, blocking=True).make()
    barrier = threading.Barrier(60)

    async def all_at_once():
        return await asyncio.gather(
            *(call_with_timeout(environment, 30.0, barrier.wait) for _ in range(60))
        )

    assert sorted(asyncio.run(all_at_once())) == list(range(60))


BEGIN = (Message("user", "begin"),)


class Odd(Environment):
    """Answers with what it is given."""

    def __init__(self, answer, opening=BEGIN):
        self.answer, self.opening = answer, opening

    def reset(self, task, seed=0):
        return self.opening

    def step(self, action):
        return self.answer


def answer(result):
    return asyncio.run(step_checked(Odd(result), Message("assistant", "a"), 1.0))


def test_numpy_rewards_become_plain_ones():
    result = answer(StepResult("o\udc80", np.float32(0.5), np.bool_(True)))
    assert result == Step(Message("assistant", "a"), "o?", 0.5, True)
    assert (type(result.reward), type(result.done)) == (float, bool)


@pytest.mark.parametrize("reward", [float("nan"), float("inf"), np.float64("nan")])
def test_a_reward_that_would_poison_means_is_a_failure(reward):
    with pytest.raises(ValueError, match="reward"):
        answer(StepResult("o", reward))
    environment = Odd(StepResult("o", reward, True))
    episode = asyncio.run(
        run_episode(
            environment,
            ScriptedPolicy(lambda *_: "a"),
            [Message("user", "x")],
            task="t",
            params=ROLL_OUT,
            limits=Limits(),
            seed=0,
        )
    )
    assert (episode.reward, episode.stop) == (None, StopReason.FAILED)


@pytest.mark.parametrize("wrong", [("o", 0.0, True, {}), StepResult(None), None])
def test_a_step_that_returns_something_else_is_a_users_mistake(wrong):
    with pytest.raises(UsageError, match=r"Odd\.step must return a StepResult"):
        answer(wrong)


@pytest.mark.parametrize(
    "wrong", ["begin", [], None, [Message("user", "u"), Message("assistant", "a")]]
)
def test_an_opening_that_is_none_is_a_users_mistake(wrong):
    with pytest.raises(
        UsageError, match=r"Odd\.reset must return Messages that end with the user's"
    ):
        asyncio.run(reset_checked(Odd(None, wrong), Task("t"), 0, 1.0))


def test_an_environment_is_closed_also_where_the_wait_for_that_is_cancelled():
    benchmark, gate = TreeBenchmark(DEEP), threading.Event()

    async def use():
        async with open_environment(benchmark, 60.0) as environment:
            ahead.append(asyncio.create_task(call_with_timeout(environment, 60.0, gate.wait)))
            await asyncio.sleep(0.01)

    async def work():
        using = asyncio.create_task(use())
        while not ahead:
            await asyncio.sleep(0)
        await asyncio.sleep(0.1)  # by now the call to close it waits behind the other
        using.cancel()
        with pytest.raises(asyncio.CancelledError):
            await using
        gate.set()
        await ahead[0]

    ahead = []
    asyncio.run(work())
    while not benchmark.calls.closed:
        time.sleep(0.001)
    assert benchmark.calls.made == benchmark.calls.closed == 1


def test_an_environment_that_comes_when_no_one_waits_for_it_any_more_is_closed():
    making, go_on = threading.Event(), threading.Event()

    class Late(TreeBenchmark):
        def make(self):
            making.set()
            go_on.wait()
            return super().make()

    async def wait():
        async with open_environment(benchmark, 60.0):
            raise AssertionError("there is none")

    async def work():
        waiting = asyncio.create_task(wait())
        while not making.is_set():
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    benchmark = Late(DEEP)
    asyncio.run(work())
    go_on.set()
    while not benchmark.calls.closed:
        time.sleep(0.001)
    assert benchmark.calls.made == benchmark.calls.closed == 1
