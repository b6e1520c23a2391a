"""Whole runs are interrupted again and again, at random moments of all stages, and end like
undisturbed ones."""

import os
import random
import signal

import pytest
import small_runs
from small_runs import STRATEGIES, finish, new_run, outcome, said, start

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# To runs of one strategy, and to one run at most: 200 in all. Replicas are processes that import
# everything anew, so that each of their runs takes long.
SENT = dict.fromkeys(STRATEGIES, 33) | {"replicas": 2}
ONE_RUN = dict.fromkeys(STRATEGIES, 17) | {"replicas": 2}
WITHIN = dict.fromkeys(STRATEGIES, 2.0) | {"replicas": 15.0}  # seconds


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The outcome and the keys of a run of a strategy."""
    folder, runs = tmp_path_factory.mktemp("undisturbed"), {}

    def of(strategy):
        if strategy not in runs:
            run = folder / strategy
            process = new_run(folder, strategy, run)
            assert finish(process) == 0, said(process)
            runs[strategy] = outcome(run), sorted(small_runs.keys(run))
        return runs[strategy]

    return of


def interrupt(process, chance, seconds):
    """Send a signal within so many seconds; whether it came in time."""
    process.join(chance.uniform(0, seconds))
    if process.exitcode is not None:
        return False
    os.kill(process.pid, chance.choice(SIGNALS))
    process.join(60)
    assert process.exitcode is not None
    # SIGTERM ends a run at a clean point, with 75
    assert process.exitcode in (75, 130, 0, *(-number for number in SIGNALS)), said(process)
    return process.exitcode != 0


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_killed_at_random_moments(tmp_path, undisturbed, strategy):
    expected, keys = undisturbed(strategy)
    # Longer where signals come in time, shorter where the run was over: so they come at all moments
    # on a machine of any speed.
    chance, sent, runs, seconds = random.Random(strategy), 0, 0, WITHIN[strategy]
    while sent < SENT[strategy]:
        runs += 1
        run, here = tmp_path / f"run-{runs}", 0
        process = new_run(tmp_path, strategy, run)
        while here < ONE_RUN[strategy] and interrupt(process, chance, seconds):
            here, seconds = here + 1, seconds * 1.03
            assert "Traceback" not in said(process), said(process)
            if (run / "config.toml").exists():
                process = start("run", "--resume", run)
            else:
                process = new_run(tmp_path, strategy, run)
        assert finish(process) == 0, said(process)
        sent, seconds = sent + here, seconds * (0.8 if here < ONE_RUN[strategy] else 1.0)
        assert outcome(run) == expected
        assert sorted(small_runs.keys(run)) == keys
        assert not list((run / "checkpoints").glob("*.damaged"))
