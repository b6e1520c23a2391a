"""What goes wrong outside: calls that fail now and then, that never come back, a disk that fills
up, Ctrl-C."""

import asyncio
import json
import random
import signal
import time

import pytest
from fakes import (
    TREE,
    Counted,
    ForkableTreeEnvironment,
    TreeBenchmark,
    TreeEnvironment,
    explore,
    finished_trees,
    fresh_journal,
    make_context,
    task_records,
    uniform,
)
from test_kill import finish, start, tasks, undisturbed  # noqa: F401

from rro.errors import RestoreError
from rro.exploration.strategies.adaptive import AdaptiveExploration
from rro.exploration.strategies.rising import RisingExploration
from rro.runs.journal import Journal

FOREST = {f"t{number}": TREE for number in range(10)}


def without_cost(records):
    return {
        key: {name: item for name, item in record.items() if "usage" not in name}
        for key, record in records.items()
    }


@pytest.mark.parametrize(
    "strategy", [RisingExploration(2, 3), AdaptiveExploration()], ids=lambda strategy: strategy.name
)
@pytest.mark.parametrize("environment", [TreeEnvironment, ForkableTreeEnvironment])
def test_faults_that_pass_leave_no_trace_but_their_cost(tmp_path, environment, strategy):
    """A tenth of all policy calls, steps and resets fail, as if by accident: same trajectories,
    prices and pairs."""
    chance, failed = random.Random(3), set()

    def flaky(calls, seed):
        if seed not in failed and chance.random() < 0.1:
            failed.add(seed)
            raise ConnectionError("reset by peer")

    def flaky_steps(path, action):
        if chance.random() < 0.1:
            failed.add(len(failed))
            raise TimeoutError("no answer")

    with fresh_journal(tmp_path, "calm") as journal:
        explore(strategy, make_context(TreeBenchmark(FOREST, environment), uniform(), journal))
        calm = task_records(journal)
    with fresh_journal(tmp_path, "flaky") as journal:
        benchmark = TreeBenchmark(FOREST, environment, fault=flaky_steps)
        context = make_context(benchmark, Counted(uniform(), flaky), journal, retries=20)
        assert explore(strategy, context) == []
        assert len(failed) > 20
        assert without_cost(task_records(journal)) == without_cost(calm)
        paid, calm_calls = (
            {k: r["usage"]["policy_calls"] for k, r in rs.items()}
            for rs in (task_records(journal), calm)
        )
    assert all(paid[task] >= calm_calls[task] for task in calm)
    assert sum(paid.values()) > sum(calm_calls.values())


def test_where_much_fails_for_good_no_mean_holds_a_zero_for_it(tmp_path):
    """Every outcome of this forest is 0.7: any other price would come from a failure that was
    counted."""
    tree = {"a": {"x": 0.7, "y": 0.7}, "b": {"x": 0.7, "y": 0.7}}

    def fault(calls, seed):
        if seed % 10 == 0:
            raise MemoryError

    with fresh_journal(tmp_path) as journal:
        benchmark = TreeBenchmark({f"t{number}": tree for number in range(60)})
        failed = explore(
            RisingExploration(3, 2), make_context(benchmark, Counted(uniform(), fault), journal)
        )
        trees = finished_trees(journal)
    assert failed
    assert trees
    nodes = [node for tree in trees.values() for node in [tree.root, *tree.committed()]]
    assert {1, 2} & {node.estimate.n for node in nodes}  # some rollouts are missing
    assert {node.estimate.mean for node in nodes} == {0.7}


def test_an_environment_that_lies_stops_the_run(tmp_path):
    class Liar(ForkableTreeEnvironment):
        def restore(self, snapshot):
            self.task, self.path = snapshot[0], snapshot[1][:-1]

    with (
        fresh_journal(tmp_path) as journal,
        pytest.raises(RestoreError, match="did not bring back"),
    ):
        explore(
            RisingExploration(2, 2), make_context(TreeBenchmark(FOREST, Liar), uniform(), journal)
        )


@pytest.mark.parametrize("how", ["hang", "block"])
def test_an_environment_that_never_answers_does_not_keep_the_process(tmp_path, how):
    code, out, _ = finish(tmp_path / "journal.jsonl", tmp_path / "calls", how)
    assert code == 0
    assert out.count("task/") == 12  # all of them failed, and the process ended


def test_a_full_disc_is_one_sentence_and_loses_nothing(tmp_path, undisturbed):  # noqa: F811
    path = tmp_path / "journal.jsonl"
    code, _, err = finish(path, tmp_path / "calls", "full")
    assert code == 1
    assert "free some space, then resume the run" in err.splitlines()[-1]
    assert "Traceback" not in err
    text = path.read_bytes()
    assert text.endswith(b"\n")
    assert len(text) <= 30_000
    assert all(json.loads(line) for line in text.splitlines())
    assert finish(path)[0] == 0
    assert tasks(path) == tasks(undisturbed / "journal.jsonl")


def test_ctrl_c_stops_at_once_and_loses_nothing(tmp_path, undisturbed):  # noqa: F811
    path = tmp_path / "journal.jsonl"
    process = start(path)
    assert process.stdout.readline() == "begun\n"
    while not path.stat().st_size > 1000:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert finish(path)[0] == 0
    assert tasks(path) == tasks(undisturbed / "journal.jsonl")


def test_a_cancelled_exploration_leaves_a_sound_journal(tmp_path):
    async def cancelled(context):
        from rro.exploration import explorer
        from rro.runs.progress import Progress

        with Progress("explore", None, "tasks") as progress:
            work = asyncio.create_task(
                explorer.explore(
                    context.benchmark.tasks("train"), RisingExploration(2, 2), context, 4, progress
                )
            )
            await asyncio.sleep(0.01)
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
        assert len(asyncio.all_tasks()) == 1  # nothing goes on behind our back

    benchmark = TreeBenchmark({f"t{number}": TREE for number in range(500)})
    with fresh_journal(tmp_path) as journal:
        asyncio.run(cancelled(make_context(benchmark, Counted(uniform()), journal)))
        done = len(task_records(journal))
    assert done < 500
    while (
        benchmark.calls.made > benchmark.calls.closed
    ):  # one that was being made when all ended is closed by its thread
        time.sleep(0.001)
    with Journal(tmp_path / "journal.jsonl", read_only=True) as journal:
        assert len(task_records(journal)) == done
