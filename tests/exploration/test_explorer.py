"""Many tasks at once, and again after a crash: the same results, nothing done twice."""

import asyncio
import itertools
import json

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
    pairs_of,
    task_records,
    timeless,
    uniform,
)
from strategy_toys import (
    BY_NAME,
    FOREST,
    STRATEGIES,
    TREE,
    FaultyByReplay,
    FaultyForkable,
    experts,
    strategies,
)

from rro.errors import RroError, UsageError
from rro.exploration import explorer
from rro.exploration.explorer import summarise
from rro.exploration.strategies.rising import RisingExploration
from rro.exploration.tree import Node, Tree
from rro.runs.progress import Progress
from rro.types import Message, ProcessReward, Source, Step, Task


def everything(folder, name="journal.jsonl"):
    """All records of a journal by kind and key, without seconds."""
    records = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    by_key = {(record["kind"], record["key"]): timeless(record) for record in records}
    assert len(by_key) == len(records), "a key occurs twice"
    return by_key


def run(folder, name, strategy, trees, environment, concurrency, **options):
    """Explore into folder/name; returns the calls of the policy and of the environments."""
    policy, benchmark = Counted(uniform()), TreeBenchmark(trees, environment, **options)
    with fresh_journal(folder, name) as journal:
        assert explore(strategy, make_context(benchmark, policy, journal), concurrency) == []
    return policy, benchmark.calls


@pytest.mark.parametrize("environment", [TreeEnvironment, ForkableTreeEnvironment])
@pytest.mark.parametrize("strategy", STRATEGIES, ids=BY_NAME)
def test_results_do_not_depend_on_concurrency(tmp_path, strategy, environment):
    for concurrency in (1, 3, 64):
        run(tmp_path, str(concurrency), strategy, FOREST, environment, concurrency)
    alone = everything(tmp_path, "1")
    assert sum(kind == "task" for kind, _ in alone) == len(FOREST)
    assert alone == everything(tmp_path, "3") == everything(tmp_path, "64")


@pytest.mark.parametrize("environment", [FaultyByReplay, FaultyForkable])
@pytest.mark.parametrize("number", range(len(STRATEGIES)), ids=BY_NAME)
def test_with_failures_they_do_not_depend_on_it_either(tmp_path, number, environment):
    """By their seeds some draws fail for good, and some at the first try: same records, pairs and
    costs; same tasks missing."""
    trees = {f"task/{number}": TREE for number in range(30)}
    strategy = strategies(experts(trees))[number]

    def fails(calls, seed):
        if seed % 23 == 0 or (seed % 11 == 0 and policy.seeds[seed] == 1):
            raise TimeoutError("no answer")

    failed = {}
    for concurrency in (1, 64):
        policy = Counted(uniform(), fails)
        with fresh_journal(tmp_path, str(concurrency)) as journal:
            context = make_context(TreeBenchmark(trees, environment), policy, journal)
            failed[concurrency] = sorted(explore(strategy, context, concurrency))
            finished = task_records(journal)
    assert failed[1] == failed[64]
    assert len(finished) + len(failed[1]) == len(trees)
    assert finished
    assert any("rollout" in kind or "episode" in kind for kind, _ in everything(tmp_path, "1"))
    assert everything(tmp_path, "1") == everything(tmp_path, "64")


def test_blocking_environments_give_the_same(tmp_path):
    for name, blocking in (("here", False), ("threads", True)):
        run(tmp_path, name, STRATEGIES[0], FOREST, ForkableTreeEnvironment, 8, blocking=blocking)
    assert everything(tmp_path, "here") == everything(tmp_path, "threads")


def test_what_is_held_follows_the_concurrency_and_not_the_tasks(tmp_path):
    trees = {f"t{number}": TREE for number in range(60)}
    _, calls = run(tmp_path, "few", STRATEGIES[0], trees, ForkableTreeEnvironment, 3)
    assert calls.most_open <= 3 * 2  # a task of this strategy has at most N = 2 forks open
    assert calls.made == calls.closed


