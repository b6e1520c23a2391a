"""What acts is called by what it is, and no stage writes other weights behind its figures."""

import json

import doors
import pytest

import rro
from rro.cli.main import main
from rro.config import ExpertsConfig, parse_config
from rro.episodes.experts import scripted_experts
from rro.episodes.loop import Limits
from rro.learning.pairs import read_pairs
from rro.pipeline.run import open_run
from rro.plugins import ENVIRONMENTS
from rro.runs.folder import RunFolder

SIZES = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "layers": 2,
    "vocabulary": 300,
    "context": 128,
}


@pytest.fixture
def folder(tmp_path):
    """A run from a model that exists, explored and evaluated without SFT."""
    if "doors-here" not in ENVIRONMENTS.names():
        ENVIRONMENTS.register("doors-here", doors.open_doors)
    bench = doors.open_doors()
    experts = ExpertsConfig(noise=0.5, episodes=100)
    shown = scripted_experts(bench, bench.tasks("train")[:100], experts, Limits(4), 0)
    model = rro.make_model(shown, tmp_path / "model", **SIZES)
    trained = rro.train(
        shown, model, tmp_path / "start", epochs=6, learning_rate=6e-3, batch_size=16
    )
    config = {
        "name": "nosft",
        "threads": 1,
        "environment": {"name": "doors-here"},
        "model": {"name": str(trained.checkpoint)},
        "policy": {"max_new_tokens": 8},
        "experts": {"episodes": 20},
        "explore": {"tasks": 6, "strategy": "fixed", "pricing": "sft", "rollouts": 3},
        "dpo": {"epochs": 1},
        "evaluate": {"tasks": 3, "greedy": False, "bootstrap": 100},
    }
    return RunFolder.create(parse_config(config, "test"), tmp_path / "run")


def records(folder):
    return [json.loads(line) for line in folder.journal.open()]


def test_a_run_without_sft_acts_as_base(folder, capsys):
    assert main(["explore", str(folder.path)]) == 0
    pairs = list(read_pairs(folder.pairs(1)))
    policies = {reward.policy for p in pairs for reward in (p.chosen_reward, p.rejected_reward)}
    assert policies == {"nosft/base"}
    before = folder.journal.read_bytes()
    assert main(["sft", str(folder.path)]) == 2  # it would be another model behind these pairs
    assert "the weights 'base' have explored or been evaluated" in capsys.readouterr().err
    assert folder.journal.read_bytes() == before
    assert not folder.checkpoint("sft").exists()
    assert main(["run", "--resume", str(folder.path)]) == 0  # goes on from base
    found = records(folder)
    assert {record["policy"] for record in found if "policy" in record} == {
        "nosft/base",
        "nosft/fixed-1",
    }
    stages = [record["key"] for record in found if record["kind"] == "stage"]
    assert stages == ["explore-1", "optimise-1", "evaluate-base", "evaluate-fixed-1"]
    labels = [row["label"] for row in json.loads(folder.results.read_text())["evaluations"]]
    assert labels == ["base", "fixed-1"]
    assert main(["sft", str(folder.path)]) == 2
    assert main(["report", str(folder.path)]) == 0


def test_training_again_writes_nothing_behind_figures(folder, capsys):
    """A run folder whose journal lost the record of a training, though its weights have acted."""
    assert main(["run", "--resume", str(folder.path)]) == 0
    lines = folder.journal.read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith('{"kind":"stage","key":"optimise-1"')]
    assert len(kept) == len(lines) - 1
    folder.journal.write_text("".join(kept))
    capsys.readouterr()
    assert main(["optimise", str(folder.path)]) == 2
    assert "the weights 'fixed-1' have explored or been evaluated" in capsys.readouterr().err


def test_the_label_follows_sft(folder):
    with open_run(folder) as run:
        assert (run.label(0), run.label(1)) == ("base", "fixed-1")
        run.journal.append("stage", "sft", {"seconds": 0.0})
        assert run.label(0) == "sft"
