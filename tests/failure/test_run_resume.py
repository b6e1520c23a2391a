"""`rro run` is killed at random moments and resumed: it loses only what was in flight and ends as
if undisturbed."""

import itertools
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


def records(folder):
    journal = folder / "journal.jsonl"
    return len(journal.read_bytes().splitlines()) if journal.exists() else 0


def moments(undisturbed, chance):
    """How many records the journal has when a run is killed: while it explores, three times, as it
    begins to optimise, and while it evaluates the SFT policy. Much is left to do after each."""
    ends = {key: number for number, (kind, key) in enumerate(keys(undisturbed)) if kind == "stage"}
    begun, explored, optimised, evaluated = (
        ends[key] + 1 for key in ("sft", "explore-1", "optimise-1", "evaluate-sft")
    )
    thirds = [begun + (explored - begun) * third // 3 for third in range(4)]
    exploring = [chance.randrange(*third) for third in itertools.pairwise(thirds)]
    return [*exploring, explored, chance.randrange(optimised, (optimised + evaluated) // 2)]


def kill(process, ready):
    """As soon as it is ready for it."""
    while not ready():
        assert process.exitcode is None, process.ended().stderr
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL, "it ended before it was killed"


@pytest.mark.slow
def test_killed_runs_end_like_an_undisturbed_one(tmp_path):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    finish("run", HERE / "doors.toml", "--out", undisturbed)
    process = forked.start("run", HERE / "doors.toml", "--out", killed)
    kill(process, (killed / "metrics.jsonl").exists)
    for enough in moments(undisturbed, random.Random(5)):
        process = forked.start("run", "--resume", killed)
        kill(process, lambda enough=enough: records(killed) >= enough)
    finish("run", "--resume", killed)
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
