"""Forks, estimates, failures and costs, checked against what environment and policy really did."""

import asyncio
import random
import threading

import pytest
from fakes import (
    Counted,
    ForkableTreeEnvironment,
    Overflowing,
    Planned,
    TreeBenchmark,
    TreeEnvironment,
    any_action,
    fresh_journal,
    grow,
    make_context,
    uniform,
    value,
)

from rro.errors import RestoreError, UsageError
from rro.exploration.budget import Budget
from rro.exploration.sampler import ContextFull, Sampler, TaskFailed
from rro.exploration.strategies.fixed_size import FixedSizeExploration
from rro.exploration.strategies.rising import RisingExploration
from rro.policies.scripted import ScriptedPolicy
from rro.types import Message, Source, StepResult, StopReason, Usage

TREE = {
    "a": {"x": 0.2, "y": {"p": 0.9, "q": 0.1}},
    "b": {"x": 0.6, "y": {"p": 0.5, "q": 0.3}},
    "c": 1.0,
}


def sampling(work, benchmark, policy, folder, **changes):
    """Run `work(sampler)` on the benchmark's first task; returns its result."""

    async def started():
        sampler = Sampler(make_context(benchmark, policy, journal, **changes), benchmark.tasks()[0])
        await sampler.start()
        return await work(sampler)

    with fresh_journal(folder) as journal:
        return asyncio.run(started())


@pytest.mark.parametrize("environment", [TreeEnvironment, ForkableTreeEnvironment])
@pytest.mark.parametrize("strategy", [RisingExploration(3, 3), FixedSizeExploration(3, 3)])
def test_the_cost_is_what_was_really_done(tmp_path, environment, strategy):
    benchmark, policy = TreeBenchmark({"t": TREE}, environment), Counted(uniform())
    with fresh_journal(tmp_path) as journal:
        spent = []
        tree = grow(
            strategy, make_context(benchmark, policy, journal, budget=Budget(observe=spent.append))
        )
    usage, calls = tree.usage(), benchmark.calls
    assert usage.policy_calls == policy.calls > 0
    assert usage.environment_steps == calls.steps > 0
    assert sum(spent, Usage()) == sum(tree.usage_by_step(), Usage())
    assert usage.policy_calls == sum(step.policy_calls for step in tree.usage_by_step())
    assert calls.made == calls.closed
    assert max(policy.seeds.values()) == 1  # no two draws share their random numbers


def test_only_an_environment_without_snapshot_pays_for_its_history(tmp_path):
    async def work(sampler):
        first = await sampler.propose(sampler.tree.root)
        second = await sampler.propose(first)
        await sampler.roll_out(second, 0)
        return [node.usage.environment_steps for node in (first, second)]

    chain = {"t": {"a": {"a": {"a": {"a": 1.0}}}}}
    (tmp_path / "replay").mkdir()
    assert sampling(work, TreeBenchmark(chain), uniform(), tmp_path) == [1, 1 + 2]
    assert sampling(
        work, TreeBenchmark(chain, TreeEnvironment), uniform(), tmp_path / "replay"
    ) == [
        1,
        (1 + 1) + (2 + 2),
    ]


@pytest.mark.parametrize("environment", [TreeEnvironment, ForkableTreeEnvironment])
def test_a_price_is_the_mean_of_its_rollouts_and_near_the_true_value(tmp_path, environment):
    async def work(sampler):
        node = await sampler.propose(sampler.tree.root)
        return node, await sampler.estimate(node, 300)

    benchmark = TreeBenchmark({"t": TREE}, environment)
    node, estimate = sampling(work, benchmark, Planned({"": ["a"]}), tmp_path)
    assert estimate.outcomes == (0.2,) * 300  # Planned always goes on with the first action
    (tmp_path / "random").mkdir()
    always_a = ScriptedPolicy(
        lambda messages, rng: "a" if len(messages) == 2 else any_action(messages, rng)
    )
    node, estimate = sampling(work, benchmark, always_a, tmp_path / "random")
    assert estimate.outcomes == tuple(node.rollouts[number].reward for number in range(300))
    assert abs(estimate.mean - value(TREE["a"])) < 0.05
    assert all(node.rollouts[i].opening == node.history() for i in range(300))


