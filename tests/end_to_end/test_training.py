"""Real, small trainings from conversations to a folder that loads again: they learn, and resume
after a kill."""

import json
import os
import shutil
import signal
from dataclasses import replace

import forked
import pytest
import torch
from peft import PeftModel
from train_toys import (
    Killed,
    answer,
    build_toy,
    kill_at,
    toy_config,
    toy_conversation,
    toy_pair,
    train_dpo,
    train_sft,
    train_toy,
)

from rro.errors import RroError, UsageError
from rro.learning.workspace import Workspace
from rro.models.adapters import adapter_between, adapter_on, merge
from rro.models.loading import load_model
from rro.types import ProcessReward

CONVERSATIONS = [toy_conversation(n) for n in range(50)]
PAIRS = [toy_pair(n, kind) for n in range(12) for kind in ("message", "trajectory")]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return build_toy(toy_config(), tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def tuned(base, tmp_path_factory):
    """The folder of an SFT, its report and its metrics."""
    output, records = tmp_path_factory.mktemp("run") / "sft", []
    report = train_sft(toy_config(), CONVERSATIONS, base, output, records.append)
    return output, report, records


def state(folder, config=None):
    model, _ = load_model((config or toy_config()).model, folder, train=False)
    return model.state_dict()


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=0)


def test_sft_learns_and_reports(tuned):
    output, report, records = tuned
    assert report.last_loss < 0.6 * report.first_loss
    # 4 epochs of 50 rows in batches of 8.
    assert report.steps == 4 * 7
    assert report.rows.used == 50
    assert [record["step"] for record in records] == list(range(1, 29))
    assert {"stage", "loss", "learning_rate", "grad_norm", "tokens_per_second"} <= records[0].keys()
    assert all(record["tokens_per_second"] > 0 for record in records)
    assert json.loads((output / "training.json").read_text(encoding="utf-8")) == json.loads(
        json.dumps(report.record())
    )
    assert not output.with_name("sft.partial").exists()


def test_throughput_counts_every_token_though_the_last_step_has_no_record(base, tmp_path):
    records, config = [], toy_config(sft={"batch_size": 1, "epochs": 15})
    report = train_sft(config, CONVERSATIONS[:13], base, tmp_path / "out", records.append)
    assert records[-1]["step"] == report.steps - 1
    tokens = report.tokens_per_second * report.seconds
    assert tokens == pytest.approx(15 * report.rows.tokens)


def test_dpo_raises_the_margin_against_the_sft_policy(tuned, tmp_path):
    sft, records = tuned[0], []
    report = train_dpo(toy_config(), PAIRS, sft, sft, tmp_path / "dpo", records.append)
    # Policy and reference are the same.
    assert records[0]["rewards/margins"] == pytest.approx(0, abs=1e-4)
    assert records[-1]["rewards/margins"] > 0.1
    assert report.last_loss < report.first_loss == pytest.approx(0.6931, abs=1e-4)
    assert any(
        not torch.equal(a, b)
        for a, b in zip(state(tmp_path / "dpo").values(), state(sft).values(), strict=True)
    )


def test_dpo_caps_terminal_rejections_and_reports_how_many(tuned, tmp_path):
    estimated = ProcessReward((1.0,), "toy")
    terminal = [replace(pair, chosen_reward=estimated) for pair in PAIRS[:8]]
    config = toy_config(dpo={"epochs": 1, "endings": 0.5})
    report = train_dpo(config, [*terminal, *PAIRS[8:12]], tuned[0], tuned[0], tmp_path / "dpo")
    assert (report.rows.used, report.rows.capped) == (8, 4)
    assert report.record()["rows"]["capped"] == 4


def test_next_iteration_starts_from_the_policy_and_keeps_the_reference(tuned, tmp_path):
    sft = tuned[0]
    train_dpo(toy_config(), PAIRS, sft, sft, tmp_path / "first")
    records = []
    train_dpo(
        toy_config(),
        PAIRS,
        tmp_path / "first",
        sft,
        tmp_path / "second",
        records.append,
    )
    # What the first iteration gained.
    assert records[0]["rewards/margins"] > 0.1


@pytest.mark.parametrize("checkpointing", [False, True])
def test_lora_leaves_whole_models(tuned, tmp_path, checkpointing):
    sft = tuned[0]
    common = {"gradient_checkpointing": checkpointing, "learning_rate": 1e-2}
    config = toy_config(model={"lora": {"rank": 4, "alpha": 8}}, sft=common, dpo=common)
    train_sft(config, CONVERSATIONS, sft, tmp_path / "sft")
    records = []
    train_dpo(
        config,
        PAIRS,
        tmp_path / "sft",
        tmp_path / "sft",
        tmp_path / "dpo",
        records.append,
    )
    assert records[0]["rewards/margins"] == pytest.approx(0, abs=1e-4)
    assert records[-1]["rewards/margins"] > 0.05
    assert not (tmp_path / "dpo" / "adapter_config.json").exists()
    before, after = state(tmp_path / "sft"), state(tmp_path / "dpo")
    assert before.keys() == state(sft).keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not any("embed" in name or "norm" in name for name in changed)
    # What a serving engine puts on the SFT policy.
    adapter = adapter_between(tmp_path / "sft", tmp_path / "dpo")
    again = load_model(config.model, tmp_path / "sft", train=False)[0]
    again = PeftModel.from_pretrained(again, adapter).merge_and_unload().state_dict()
    assert all((after[name] - again[name].float()).abs().max() < 1e-5 for name in after)
    # What replicas elsewhere do.
    assert adapter_on(tmp_path / "sft", tmp_path / "dpo") == adapter
    assert adapter_on(sft, tmp_path / "dpo") is None
    merge([adapter], shutil.copytree(tmp_path / "sft", tmp_path / "merged"))
    assert_same(state(tmp_path / "merged"), after)


