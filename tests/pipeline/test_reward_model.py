"""A process reward model trained on a run, and another run that estimates with it."""

import json
import shutil

import pytest
from door_runs import door_run
from safetensors.torch import load_file, save_file

from rro.cli.main import main
from rro.cli.serving import worth_lines
from rro.errors import DataError, UsageError
from rro.files import SEAL
from rro.learning.pairs import read_pairs
from rro.models.process_rewards import FILE, read_scale
from rro.pipeline import stages
from rro.pipeline.choices import Choices
from rro.pipeline.explored import explored_trees
from rro.pipeline.reward_model import open_predictor
from rro.pipeline.run import open_run

EXPLORE = {"tasks": 12, "strategy": "rro", "rollouts": 2, "candidates": 3}


@pytest.fixture(scope="module")
def explored(tmp_path_factory):
    folder = door_run(tmp_path_factory.mktemp("runs") / "one", "scored", explore=EXPLORE)
    with open_run(folder) as run:
        stages.sft(run)
        stages.explore(run, 1)
    return folder


@pytest.fixture(scope="module")
def scorer(explored):
    assert main(["train-prm", str(explored.path)]) == 0
    return explored.checkpoint("prm-1")


def test_a_model_says_what_it_is_worth(explored, scorer, capsys):
    scale = read_scale(scorer)
    assert scale.weight > 0
    record = json.loads((scorer / "process_rewards.json").read_text())["measured"]
    assert record["tasks"] == 12
    assert record["labels"] == "mc"
    assert main(["train-prm", str(explored.path)]) == 2
    assert "exists already" in capsys.readouterr().err
    other = explored.checkpoint("td")
    words = ["train-prm", str(explored.path), "--labels", "td", "--out", str(other)]
    assert main(words) == 0
    assert read_scale(other) != scale