def test_an_action_that_ends_the_episode_is_priced_by_its_outcome_alone(tmp_path):
    async def work(sampler):
        node = await sampler.propose(sampler.tree.root)
        estimate = await sampler.estimate(node, 5)
        with pytest.raises(ValueError, match="has ended"):
            await sampler.propose(node)
        with pytest.raises(ValueError, match="has ended"):
            await sampler.roll_out(node, 0)
        return node, estimate

    policy = Counted(Planned({"": ["c"]}))
    node, estimate = sampling(work, TreeBenchmark({"t": TREE}), policy, tmp_path)
    assert (estimate.outcomes, estimate.exact, node.stop, policy.calls) == (
        (1.0,),
        True,
        StopReason.TERMINAL,
        1,
    )


def test_the_step_limit_ends_an_episode_as_the_environment_says(tmp_path):
    async def work(sampler):
        node = await sampler.propose(sampler.tree.root)
        return node, await sampler.estimate(node, 5)

    benchmark = TreeBenchmark({"t": TREE}, max_steps=1, truncated=0.25)
    node, estimate = sampling(work, benchmark, Planned({"": ["a"]}), tmp_path)
    assert (node.stop, estimate.mean, estimate.exact) == (StopReason.STEP_LIMIT, 0.25, True)


def test_a_full_context_leaves_no_candidate_but_its_cost(tmp_path):
    async def work(sampler):
        first = await sampler.propose(sampler.tree.root)
        with pytest.raises(ContextFull):
            await sampler.propose(first)
        return first

    first = sampling(
        work, TreeBenchmark({"t": TREE}), Overflowing(Planned({"": ["a"]}), 2), tmp_path
    )
    assert first.children == []
    assert first.usage.prompt_tokens == 1


class Liar(ForkableTreeEnvironment):
    """Restores to somewhere else."""

    def restore(self, snapshot):
        super().restore((snapshot[0], ("b",)))


class Moody(TreeEnvironment):
    """Not deterministic: what it shows depends on how often it was asked."""

    def show(self):
        return f"{super().show()} {self.benchmark.calls.steps}"


class Mutable(ForkableTreeEnvironment):
    """Its snapshot is its own state, which later steps change."""

    def snapshot(self):
        return list(self.path)


@pytest.mark.parametrize(
    ("environment", "error", "sentence"),
    [
        (Liar, RestoreError, "did not bring back the state"),
        (Moody, RestoreError, "differs on replay"),
        (Mutable, UsageError, "Mutable.snapshot must return an immutable value"),
    ],
)
def test_a_fork_that_would_be_another_episode_is_an_error(tmp_path, environment, error, sentence):
    async def work(sampler):
        node = await sampler.propose(sampler.tree.root)
        await sampler.estimate(node, 2)

    with pytest.raises(error, match=sentence):
        sampling(work, TreeBenchmark({"t": TREE}, environment), Planned({"": ["a"]}), tmp_path)


class WrongReward(TreeEnvironment):
    """Replays the same texts, but another reward for a step in the middle."""

    def step(self, action):
        result = super().step(action)
        return (
            result
            if result.done
            else StepResult(result.observation, reward=float(self.benchmark.calls.steps))
        )


def test_replay_compares_rewards_too(tmp_path):
    async def work(sampler):
        await sampler.roll_out(await sampler.propose(sampler.tree.root), 0)

    with pytest.raises(RestoreError, match="the answer to step 1 differs"):
        sampling(work, TreeBenchmark({"t": TREE}, WrongReward), Planned({"": ["a"]}), tmp_path)


def test_rollouts_that_fail_are_missing_and_never_zero(tmp_path):
    def fault(calls, seed):
        if seed in doomed:
            raise ConnectionError("gone")

    async def work(sampler):
        node = await sampler.propose(sampler.tree.root)
        return node, await sampler.estimate(node, 6)

    doomed: set[int] = set()
    benchmark = TreeBenchmark({"t": {"a": {"x": 0.5, "y": 0.5}}})
    seen = Counted(uniform())
    sampling(work, benchmark, seen, tmp_path)
    doomed = set(random.Random(1).sample(list(seen.seeds)[1:], 4))
    (tmp_path / "again").mkdir()
    failing = Counted(uniform(), fault)
    node, estimate = sampling(work, benchmark, failing, tmp_path / "again", retries=2)
    assert estimate.outcomes == (0.5, 0.5)
    assert sorted(failing.seeds[seed] for seed in doomed) == [3] * 4  # each tried 1 + 2 times
    assert sum(t.stop is StopReason.FAILED for t in node.rollouts.values()) == 4
    assert node.usage.environment_steps == 3  # the candidate, and two rollouts