SLOW_LORA = pytest.param({"rank": 4, "alpha": 8}, marks=pytest.mark.slow)


@pytest.mark.parametrize("lora", [None, SLOW_LORA])
def test_killed_training_resumes_to_the_same_weights(base, tuned, tmp_path, lora):
    """Killed before the first checkpoint and, in later epochs, after one: the weights are equal,
    bit by bit."""
    config = toy_config(model={"lora": lora}, sft={"save_steps": 5}, dpo={"save_steps": 2})
    whole = train_sft(config, CONVERSATIONS, base, tmp_path / "whole")
    for step in (3, 12, 13):
        with pytest.raises(Killed):
            train_sft(config, CONVERSATIONS, base, tmp_path / "sft", kill_at(step))
        assert not (tmp_path / "sft").exists()
    report = train_sft(config, CONVERSATIONS, base, tmp_path / "sft")
    assert (report.resumed_from, report.steps) == (10, whole.steps)
    assert_same(state(tmp_path / "sft"), state(tmp_path / "whole"))

    train_dpo(config, PAIRS, tuned[0], base, tmp_path / "whole-dpo")
    with pytest.raises(Killed):
        train_dpo(config, PAIRS, tuned[0], base, tmp_path / "dpo", kill_at(6))
    assert train_dpo(config, PAIRS, tuned[0], base, tmp_path / "dpo").resumed_from == 4
    assert_same(state(tmp_path / "dpo"), state(tmp_path / "whole-dpo"))


@pytest.mark.slow
def test_killed_while_the_result_is_written(base, tmp_path, monkeypatch):
    """Nothing is trained twice, and no incomplete folder is taken for a result."""
    config = toy_config(sft={"save_steps": 7, "epochs": 2})

    def fail(work, model, tokenizer, report):
        (work.partial / "final").mkdir()
        (work.partial / "final" / "optimizer.bin").write_bytes(b"incomplete")
        raise Killed

    monkeypatch.setattr(Workspace, "finish", fail)
    with pytest.raises(Killed):
        train_sft(config, CONVERSATIONS, base, tmp_path / "out")
    monkeypatch.undo()
    assert not (tmp_path / "out").exists()
    assert train_sft(config, CONVERSATIONS, base, tmp_path / "out").resumed_from == 14
    train_sft(config, CONVERSATIONS, base, tmp_path / "whole")
    assert_same(state(tmp_path / "out"), state(tmp_path / "whole"))
    assert sorted(os.listdir(tmp_path / "out")) == sorted(os.listdir(tmp_path / "whole"))


def test_diverged_training_stops_at_once(base, tmp_path):
    config = toy_config(
        sft={"learning_rate": 1e30, "max_grad_norm": 1e30, "scheduler": "constant", "warmup": 0}
    )
    with pytest.raises(RroError, match=r"no longer finite: lower sft\.learning_rate"):
        train_sft(config, CONVERSATIONS, base, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_finished_output_is_not_overwritten(tuned, base):
    with pytest.raises(UsageError, match="exists already"):
        train_sft(toy_config(), CONVERSATIONS, base, tuned[0])


def test_tuned_model_gives_the_answers_it_learned(base, tmp_path):
    """From text to text, through the saved folder."""
    learned = [(toy_conversation(0)[0], answer("thought: seven"))] * 8
    config = toy_config(sft={"epochs": 40, "learning_rate": 1e-2})
    train_sft(config, learned, base, tmp_path / "out")
    model, tokenizer = load_model(config.model, tmp_path / "out", train=False)
    prompt = tokenizer.apply_chat_template(
        [learned[0][0].chat()], add_generation_prompt=True, return_tensors="pt"
    )
    output = model.generate(**prompt, max_new_tokens=30, do_sample=False)
    assert (
        tokenizer.decode(output[0, prompt["input_ids"].shape[1] :])
        == "thought: seven" + tokenizer.eos_token
    )


SCRIPT = """
import sys
from pathlib import Path
from train_toys import train_toy
train_toy(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("learner", ["sft", "dpo", "policy_gradient"])
def test_kill_9_and_another_number_of_processes(base, tmp_path, learner):
    """A process is killed, and another number of them goes on from its checkpoint: the weights are
    those of one process that nothing disturbed, up to rounding."""
    (tmp_path / "train.py").write_text(SCRIPT, encoding="utf-8")
    train_toy(learner, base, tmp_path / "undisturbed")
    expected = state(tmp_path / "undisturbed")
    for before, after in ((1, 2), (2, 1)):
        output = tmp_path / f"{before}-{after}"
        words = (tmp_path / "train.py", learner, base, output)
        # Killed is the first; where there is another, it cannot go on alone.
        killed = [process.returncode for process in forked.training(before, *words, 7)]
        assert killed[0] == -signal.SIGKILL
        assert all(killed)
        assert not output.exists()
        for process in forked.training(after, *words, 0):
            assert process.returncode == 0, process.stderr
        assert json.loads((output / "training.json").read_text())["resumed_from"] == 5
        for key, weights in state(output).items():
            torch.testing.assert_close(weights, expected[key], atol=1e-4, rtol=1e-3)
