"""What can be known before a run is made: all of it is told, and nothing is written."""

import json

import pytest

from rro.config import parse_config
from rro.errors import UsageError
from rro.pipeline.check import check_run, new_run

SHOP = {"name": "webshop", "options": {"catalogue": "sample"}}


def checks(folder, **sections):
    config = parse_config({"environment": SHOP, **sections}, "recipe")
    return {check.name: check for check in check_run(config, folder / "run")}


def test_a_run_that_can_start(tmp_path):
    found = checks(tmp_path)
    assert [check.problem for check in found.values()] == [None] * len(found)
    assert "webshop" in found["environment"].detail
    assert found["experts"].detail == "the scripted expert of webshop"
    assert found["learner"].detail == "dpo of pairs"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "sections", "sentence"),
    [
        ("environment", {"environment": {"name": "webshop"}}, "rro data fetch webshop-1k"),
        ("environment", {"environment": {**SHOP, "test_split": "dev"}}, "no split 'dev'"),
        ("experts", {"experts": {"file": "nowhere.jsonl"}}, "nowhere.jsonl cannot be read"),
        ("model", {"model": {"name": "no-model"}}, "neither a folder nor a name on the hub"),
        ("model", {"model": {"chat_template": "none.jinja"}}, "none.jinja: no such file"),
        ("learner", {"credit": {"name": "demonstrations"}}, "takes pairs, but credit"),
        (
            "policy",
            {"policy": {"backend": "vllm", "vllm": {"python": "no/python"}}},
            "no interpreter",
        ),
        (
            "policy",
            {"policy": {"backend": "openai", "openai": {"base_url": "http://127.0.0.1:9/v1"}}},
            "127.0.0.1:9",
        ),
    ],
)
def test_what_is_wrong_is_told(tmp_path, monkeypatch, name, sections, sentence):
    monkeypatch.setenv("RRO_DATA", str(tmp_path / "data"))
    problems = {
        check.name: check.problem
        for check in checks(tmp_path, **sections).values()
        if check.problem
    }
    assert sentence in problems[name]
    assert "experts" in problems or set(problems) == {name}


def test_a_tracker_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr("rro.runs.trackers.find_spec", lambda name: None)
    assert "pip install wandb" in checks(tmp_path, report_to=["wandb"])["trackers"].problem


def test_experts_of_other_tasks_are_no_use_to_a_strategy_that_needs_them(tmp_path):
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    file = tmp_path / "experts.jsonl"
    file.write_text(json.dumps({"id": "another", "messages": turns}) + "\n")
    experts = {"file": str(file)}
    assert checks(tmp_path, experts=experts)["experts"].detail == f"1 episodes in {file}"
    refused = checks(tmp_path, experts=experts, explore={"strategy": "eto"})["experts"]
    assert "no row's id is a task" in refused.problem


def test_a_model_that_does_not_fit_on_the_disk(tmp_path):
    huge = {"tiny": {"hidden_size": 10**6, "layers": 10**3}}
    assert "make room, or choose another --out" in checks(tmp_path, model=huge)["disk"].problem


def test_a_start_that_fails_leaves_no_folder(tmp_path):
    tree = {
        "environment": SHOP,
        "model": {"name": "no-model"},
        "experts": {"file": "nowhere.jsonl"},
    }
    with pytest.raises(UsageError, match=r"(?s)2 things keep the run.*nowhere.jsonl.*no-model"):
        new_run(parse_config(tree, "recipe"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    folder, _ = new_run(parse_config({"environment": SHOP}, "recipe"), tmp_path / "run")
    assert folder.path.is_dir()
    with pytest.raises(UsageError, match="holds a run already"):
        new_run(parse_config({"environment": SHOP}, "recipe"), tmp_path / "run")
