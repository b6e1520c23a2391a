"""Real, small trainings by policy gradient: they learn, resume after a kill, and hand on what the
next round takes over."""

import json
import math
import os
from dataclasses import replace

import forked
import pytest
import torch
from train_toys import (
    Killed,
    build_toy,
    kill_at,
    toy_config,
    toy_episode,
    toy_group,
    toy_options,
)
from train_toys import train_policy_gradient as train

from rro.errors import DataError
from rro.learning.replay import read_successes
from rro.models.loading import load_model

EPISODES = toy_group(tasks=6)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return build_toy(toy_config(), tmp_path_factory.mktemp("base") / "base")


def state(folder):
    model, _ = load_model(toy_config().model, folder, train=False)
    return model.state_dict()


def assert_close(one, other, tolerance=0.0):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=tolerance, atol=tolerance)


def test_it_raises_what_was_good_and_reports(base, tmp_path):
    records, options = [], toy_options(epochs=8, learning_rate=3e-3)
    report = train(options, EPISODES, base, tmp_path / "out", records.append)
    assert report.steps == 8 * 3
    assert report.rows.used == 24
    assert report.rows.merged > 0
    assert [record["step"] for record in records] == list(range(1, 25))
    assert report.last_loss < report.first_loss - 0.05
    expected = {"clipped", "kl_old", "entropy", "grad_norm", "without_signal", "learning_rate"} | {
        "groups_without_signal"
    }
    assert expected <= records[0].keys()
    assert records[0]["kl_old"] == pytest.approx(0, abs=1e-6)
    assert records[0]["clipped"] == 0 < records[-1]["clipped"] < 1
    # Of an untrained model.
    assert records[0]["entropy"] == pytest.approx(math.log(280), rel=0.05)
    assert records[0]["negative_advantage"] < 0 < records[0]["positive_advantage"]
    assert report.tokens_per_second * report.seconds == pytest.approx(8 * report.rows.tokens)
    assert json.loads((tmp_path / "out" / "training.json").read_text())["rows"]["merged"] > 0


def test_what_was_not_measured_is_left_out(base, tmp_path):
    records = []
    train(
        toy_options(advantages=False, imitate=0.3), EPISODES, base, tmp_path / "out", records.append
    )
    assert "imitation_loss" in records[0]
    assert not {"clipped", "kl_old", "entropy", "groups_without_signal"} & records[0].keys()


def test_the_reference_holds_the_policy_back(base, tmp_path):
    last = []
    for kl in (1e-6, 3.0):
        options = toy_options(epochs=4, learning_rate=3e-3, kl=kl)
        report = train(options, EPISODES, base, tmp_path / str(kl), reference=base)
        assert report.metrics["kl_reference"] > 0
        last.append(report.metrics["kl_reference"])
    assert last[1] < 0.5 * last[0]


