"""What acts is called by what it is, and no stage writes other weights behind its figures."""

import json

import doors
import pytest
from door_runs import SIZES

import rro
from rro.cli.main import main
from rro.config import ExpertsConfig, parse_config
from rro.episodes.experts import scripted_experts
from rro.episodes.loop import Limits
from rro.learning.pairs import read_pairs
from rro.pipeline.run import open_run
from rro.plugins import ENVIRONMENTS
from rro.runs.folder import RunFolder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model that exists."""
    folder, bench = tmp_path_factory.mktemp("trained"), doors.open_doors()
    experts = ExpertsConfig(noise=0.5, episodes=100)
    shown = scripted_experts(bench, bench.tasks("train")[:100], experts, Limits(4), 0)
    model = rro.make_model(shown, folder / "model", **SIZES)
    settings = {"epochs": 6, "learning_rate": 6e-3, "batch_size": 16}
    return rro.train(shown, model, folder / "start", **settings).checkpoint


@pytest.fixture
def folder(tmp_path, trained):
    """A run from that model."""
    return make_folder(tmp_path, trained)


@pytest.fixture
def without_sft(tmp_path, trained):
    """The same with `sft = "none"`."""
    return make_folder(tmp_path, trained, sft="none")


def make_folder(tmp_path, model, **settings):
    if "doors-here" not in ENVIRONMENTS.names():
        ENVIRONMENTS.register("doors-here", doors.open_doors)
    config = {
        "name": "nosft",
        "threads": 1,
        "environment": {"name": "doors-here"},
        "model": {"name": str(model)},
        "policy": {"max_new_tokens": 8},
        "experts": {"episodes": 20},
        "explore": {"tasks": 6, "strategy": "fixed", "pricing": "sft", "rollouts": 3},
        "dpo": {"epochs": 1},
        "evaluate": {"tasks": 3, "greedy": False, "bootstrap": 100},
        **settings,
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


def test_a_recipe_without_sft_runs_from_base(without_sft, tmp_path, capsys):
    folder = without_sft
    assert main(["run", "--resume", str(folder.path)]) == 0
    found = records(folder)
    stages = [record["key"] for record in found if record["kind"] == "stage"]
    assert stages == ["explore-1", "optimise-1", "evaluate-base", "evaluate-fixed-1"]
    policies = {record["policy"] for record in found if "policy" in record}
    assert policies == {"nosft/base", "nosft/fixed-1"}
    labels = [row["label"] for row in json.loads(folder.results.read_text())["evaluations"]]
    assert labels == ["base", "fixed-1"]
    # what DPO starts from and holds the policy to is the model itself, not a copy of it
    assert sorted(path.name for path in folder.path.joinpath("checkpoints").iterdir()) == [
        "fixed-1"
    ]
    before = folder.journal.read_bytes()
    assert main(["run", "--resume", str(folder.path)]) == 0
    assert [line for line in records(folder) if line["kind"] == "stage"] == [
        line for line in found if line["kind"] == "stage"
    ]
    assert folder.journal.read_bytes() == before
    capsys.readouterr()
    assert main(["sft", str(folder.path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["report", str(folder.path)]) == 0
    assert main(["compare", str(folder.path)]) == 0


def test_a_recipe_without_sft_refuses_sft_in_one_sentence(without_sft, capsys):
    assert main(["sft", str(without_sft.path)]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()[-1:]
    assert line.endswith('the recipe says sft = "none": its rounds start from the base model')
    assert [record["kind"] for record in records(without_sft)] == ["journal"]


RECIPE = """
name = "nosft"
sft = "none"
[environment]
name = "doors-here"
[model]
name = "{model}"
"""


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (("sft",), 'the recipe says sft = "none": leave that out'),
        (("run", "model.name=tiny"), 'sft = "none" starts from a model that exists'),
        (("explore", "model.name=tiny"), "a model from scratch knows nothing before SFT"),
    ],
)
def test_what_cannot_begin_without_sft_begins_nothing(
    without_sft, tmp_path, capsys, command, problem
):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(model=without_sft.config.model.name))
    stage, *overrides = command
    assert main([stage, str(recipe), *overrides, "--out", str(tmp_path / "new")]) == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_rro_check_knows_a_run_without_sft(without_sft, tmp_path, capsys):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(model=without_sft.config.model.name))
    assert main(["check", str(recipe)]) == 0
    shown = capsys.readouterr().out
    assert "without SFT (called base)" in shown
    assert "experts" not in shown  # nothing is learned from them
