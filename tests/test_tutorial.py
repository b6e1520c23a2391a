"""The files of docs/tutorial.md work as they stand there, and the policy improves."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import forked
import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r'```(?:python|toml) title="(?P<name>[\w.]+)"\n(?P<text>.*?)```', re.DOTALL)


@pytest.fixture
def folder(tmp_path):
    """A folder with the page's files."""
    page = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    for block in BLOCK.finditer(page):
        (tmp_path / block["name"]).write_text(block["text"], encoding="utf-8")
    return tmp_path


def rro(folder, *words, typed=""):
    """What a command prints."""
    paths = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "rro", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        input=typed,
        capture_output=True,
        text=True,
        timeout=1000,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_environment_can_be_played_and_the_recipe_is_sound(folder):
    played = rro(folder, "play", "desk.toml", typed="look stars A\nlook it up\nlend stars A\n")
    assert "A reader wants a book on" in played
    assert "Say: look SUBJECT SHELF" in played
    assert "after 3 steps" in played
    assert "600 tasks in train and 100 tasks in test" in rro(folder, "check", "desk.toml")


@pytest.mark.slow
def test_the_recipe_improves_the_policy(folder):
    ran = forked.rro("run", "desk.toml", "--out", "runs/first", cwd=folder)
    assert ran.returncode == 0, ran.stderr
    results = json.loads((folder / "runs/first/results.json").read_text())
    gains = {row["mode"]: row for row in results["differences"]}
    assert gains["sampled"]["low"] > 0
    assert rro(folder, "report", "runs/first").strip().endswith("report.html")