def test_no_price_where_every_rollout_failed_and_they_are_tried_again_on_resume(tmp_path):
    def fault(path, action):
        if path == "a" and broken:
            raise ConnectionError("gone")

    async def work(sampler):
        return await sampler.estimate(await sampler.propose(sampler.tree.root), 3)

    benchmark, broken = TreeBenchmark({"t": TREE}, fault=fault), True
    assert sampling(work, benchmark, Planned({"": ["a"]}), tmp_path) is None
    broken = False
    assert sampling(work, benchmark, Planned({}), tmp_path).outcomes == (0.2,) * 3


def test_a_candidate_that_cannot_be_had_is_an_error_after_retries(tmp_path):
    def fault(calls, seed):
        raise ConnectionError("gone")

    policy = Counted(uniform(), fault)
    with pytest.raises(TaskFailed, match=r"candidate 0\.0: ConnectionError: gone"):
        sampling(
            lambda sampler: sampler.propose(sampler.tree.root),
            TreeBenchmark({"t": TREE}),
            policy,
            tmp_path,
            retries=2,
        )
    assert policy.calls == 3


def test_a_step_that_fails_once_does_not_draw_its_action_again(tmp_path):
    def fault(path, action):
        if not failures and action:
            failures.append(path)
            raise ConnectionError("gone")

    failures: list[str] = []
    policy = Counted(Planned({"": ["a"]}))
    benchmark = TreeBenchmark({"t": TREE}, fault=fault)
    node = sampling(lambda sampler: sampler.propose(sampler.tree.root), benchmark, policy, tmp_path)
    assert (node.action.content, policy.calls, node.usage.policy_calls, failures) == (
        "a",
        1,
        1,
        [""],
    )


@pytest.mark.parametrize("environment", [TreeEnvironment, ForkableTreeEnvironment])
def test_a_reset_or_fork_that_fails_is_tried_again(tmp_path, environment):
    def fault(path, action):
        if action == "":
            resets.append(path)
            if len(resets) in (1, 3):
                raise ConnectionError("gone")

    async def work(sampler):
        return await sampler.estimate(sampler.tree.root, 2)

    resets: list[str] = []
    benchmark = TreeBenchmark({"t": TREE}, environment, fault=fault)
    assert sampling(work, benchmark, Planned({}), tmp_path).outcomes == (0.2, 0.2)


@pytest.mark.parametrize("environment", [TreeEnvironment, ForkableTreeEnvironment])
def test_an_environment_that_hangs_gives_missing_rollouts(tmp_path, environment):
    def fault(path, action):
        if path == "a" and action == "x":
            waited.append(never.wait(30))

    async def work(sampler):
        return await sampler.estimate(await sampler.propose(sampler.tree.root), 2)

    never, waited = threading.Event(), []
    benchmark = TreeBenchmark({"t": TREE}, environment, blocking=True, fault=fault)
    policy = Counted(Planned({"": ["a"]}))
    assert sampling(work, benchmark, policy, tmp_path, step_timeout=0.1) is None
    never.set()
    assert policy.calls == 1 + 2 * 2  # the candidate; two rollouts, each tried twice
    assert benchmark.calls.made == benchmark.calls.closed


def test_follow_carries_out_a_given_action_at_no_policy_call(tmp_path):
    async def work(sampler):
        return await sampler.follow(sampler.tree.root, Message("assistant", "b", Source.EXPERT))

    node = sampling(work, TreeBenchmark({"t": TREE}), uniform(), tmp_path)
    assert (node.action.source, node.policy, node.usage.policy_calls) == (
        Source.EXPERT,
        "expert",
        0,
    )
    assert node.step.observation == "at b: go x y"


def test_asking_twice_costs_once(tmp_path):
    async def work(sampler):
        root = sampler.tree.root
        first = [await sampler.roll_out(root, 0), await sampler.play(0)]
        again = [await sampler.roll_out(root, 0), await sampler.play(0)]
        return first == again, sampler.tree.usage().policy_calls

    policy = Counted(uniform())
    assert sampling(work, TreeBenchmark({"t": TREE}), policy, tmp_path) == (True, policy.calls)