@pytest.mark.parametrize("shared", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_killed_training_resumes_to_the_same_weights(base, tmp_path, shared):
    """Bit by bit, in the second round of two: moments, successes and old log-probabilities too."""
    options = toy_options(
        epochs=3, save_steps=2, imitate=0.3, imitate_batch=4, share_prefixes=shared, kl=0.1
    )
    first = tmp_path / "first"
    train(options, EPISODES, base, first, reference=base)
    whole = train(options, EPISODES, first, tmp_path / "whole", reference=base)
    for step in (1, 5, 8):
        with pytest.raises(Killed):
            train(options, EPISODES, first, tmp_path / "out", kill_at(step), base)
        assert not (tmp_path / "out").exists()
    report = train(options, EPISODES, first, tmp_path / "out", reference=base)
    assert (report.resumed_from, report.steps) == (6, whole.steps)
    assert_close(state(tmp_path / "out"), state(tmp_path / "whole"))
    assert sorted(os.listdir(tmp_path / "out")) == sorted(os.listdir(tmp_path / "whole"))
    moments = [
        torch.load(tmp_path / name / "optimizer.pt", weights_only=True)[0]["exp_avg"]
        for name in ("out", "whole")
    ]
    assert torch.equal(*moments)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_micro_batches_and_sharing_do_not_change_the_training(base, tmp_path, checkpointing):
    trained = []
    for number, (micro, shared) in enumerate([(8, False), (1, False), (8, True), (3, True)]):
        options = toy_options(
            micro_batch=micro, share_prefixes=shared, gradient_checkpointing=checkpointing,
            imitate=0.5, imitate_batch=3,
        )  # fmt: skip
        train(options, EPISODES, base, tmp_path / str(number))
        trained.append(state(tmp_path / str(number)))
    assert (trained[0]["lm_head.weight"] - state(base)["lm_head.weight"]).abs().max() > 1e-3
    for other in trained[1:]:
        assert_close(other, trained[0], 1e-4)


def test_moments_carry_over(base, tmp_path):
    """Two rounds of one step each with the same rows: the second step is Adam's second, unless the
    moments are left behind."""
    options = toy_options(epochs=1, batch_size=24, max_grad_norm=1e9)
    train(options, EPISODES, base, tmp_path / "first")
    train(options, EPISODES, tmp_path / "first", tmp_path / "second")
    moments = torch.load(tmp_path / "second" / "optimizer.pt", weights_only=True)
    assert moments[0]["step"] == 2
    forgetful = options.model_copy(update={"keep_moments": False})
    train(forgetful, EPISODES, tmp_path / "first", tmp_path / "anew")
    assert not (tmp_path / "anew" / "optimizer.pt").exists()
    change = [state(tmp_path / name)["lm_head.weight"] for name in ("first", "second", "anew")]
    assert (change[1] - change[0]).abs().max() != (change[2] - change[0]).abs().max()


def test_successes_carry_over(base, tmp_path):
    """The shortest success of each task is kept from round to round, and is all there is to learn
    from where no advantage is left."""
    options = toy_options(imitate=1.0, learning_rate=5e-3, epochs=10)
    long = toy_episode(0, 0, 1.0)
    short = replace(long, messages=long.messages[:2], advantages=long.advantages[:2])
    train(options, [long, toy_episode(1, 0, -0.5)], base, tmp_path / "first")
    flat = [replace(toy_episode(n, 1, 0.0), success=n == 2) for n in (1, 2)]
    report = train(options, [replace(short, advantages=(None, 0.0)), *flat],
                   tmp_path / "first", tmp_path / "second")  # fmt: skip
    kept = read_successes(tmp_path / "second")
    assert [(success.task, success.steps) for success in kept] == [("0", 1), ("2", 2)]
    assert kept[0].messages == short.messages
    assert (report.rows.used, report.rows.without_signal) == (0, 3)
    assert report.metrics["imitation_loss"] < 0.6 * math.log(280)
    with pytest.raises(DataError, match=r"no episodes to train on: 2 given, .* 2 without an adv"):
        train(toy_options(), flat, base, tmp_path / "none")


def test_lora_leaves_a_whole_model(base, tmp_path):
    lora = {"lora": {"rank": 4, "alpha": 8}}
    options = toy_options(learning_rate=1e-2, gradient_checkpointing=True, share_prefixes=True)
    records = []
    train(options, EPISODES, base, tmp_path / "out", records.append, model=lora)
    assert records[0]["kl_old"] == pytest.approx(0, abs=1e-6)
    assert records[-1]["kl_old"] > 1e-3
    before, after = state(base), state(tmp_path / "out")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not any("embed" in name or "norm" in name for name in changed)
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").exists()
    assert not (tmp_path / "out" / "optimizer.pt").exists()


SCRIPT = """
import sys
from pathlib import Path
from train_toys import train_toy
train_toy("policy_gradient", Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_two_processes_train_like_one(base, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    for name, count in {"one": 1, "two": 2}.items():
        for process in forked.training(count, tmp_path / "script.py", base, tmp_path / name):
            assert process.returncode == 0, process.stderr
    assert_close(state(tmp_path / "one"), state(tmp_path / "two"), 1e-4)
    reports = [
        json.loads((tmp_path / name / "training.json").read_text()) for name in ("one", "two")
    ]
    for name in ("loss", "entropy", "kl_reference", "imitation_loss", "num_tokens"):
        assert reports[1]["metrics"][name] == pytest.approx(reports[0]["metrics"][name], rel=1e-3)


def test_the_first_step_gives_the_old_logprobs(base, tmp_path):
    """Three epochs of one step: as with log-probabilities that are scored before, which a training
    that may be resumed needs."""
    options = toy_options(epochs=3, batch_size=24, learning_rate=1e-2, imitate=0.5, micro_batch=5)
    records = {"noted": [], "scored": []}
    train(options, EPISODES, base, tmp_path / "noted", records["noted"].append)
    options = options.model_copy(update={"save_steps": 100})
    train(options, EPISODES, base, tmp_path / "scored", records["scored"].append)
    for noted, scored in zip(*records.values(), strict=True):
        for name in ("loss", "kl_old", "clipped", "imitation_loss"):
            assert noted[name] == pytest.approx(scored[name], abs=1e-5)
    assert records["noted"][-1]["kl_old"] > 1e-3
    assert_close(state(tmp_path / "noted"), state(tmp_path / "scored"), 1e-4)