@pytest.mark.parametrize("environment", [TreeEnvironment, ForkableTreeEnvironment])
@pytest.mark.parametrize("strategy", STRATEGIES, ids=BY_NAME)
def test_resumed_after_any_cut_it_is_as_if_nothing_had_happened(tmp_path, strategy, environment):
    """Every record boundary and the middle of every record of a small exploration."""
    trees = dict.fromkeys(itertools.islice(FOREST, 2), TREE)
    policy, _ = run(tmp_path, "whole", strategy, trees, environment, 2)
    undisturbed, all_calls = everything(tmp_path, "whole"), policy.calls
    lines = (tmp_path / "whole").read_bytes().splitlines(keepends=True)
    for number, half in itertools.product(range(len(lines)), (False, True)):
        kept = b"".join(lines[:number])
        (tmp_path / "cut").write_bytes(
            kept + (lines[number][: len(lines[number]) // 2] if half else b"")
        )
        paid = sum(
            record["usage"]["policy_calls"]
            for record in map(json.loads, kept.splitlines())
            if record["kind"] in WORK
        )
        policy, _ = run(tmp_path, "cut", strategy, trees, environment, 2)
        assert policy.calls == all_calls - paid
        assert everything(tmp_path, "cut") == undisturbed


WORK = ("candidate", "rollout", "episode")


def test_a_finished_exploration_is_not_touched_again(tmp_path):
    run(tmp_path, "j", STRATEGIES[0], FOREST, ForkableTreeEnvironment, 4)
    before = (tmp_path / "j").read_bytes()
    policy, calls = run(tmp_path, "j", STRATEGIES[0], FOREST, ForkableTreeEnvironment, 4)
    assert (policy.calls, calls.made) == (0, 0)
    assert (tmp_path / "j").read_bytes() == before


def test_iterations_share_a_journal_and_draw_anew(tmp_path):
    benchmark, policy = TreeBenchmark(FOREST), Counted(uniform())
    with fresh_journal(tmp_path) as journal:
        for iteration in (1, 2):
            explore(STRATEGIES[0], make_context(benchmark, policy, journal, iteration=iteration))
        keys = list(task_records(journal))
    assert len(keys) == 2 * len(FOREST)
    assert max(policy.seeds.values()) == 1


@pytest.mark.parametrize(
    ("actions", "sentence"),
    [("d a b", "every rollout from the start failed"), ("", "start: ConnectionError: gone")],
)
def test_a_dropped_task_is_named_once(tmp_path, caplog, actions, sentence):
    def fault(path, action):
        if action in actions.split() or not actions:
            raise ConnectionError("gone")

    benchmark = TreeBenchmark({"t": {"a": {"x": 1.0}, "b": 0.0}}, fault=fault)
    with fresh_journal(tmp_path) as journal:
        context = make_context(benchmark, uniform(), journal)
        assert explore(RisingExploration(2, 2), context) == ["t"]
    messages = [record.getMessage() for record in caplog.records]
    assert f"task t failed and is dropped: {sentence}" in messages


def test_one_task_that_fails_leaves_the_others_and_is_tried_again(tmp_path):
    def fault(calls, seed):
        if broken and calls > 40:
            raise ConnectionError("gone")

    run(tmp_path, "whole", STRATEGIES[0], FOREST, ForkableTreeEnvironment, 1)
    broken, benchmark = True, TreeBenchmark(FOREST)
    with fresh_journal(tmp_path, "j") as journal:
        failed = explore(
            STRATEGIES[0], make_context(benchmark, Counted(uniform(), fault), journal), 1
        )
        done = [key.removeprefix("0/") for key in task_records(journal)]
        assert sorted(failed + done) == sorted(FOREST)
        assert failed
        assert done
        broken = False
        assert (
            explore(STRATEGIES[0], make_context(benchmark, Counted(uniform(), fault), journal), 1)
            == []
        )
    assert everything(tmp_path, "j") == everything(tmp_path, "whole")


def test_any_exception_of_a_users_code_fails_its_task_alone(tmp_path):
    class Broken(ForkableTreeEnvironment):
        def reset(self, task, seed=0):
            if task.id == "task/3":
                raise AssertionError("a bug")
            return super().reset(task, seed)

    with fresh_journal(tmp_path) as journal:
        assert explore(
            STRATEGIES[0], make_context(TreeBenchmark(FOREST, Broken), uniform(), journal)
        ) == ["task/3"]
        assert len(task_records(journal)) == len(FOREST) - 1


@pytest.mark.parametrize("error", [UsageError("no such model"), RroError("the disk is full")])
def test_an_error_to_mend_stops_the_exploration_at_once(tmp_path, error):
    def fault(calls, seed):
        if calls >= 50:
            raise error

    policy = Counted(uniform(), fault)
    with fresh_journal(tmp_path) as journal, pytest.raises(type(error), match=str(error)):
        explore(STRATEGIES[0], make_context(TreeBenchmark(FOREST), policy, journal), 4)
    assert policy.calls < 80


def test_two_tasks_of_one_name_are_refused(tmp_path):
    class Twins(TreeBenchmark):
        def tasks(self, split="train"):
            return [Task("task/0"), Task("task/0")]

    with fresh_journal(tmp_path) as journal, pytest.raises(UsageError, match="'task/0'"):
        explore(STRATEGIES[0], make_context(Twins(FOREST), uniform(), journal))


def test_no_tasks(tmp_path):
    with fresh_journal(tmp_path) as journal:
        assert explore(STRATEGIES[0], make_context(TreeBenchmark({}), uniform(), journal)) == []


def test_records_and_their_summary(tmp_path):
    strategy = RisingExploration(2, 3)
    policy, calls = run(tmp_path, "j", strategy, FOREST, ForkableTreeEnvironment, 4)
    with fresh_journal(tmp_path, "j") as journal:
        trees = finished_trees(journal, "0/")
        drawn = sum(1 for _ in journal.records("candidate", "0/"))
    summary = summarise(trees.values())
    assert (summary.tasks, summary.steps) == (
        len(FOREST),
        sum(len(tree.committed()) for tree in trees.values()),
    )
    assert summary.candidates_per_step == drawn / summary.steps
    assert 1 < summary.candidates_per_step < 3
    assert (summary.usage.policy_calls, summary.usage.environment_steps) == (
        policy.calls,
        calls.steps,
    )
    for key, tree in trees.items():
        before = tree.root.estimate.mean
        for node in tree.committed():
            assert (node.estimate.n > 0, node.estimate.policy) == (True, "uniform")
            assert (node.estimate.mean > before) == node.rose
            before = node.estimate.mean
        assert tree.committed()[-1].reward is not None
        assert {pair.task for pair in pairs_of(strategy, tree, 0)} <= {key.removeprefix("0/")}
    assert any(pairs_of(strategy, tree, 0) for tree in trees.values())
    assert len(summary.rising) == 3


def test_shares_of_rising_steps():
    def tree(start, *rewards):
        root = node = Node("0", None, estimate=start and ProcessReward((start,), "p"))
        for reward in rewards:
            step = Step(Message("assistant", "a", Source.POLICY), "", 0.0, False)
            child = Node(f"{node.id}.0", node, step=step, committed=True)
            child.estimate = ProcessReward((reward,), "p")
            node.children.append(child)
            node = child
        return Tree(Task("t"), root)

    trend = summarise([tree(0.5, 0.6, 0.6, 0.7), tree(0.5, 0.4, 0.5, 0.1), tree(None, 1.0)])
    assert (trend.rising, trend.tasks) == ((0.5, 0.5, 0.5), 3)


def test_an_observer_is_given_every_tree_new_or_read_back(tmp_path):
    """Each once, in either process; its notes go to the progress bar."""
    benchmark, strategy = TreeBenchmark(FOREST), RisingExploration(2, 2)
    seen = {}
    for policy in (Counted(uniform()), Counted(uniform())):
        with (
            fresh_journal(tmp_path) as journal,
            Progress("explore", len(FOREST), "tasks") as progress,
        ):
            trees = {}

            def observe(tree, trees=trees):
                assert tree.task.id not in trees
                trees[tree.task.id] = tree
                return f"{len(trees)} seen"

            context = make_context(benchmark, policy, journal)
            tasks = benchmark.tasks()
            asyncio.run(explorer.explore(tasks, strategy, context, 3, progress, observe))
        assert progress.note == f"{len(FOREST)} seen"
        seen[policy.calls] = {name: pairs_of(strategy, tree, 0) for name, tree in trees.items()}
    (new, pairs), (read_back, again) = seen.items()
    assert new > read_back == 0
    assert pairs == again
