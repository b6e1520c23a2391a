"""The SFT policy that trials share."""

from pathlib import Path

import pytest

from rro.config import load_config
from rro.errors import UsageError
from rro.pipeline.trial import shared_start, start_folder
from rro.runs.journal import Journal

DOORS = Path(__file__).parents[1] / "end_to_end" / "doors.toml"


def config(*overrides):
    return load_config(DOORS, ["sft.epochs=1", "experts.episodes=8", *overrides])


def test_what_decides_the_sft_policy_decides_its_folder(tmp_path):
    one = start_folder(config(), tmp_path)
    assert start_folder(config("dpo.epochs=9", "explore.tasks=2", "name=other"), tmp_path) == one
    assert start_folder(config("seed=5"), tmp_path, 1) == one  # the seed of doors.toml
    for override in ("seed=5", "sft.epochs=2", "experts.noise=0", "model.tiny.layers=1"):
        assert start_folder(config(override), tmp_path) != one


def test_it_is_made_once_and_read_while_others_read_it(tmp_path):
    made = shared_start(config(), tmp_path)
    weights = made / "model.safetensors"
    before = weights.stat().st_mtime_ns
    with Journal(start_folder(config(), tmp_path) / "journal.jsonl"):
        assert shared_start(config("dpo.epochs=9"), tmp_path) == made
        assert weights.stat().st_mtime_ns == before
        weights.write_bytes(weights.read_bytes()[:100])
        with pytest.raises(UsageError, match="another process"):
            shared_start(config(), tmp_path)
    assert shared_start(config(), tmp_path) == made
    assert weights.stat().st_size > 100
