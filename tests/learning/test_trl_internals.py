"""What rro changes inside TRL and Transformers is there, as it was when rro was written."""

from pathlib import Path

import pytest
import torch
import trl.trainer.utils
from train_toys import build_toy, toy_config, toy_conversation, train_sft
from transformers import TrainingArguments
from trl import DPOTrainer

from rro.errors import RroError
from rro.learning.trl_internals import TESTED, adapted_trl, changed, missing, use_one_gpu


def test_the_installed_versions_have_all_internals_with_the_same_parameters():
    assert missing() == []
    assert changed() == []


def test_the_tested_versions_are_those_that_are_installed_by_the_constraints():
    pins = (Path(__file__).parents[2] / "constraints.txt").read_text(encoding="utf-8").split()
    for package, tested in TESTED.items():
        assert f"{package}=={tested}" in pins, "read the internals again, then update TESTED"


def test_an_internal_that_is_gone_is_named(monkeypatch):
    monkeypatch.delattr(DPOTrainer, "_precompute_ref_logps")
    assert len(missing()) == 1
    assert "no longer has trl:DPOTrainer._precompute_ref_logps" in missing()[0]
    assert "look at learning/trl_internals.py" in missing()[0]


def test_an_internal_with_other_parameters_is_named(monkeypatch):
    monkeypatch.setattr(DPOTrainer, "_prepare_dataset", lambda self, rows: rows)
    assert missing() == []
    assert len(changed()) == 1
    assert "trl:DPOTrainer._prepare_dataset takes (self rows)" in changed()[0]


def test_a_training_refuses_another_trl_in_one_sentence(tmp_path, monkeypatch):
    base = build_toy(toy_config(), tmp_path / "base")
    monkeypatch.delattr(trl.trainer.utils, "_use_triton")
    with pytest.raises(RroError, match=r"TRL .* no longer has .*_use_triton.*tested with: trl==1"):
        train_sft(toy_config(), [toy_conversation(0)], base, tmp_path / "out")


def test_trl_is_as_before_after_a_training():
    before, cpu = trl.trainer.utils._use_triton, torch.device("cpu")
    with adapted_trl():
        assert trl.trainer.utils._use_triton(cpu)
    assert trl.trainer.utils._use_triton is before


def test_one_gpu_of_several_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    args = TrainingArguments(output_dir=str(tmp_path))
    assert args.n_gpu == 2
    use_one_gpu(args)
    assert args.n_gpu == 1
