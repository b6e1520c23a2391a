"""A scheduler wants the machine back: the run stops at a clean point with an exit code of its own,
and goes on from there."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rro.cli.main import main
from rro.runs.journal import Journal

TESTS = Path(__file__).parents[1]
RECIPE = TESTS / "end_to_end" / "doors.toml"

pytestmark = pytest.mark.slow


def rro(*arguments):
    folders = (TESTS / "end_to_end", TESTS.parent / "src", os.environ.get("PYTHONPATH", ""))
    return subprocess.Popen(
        [sys.executable, "-m", "rro", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))},
        stderr=subprocess.PIPE,
        text=True,
        # as a script's shell starts what it puts into the background
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )


def test_a_training_stores_its_last_step_and_goes_on_from_there(tmp_path):
    run, report = tmp_path / "run", tmp_path / "run" / "checkpoints" / "sft" / "training.json"
    process = rro("sft", RECIPE, "experts.episodes=200", "--out", run)
    while not (run / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 75, errors
    assert "stopped as asked" in errors
    assert f"--resume {run}" in errors
    assert "Traceback" not in errors
    (stored,) = (run / "checkpoints" / "sft.partial").glob("checkpoint-*")
    assert main(["sft", str(run)]) == 0
    assert json.loads(report.read_text())["resumed_from"] == int(stored.name.partition("-")[2])


def test_an_exploration_stops_at_once_and_keeps_what_it_has(tmp_path):
    run, journal = tmp_path / "run", tmp_path / "run" / "journal.jsonl"
    recipe = TESTS.parent / "benchmarks" / "cluster_faults.toml"
    process = rro("explore", recipe, "explore.tasks=150", "--out", run)
    while process.poll() is None and (not journal.exists() or journal.stat().st_size < 100_000):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 75, errors
    with Journal(journal, read_only=True) as records:
        assert list(records.records("rollout"))
        assert not list(records.records("stage"))


def test_a_run_stops_when_its_time_is_up(tmp_path):
    process = rro("sft", RECIPE, "sft.epochs=5000", "--stop-after", 1, "--out", tmp_path / "run")
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 75, errors
    assert "Traceback" not in errors
