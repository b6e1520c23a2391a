"""`rro run` is killed at random moments and resumed: it loses only what was in flight and ends as
if undisturbed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rro.config import Config
from rro.runs.folder import RunFolder
from rro.runs.journal import Journal

HERE = Path(__file__).parents[1] / "end_to_end"
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]),
}


def hear_ctrl_c():
    """In the child: a shell starts what it puts in the background, a test run too, deaf to
    SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def rro(*arguments):
    command = [sys.executable, "-m", "rro", *map(str, arguments)]
    return subprocess.Popen(
        command,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,
    )


def finish(*arguments):
    process = rro(*arguments)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def comparable(folder):
    """What must not depend on interruptions: all but times."""
    results = json.loads((folder / "results.json").read_text())
    explored = {
        key: value
        for key, value in results["stages"]["explore-1"].items()
        if key not in ("seconds", "usage")
    }
    usage = {
        key: value
        for key, value in results["stages"]["explore-1"]["usage"].items()
        if key == "policy_calls"
    }
    rewards = [(row["label"], row["mode"], row["rewards"]) for row in results["evaluations"]]
    return explored, usage, rewards, (folder / "pairs-1.jsonl").read_text()


def keys(folder):
    lines = (folder / "journal.jsonl").read_text().splitlines()
    return [(record["kind"], record["key"]) for record in map(json.loads, lines)]


def wait_for_growth(journal, process, lines):
    """Until the journal has `lines` more than now, or the process ends."""
    start = len(journal.read_bytes().splitlines()) if journal.exists() else 0
    while process.poll() is None:
        if journal.exists() and len(journal.read_bytes().splitlines()) >= start + lines:
            return
        time.sleep(0.005)


@pytest.mark.slow
def test_killed_runs_end_like_an_undisturbed_one(tmp_path):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    finish("run", HERE / "doors.toml", "--out", undisturbed)
    chance, kills = random.Random(5), 0
    process = rro("run", HERE / "doors.toml", "--out", killed)
    # before the first record (training), in the middle of exploring (three times), while optimising
    # and evaluating
    for lines in (
        0,
        chance.randrange(20, 200),
        chance.randrange(20, 200),
        chance.randrange(20, 200),
        400,
        300,
    ):
        if lines:
            wait_for_growth(killed / "journal.jsonl", process, lines)
        else:
            while not (killed / "checkpoints").exists():
                time.sleep(0.01)
        time.sleep(chance.random() * 0.3)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
        process = rro("run", "--resume", killed)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert kills >= 4
    assert comparable(killed) == comparable(undisturbed)
    assert len(keys(killed)) == len(set(keys(killed)))
    assert sorted(keys(killed)) == sorted(keys(undisturbed))  # nothing was done twice or beside it


def test_an_interrupted_run_says_how_to_go_on(tmp_path):
    process = rro("run", HERE / "doors.toml", "sft.epochs=100", "--out", tmp_path / "run")
    # It trains by then: while modules are imported, Python itself may end by the signal.
    while not (tmp_path / "run" / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "--resume" in errors
    assert "Traceback" not in errors


def test_two_processes_cannot_work_on_one_run(tmp_path):
    RunFolder.create(Config(), tmp_path / "run")
    with Journal(tmp_path / "run" / "journal.jsonl"):
        process = rro("run", "--resume", tmp_path / "run")
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "another process" in errors
