"""`kill -9` at any moment loses only what was in flight, and nothing that was finished is done
again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes import timeless

from rro.runs.journal import Journal
from rro.seeds import derive_seed

HERE = Path(__file__).parent


def hear_ctrl_c():
    """In the child: a shell starts what it puts in the background, a test run too, deaf to
    SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(*arguments):
    paths = [str(HERE.parent), str(HERE.parents[1] / "src"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, str(HERE / "explorer.py"), *map(str, arguments)]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,
    )


def finish(*arguments):
    """Run to the end; returns the exit code, stdout and stderr."""
    process = start(*arguments)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def complete(path):
    """The records of a journal that a kill may have cut short."""
    text = path.read_bytes() if path.exists() else b""
    return [json.loads(line) for line in text.splitlines(keepends=True)[1:] if line.endswith(b"\n")]


def tasks(path):
    return {
        record["key"]: timeless(record) for record in complete(path) if record["kind"] == "task"
    }


def draws(record):
    """The seeds of the policy calls that a finished record holds."""
    if record["kind"] == "candidate":
        task, node = record["key"].rsplit("/", 1)
        parent, number = node.rsplit(".", 1)
        return {derive_seed(7, f"{task}/candidate/{parent}/{number}")}
    if record["kind"] == "rollout":
        depth = record["key"].split("/")[-2].count(".")
        return {derive_seed(record["seed"], depth + turn) for turn in range(len(record["steps"]))}
    return set()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    path = tmp_path_factory.mktemp("undisturbed")
    assert finish(path / "journal.jsonl", path / "calls")[:2] == (0, "begun\n[]\n")
    return path


def test_the_seeds_of_draws_are_worked_out_rightly(undisturbed):
    """Or the next test would find no repetition because it looks for the wrong ones."""
    called = [int(line) for line in (undisturbed / "calls").read_text().split()]
    held = set().union(*map(draws, complete(undisturbed / "journal.jsonl")))
    assert set(called) == held
    assert len(called) == len(held)


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_again_and_again_and_resumed(tmp_path, undisturbed, seed):
    journal, moments = tmp_path / "journal.jsonl", random.Random(seed)
    length = (undisturbed / "journal.jsonl").stat().st_size
    for attempt in range(4):
        finished = set().union(*map(draws, complete(journal)))
        calls = tmp_path / f"calls-{attempt}"
        process = start(journal, calls)
        assert process.stdout.readline() == "begun\n"
        enough = journal.stat().st_size + moments.randrange(length // 6)
        while journal.stat().st_size < enough and process.poll() is None:
            time.sleep(moments.uniform(0, 0.004))
        process.kill()
        process.communicate()
        assert process.returncode == -9, "it ended before it was killed"
        called = [int(line) for line in calls.read_text().split()]
        assert finished.isdisjoint(called)
        assert len(called) == len(set(called))
    finished = set().union(*map(draws, complete(journal)))
    assert finish(journal, tmp_path / "calls-end")[:2] == (0, "begun\n[]\n")
    assert finished.isdisjoint(map(int, (tmp_path / "calls-end").read_text().split()))
    assert tasks(journal) == tasks(undisturbed / "journal.jsonl")
    keys = [(record["kind"], record["key"]) for record in complete(journal)]
    assert len(keys) == len(set(keys))
    assert set(keys) == {(r["kind"], r["key"]) for r in complete(undisturbed / "journal.jsonl")}


def test_two_processes_do_not_write_one_run(tmp_path):
    with Journal(tmp_path / "journal.jsonl"):
        code, out, err = finish(tmp_path / "journal.jsonl")
    assert (code, out, "another process is writing this run" in err) == (1, "", True)