def test_all_weights_are_trained(explored, scorer, capsys):
    whole = explored.checkpoint("whole")
    words = ["train-prm", str(explored.path), "--weights", "all", "--out", str(whole)]
    assert main([*words, "--labels", "td"]) == 2
    assert main([*words, "--epochs", "0"]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert main([*words, "--epochs", "1"]) == 0
    record = json.loads((whole / "process_rewards.json").read_text())["measured"]
    assert record["tuning"]["epochs"] == 1
    assert record["tasks"] == 12
    policy, head, tuned = (
        load_file(folder / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
        for folder in (explored.checkpoint("sft"), scorer, whole)
    )
    assert policy.equal(head)
    assert not policy.equal(tuned)


def test_a_base_model_has_one_too(explored, tmp_path):
    explore = {"tasks": 6, "strategy": "fixed", "rollouts": 2, "candidates": 2}
    model = {"name": str(explored.checkpoint("sft"))}
    folder = door_run(tmp_path / "run", "scored", model=model, sft="none", explore=explore)
    with open_run(folder) as run:
        stages.explore(run, 1)
    assert main(["train-prm", str(folder.path)]) == 0
    assert read_scale(folder.checkpoint("prm-1")).noise > 0


@pytest.mark.parametrize("pricing", ["prm", "mixed"])
def test_an_exploration_estimates_with_it(explored, scorer, tmp_path, pricing):
    explore = {"tasks": 4, "strategy": "fixed", "rollouts": 2, "candidates": 3}
    explore |= {"pricing": pricing, "reward_model": str(scorer)}
    model = {"name": str(explored.checkpoint("sft"))}
    folder = door_run(tmp_path / "run", "scored", model=model, sft="none", explore=explore)
    with open_run(folder) as run:
        stages.explore(run, 1)
        trees = list(explored_trees(run, Choices(run), 1))
    nodes = [node for tree in trees for node in tree.root.walk() if node.parent is not None]
    opened = [node.estimate for node in nodes if node.stop is None]
    assert opened
    if pricing == "prm":
        assert {estimate.policy for estimate in opened} == {"prm prm-1"}
        assert not any(node.rollouts for node in nodes)
    else:
        assert {estimate.weight for estimate in opened} == {read_scale(scorer).weight}
        assert all(0 <= estimate.predicted <= 1 for estimate in opened)
    assert main(["report", str(folder.path)]) == 0
    for pair in read_pairs(folder.pairs(1)):
        assert pair.chosen_reward.mean > pair.rejected_reward.mean


def test_what_does_not_fit_is_refused(explored, tmp_path):
    model = {"name": str(explored.checkpoint("sft"))}
    for number, (explore, error, sentence) in enumerate(
        (
            ({"strategy": "group", "pricing": "prm"}, UsageError, "group has none estimated"),
            ({"strategy": "adaptive", "pricing": "mixed"}, UsageError, "adaptive has none estimat"),
            ({"strategy": "rro", "pricing": "prm"}, UsageError, "needs explore.reward_model"),
            (
                {"strategy": "rro", "pricing": "mixed", "reward_model": str(tmp_path)},
                DataError,
                "train one with rro train-prm",
            ),
        )
    ):
        folder = door_run(
            tmp_path / f"run{number}", "scored", model=model, sft="none", explore=explore
        )
        with open_run(folder) as run, pytest.raises(error, match=sentence):
            stages.explore(run, 1)


def pricing_run(explored, folder, scorer, **settings):
    explore = {"tasks": 4, "strategy": "fixed", "rollouts": 2, "candidates": 2, "pricing": "prm"}
    explore |= {"reward_model": str(scorer), **settings}
    model = {"name": str(explored.checkpoint("sft"))}
    return door_run(folder, "scored", model=model, sft="none", explore=explore)


def refused(folder):
    with open_run(folder) as run, pytest.raises(DataError) as raised:
        stages.explore(run, 1)
    return str(raised.value)


def test_a_damaged_model_estimates_nothing(explored, scorer, tmp_path):
    copy = tmp_path / "scorer"
    shutil.copytree(scorer, copy)
    folder = pricing_run(explored, tmp_path / "run", copy)
    weights = "model.safetensors"
    shutil.copy(explored.checkpoint("sft") / weights, copy)
    assert f"{weights} is not as it was written" in refused(folder)
    (copy / SEAL).unlink()  # of a model that was never sealed nothing is known
    assert "the weights lack score" in refused(folder)
    (copy / weights).write_bytes((scorer / weights).read_bytes()[:2000])
    assert f"{copy}: its process reward model cannot be loaded" in refused(folder)
    tensors = load_file(scorer / weights)
    tensors["score.bias"] = tensors["score.bias"] * float("nan")
    save_file(tensors, copy / weights, {"format": "pt"})
    assert "says nan of an action" in refused(folder)
    with open_run(folder) as run:
        assert not list(run.journal.records("prediction"))
    shutil.copy(scorer / weights, copy)
    with open_run(folder) as run:
        stages.explore(run, 1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"noise": -5.0}, "a number that cannot be one"),
        ({"lowest": float("nan")}, "a number that cannot be one"),
        ({"slope": None}, "is damaged"),
    ],
)
def test_a_scale_that_cannot_be_one_is_refused(scorer, tmp_path, change, sentence):
    record = json.loads((scorer / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps({"scale": {**record["scale"], **change}}))
    with pytest.raises(DataError, match=sentence):
        read_scale(tmp_path)


def test_an_exploration_is_not_resumed_with_another_model(explored, scorer, tmp_path):
    used, other = tmp_path / "used", explored.checkpoint("other")
    shutil.copytree(scorer, used)
    assert main(["train-prm", str(explored.path), "--labels", "td", "--out", str(other)]) == 0
    folder = pricing_run(explored, tmp_path / "run", used)
    with open_run(folder) as run:
        assert open_predictor(run, "explore-1") is not None
        shutil.rmtree(used)
        shutil.copytree(other, used)
        with pytest.raises(UsageError, match="began with another process reward model"):
            stages.explore(run, 1)
        shutil.rmtree(used)
        shutil.copytree(scorer, used)
        stages.explore(run, 1)


def test_what_is_no_better_than_a_constant_has_no_table():
    worth = {"error": 0.2, "spread": 0.3, "tasks": 1, "actions": 2, "outcomes": 0.5}
    worth["bins"] = [(0.1, 0.2, 1), (0.3, 0.4, 1)]
    assert len(list(worth_lines(worth))) == 4
    constant, squared = worth_lines({**worth, "spread": 0.1})
    assert constant.startswith("the model is no better than one constant")
    assert "(1 task, 2 actions; one constant: 0.1000)" in squared
