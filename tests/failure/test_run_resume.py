"""`rro run` is killed at random moments and resumed: it loses only what was in flight and ends as
if undisturbed."""

import json
import random
import signal
import time
from pathlib import Path

import forked
import pytest

from rro.config import Config
from rro.runs.folder import RunFolder
from rro.runs.journal import Journal

HERE = Path(__file__).parents[1] / "end_to_end"


def finish(*arguments):
    ended = forked.rro(*arguments)
    assert ended.returncode == 0, ended.stderr


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
    while process.exitcode is None:
        if journal.exists() and len(journal.read_bytes().splitlines()) >= start + lines:
            return
        time.sleep(0.005)


@pytest.mark.slow
def test_killed_runs_end_like_an_undisturbed_one(tmp_path):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    finish("run", HERE / "doors.toml", "--out", undisturbed)
    chance, kills = random.Random(5), 0
    process = forked.start("run", HERE / "doors.toml", "--out", killed)
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
        if process.exitcode is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.join()
        process = forked.start("run", "--resume", killed)
    ended = process.ended()
    assert ended.returncode == 0, ended.stderr
    assert kills >= 4
    assert comparable(killed) == comparable(undisturbed)
    assert len(keys(killed)) == len(set(keys(killed)))
    assert sorted(keys(killed)) == sorted(keys(undisturbed))  # nothing was done twice or beside it


def test_an_interrupted_run_says_how_to_go_on(tmp_path):
    process = forked.start("run", HERE / "doors.toml", "sft.epochs=100", "--out", tmp_path / "run")
    # It trains by then: while modules are imported, Python itself may end by the signal.
    while not (tmp_path / "run" / "metrics.jsonl").exists() and process.exitcode is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    ended = process.ended()
    assert ended.returncode == 130, ended.stderr
    assert "--resume" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_two_processes_cannot_work_on_one_run(tmp_path):
    RunFolder.create(Config(), tmp_path / "run")
    with Journal(tmp_path / "run" / "journal.jsonl"):
        ended = forked.rro("run", "--resume", tmp_path / "run")
    assert ended.returncode == 2
    assert "another process" in ended.stderr
