"""A run whose model is a GGUF file: explored and trained as any other, with adapters too."""

import json
from pathlib import Path

import doors
import pytest
from door_runs import SIZES

import rro
from rro.cli.main import main
from rro.config import ExpertsConfig, ModelConfig, parse_config
from rro.episodes.experts import scripted_experts
from rro.episodes.loop import Limits
from rro.models.adapters import adapter_between
from rro.models.loading import find_sources, load_model
from rro.plugins import ENVIRONMENTS
from rro.runs.folder import RunFolder

pytest.importorskip("gguf", reason="the extra gguf is not installed")

from gguf_toys import write_gguf


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A GGUF file of an untrained model."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if "doors-here" not in ENVIRONMENTS.names():
        ENVIRONMENTS.register("doors-here", doors.open_doors)
    bench = doors.open_doors()
    experts = ExpertsConfig(noise=0.5, episodes=20)
    shown = scripted_experts(bench, bench.tasks("train")[:20], experts, Limits(4), 0)
    folder = rro.make_model(shown, tmp_path / "model", **SIZES, split_digits=False)
    return write_gguf(
        tmp_path / "start.gguf", *load_model(ModelConfig(device="cpu"), folder, train=True)
    )


def test_a_gguf_file_is_explored_and_trained(file, tmp_path):
    config = parse_config(
        {
            "name": "file",
            "threads": 1,
            "sft": "none",
            "environment": {"name": "doors-here"},
            "model": {"name": str(file), "lora": {"rank": 2}},
            "policy": {"max_new_tokens": 4},
            # pairs of the expert's episodes and the model's, which fail
            "explore": {"tasks": 4, "strategy": "eto"},
            "rounds": {"count": 2},
            "dpo": {"epochs": 1, "batch_size": 4},
            "evaluate": {"tasks": 3, "greedy": False, "bootstrap": 100},
        },
        "test",
    )
    folder = RunFolder.create(config, tmp_path / "run")
    assert main(["run", "--resume", str(folder.path)]) == 0
    results = json.loads(folder.results.read_text())
    assert [row["label"] for row in results["evaluations"]] == ["base", "eto-1", "eto-2"]
    base = find_sources(config.model, None)[0]
    assert base.startswith(str(tmp_path / "cache"))
    for label in ("eto-1", "eto-2"):
        # what a server of the base model loads in place of the merged weights
        adapter = adapter_between(Path(base), folder.checkpoint(label))
        assert adapter is not None, label
