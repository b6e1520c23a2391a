"""A module beside the recipe is found from any directory, at the start and when a run is resumed;
what a finished run shows does not need it."""

import json
import sys
from pathlib import Path

import doors
import pytest

from rro.cli.main import main

RECIPE = """
name = "own"
threads = 1
[environment]
name = "beside_the_recipe:open_doors"
[policy]
backend = "beside_the_recipe:open_policy"
[model.tiny]
hidden_size = 16
intermediate_size = 16
layers = 1
heads = 2
kv_heads = 2
vocabulary = 300
context = 128
[experts]
episodes = 4
[sft]
epochs = 1
batch_size = 4
[explore]
tasks = 6
rollouts = 3
candidates = 3
[dpo]
epochs = 1
batch_size = 4
[evaluate]
tasks = 3
greedy = false
bootstrap = 100
"""
POLICY = """

def open_policy(context):
    return ScriptedPolicy(lambda messages, rng: f"open {rng.choice(DOORS)}", context.name)
"""


@pytest.fixture
def recipe(tmp_path):
    folder = tmp_path / "recipes"
    folder.mkdir()
    module = folder / "beside_the_recipe.py"
    module.write_text(Path(doors.__file__).read_text() + POLICY)
    (folder / "own.toml").write_text(RECIPE)
    return folder / "own.toml"


def elsewhere(monkeypatch, tmp_path, name):
    """As in a new process that was started in another directory."""
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if str(tmp_path) not in entry])
    sys.modules.pop("beside_the_recipe", None)


def test_run_resumed_and_shown_from_elsewhere(recipe, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    elsewhere(monkeypatch, tmp_path, "first")
    assert main(["sft", "../recipes/own.toml", "--out", str(run)]) == 0
    elsewhere(monkeypatch, tmp_path, "second")
    assert main(["run", "--resume", "../run"]) == 0
    assert {row["label"] for row in json.loads((run / "results.json").read_text())["evaluations"]}

    (recipe.parent / "beside_the_recipe.py").write_text("raise SystemExit('imported')")
    elsewhere(monkeypatch, tmp_path, "third")
    assert main(["report", "../run"]) == 0
    assert main(["compare", "../run"]) == 0
    assert "beside_the_recipe" not in sys.modules
    assert "imported" not in capsys.readouterr().err
