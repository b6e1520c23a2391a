"""What can be known before a run is made: all of it is told, and nothing is written."""

import json
import sys

import pytest
from tiny_model import make_tiny

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
        (
            "environment",
            {"environment": {**SHOP, "validation_split": "test"}},
            "set environment.validation_split=validation",
        ),
        ("experts", {"experts": {"file": "nowhere.jsonl"}}, "nowhere.jsonl cannot be read"),
        ("model", {"model": {"name": "no-model"}}, "neither a folder nor a name on the hub"),
        ("model", {"model": {"chat_template": "none.jinja"}}, "none.jinja: no such file"),
        ("learner", {"credit": {"name": "demonstrations"}}, "takes pairs, but credit"),
        (
            "process rewards",
            {"explore": {"strategy": "rro", "pricing": "prm", "reward_model": "none"}},
            "none: no process reward model there",
        ),
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


def test_what_is_said_of_the_chat_template_must_suit_it(tmp_path):
    make_tiny(tmp_path / "model")
    (tmp_path / "deaf.jinja").write_text("{{ messages[0].content }}")
    (tmp_path / "good.jinja").write_text(
        "{% for m in messages %}{{ m.role if loud }}{{ m.content }}<|end|>{% endfor %}"
    )
    told = [
        checks(tmp_path, model={"name": str(tmp_path / "model"), **said})["model"].problem
        for said in (
            {"chat_template_kwargs": {"enable_thinking": False}},
            {"chat_template": str(tmp_path / "deaf.jinja")},
            {"chat_template": str(tmp_path / "good.jinja"), "chat_template_kwargs": {"loud": True}},
        )
    ]
    assert "has no variable 'enable_thinking' to set: it has none" in told[0]
    assert "drops or rewrites the assistant message" in told[1]
    assert told[2] is None


def test_a_tracker_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr("rro.runs.trackers.find_spec", lambda name: None)
    assert "pip install wandb" in checks(tmp_path, report_to=["wandb"])["trackers"].problem


def test_experts_of_other_tasks_are_no_use_to_a_strategy_that_needs_them(tmp_path):
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    file = tmp_path / "experts.jsonl"
    file.write_text(json.dumps({"id": "another", "messages": turns}) + "\n")
    experts = {"file": str(file)}
    assert checks(tmp_path, experts=experts)["experts"].detail == f"1 episode in {file}"
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


@pytest.mark.parametrize(
    ("name", "sections", "sentence"),
    [
        ("model", {"model": {"tiny": {"heads": 3}}}, "heads must divide"),
        ("model", {"model": {"tiny": {"vocabulary": 3}}}, "model.tiny.vocabulary must be at least"),
        ("model", {"model": {"device": "qpu"}}, "model.device 'qpu' cannot be used"),
        ("learner", {"explore": {"strategy": "parts:Nothing"}}, "a Nothing, which has no name"),
        ("learner", {"explore": {"strategy": "parts:Half"}}, "abstract"),
        (
            "learner",
            {"credit": {"name": "parts:Nothing"}},
            "a Nothing, which has no gives and no rows",
        ),
        ("learner", {"optimise": {"learner": "parts:TakesOnly"}}, "has no name and no train"),
        (
            "learner",
            {"explore": {"strategy": "adaptive", "proposal_temperature": 0.3}},
            "both need one model",
        ),
        ("environment", {"environment": {"name": "parts:twice"}}, "two tasks have the id 'a'"),
        ("environment", {"environment": {"name": "parts:no_text"}}, "item 1 is no Task"),
        ("environment", {"environment": {"name": "parts:no_steps"}}, "max_steps must be at least"),
        ("environment", {"environment": {"name": "parts:waits"}}, "use def, not async def"),
    ],
)
def test_parts_of_ones_own_are_made_before_the_run(tmp_path, monkeypatch, name, sections, sentence):
    (tmp_path / "parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "parts", raising=False)
    problems = {c.name: c.problem for c in checks(tmp_path, **sections).values() if c.problem}
    assert sentence in problems[name]
    assert name != "environment" or set(problems) == {name}


PARTS = """
from rro.environments.base import TaskList
from rro.exploration.strategies.base import Strategy
from rro.types import Task


class Nothing:
    pass


class Half(Strategy):
    name = "half"


class TakesOnly:
    takes = "pairs"


def tasks(*ids, **options):
    listed = [Task(id, None) for id in ids]
    return TaskList("own", object, {"train": listed, "test": listed}, **options)


def twice():
    return tasks("a", "b", "a")


def no_text():
    return tasks(3)


def no_steps():
    return tasks("a", max_steps=0)


async def waits():
    return tasks("a")
"""
