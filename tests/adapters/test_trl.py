"""rro's environments in TRL's GRPOTrainer: the script of the docs, ids and masks, failures."""

import re
from pathlib import Path
from types import SimpleNamespace

import forked
import pytest
from fakes import TreeBenchmark
from tiny_model import make_tiny

from rro.adapters.trl import environment_factory, outcome, rollout_func, task_rows
from rro.errors import UsageError
from rro.models.chat import ChatFormat

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "trl.md").read_text(encoding="utf-8")
(SCRIPT,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
TREES = {"t": {"a": 1.0, "b": {"a": 0.5, "b": 0.0}}, "u": {"a": {"a": 0.25}}}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny"))


def trainer_of(tiny):
    """What of a GRPOTrainer a rollout_func reads."""
    model, tokenizer = tiny
    accelerator = SimpleNamespace(unwrap_model=lambda model: model, process_index=0)
    args = SimpleNamespace(temperature=1.0, top_p=1.0)
    return SimpleNamespace(
        model=model, processing_class=tokenizer, accelerator=accelerator, args=args
    )


def test_ids_are_the_sampled_ones_and_the_environment_is_masked(tiny):
    benchmark = TreeBenchmark(TREES, truncated=0.125, max_steps=3)
    prompts = ["t", "t", "u", "u"]
    trainer = trainer_of(tiny)
    trainer.model.train()
    found = rollout_func(benchmark, max_new_tokens=6)(prompts, trainer)
    assert trainer.model.training
    assert sorted(found) == ["completion_ids", "env_mask", "logprobs", "outcome", "prompt_ids"]
    assert found["prompt_ids"][0] == found["prompt_ids"][1] != found["prompt_ids"][2]
    assert found["completion_ids"][0] != found["completion_ids"][1]
    format_ = ChatFormat(tiny[1])
    for ids, mask, logprobs, reward in zip(
        found["completion_ids"], found["env_mask"], found["logprobs"], found["outcome"], strict=True
    ):
        assert len(ids) == len(mask) == len(logprobs)
        assert (mask[0], mask[-1]) == (1, 1)
        assert all((value < 0) == bool(own) for value, own in zip(logprobs, mask, strict=True))
        # A model without training takes no action of the tree: three answers, cut off.
        assert reward == 0.125
        assert sum(mask) <= 3 * 6
        said = format_.decode([id_ for id_, own in zip(ids, mask, strict=True) if not own])
        assert said.count("at : go") == 2
    again = rollout_func(benchmark, max_new_tokens=6)(prompts, trainer)
    assert again["completion_ids"] == found["completion_ids"]


def test_an_episode_that_failed_has_no_outcome_and_teaches_nothing(tiny):
    def fault(path, action):
        raise OSError("gone")

    found = rollout_func(TreeBenchmark(TREES, fault=fault))(["t", "u"], trainer_of(tiny))
    assert found["outcome"] == [None, None]
    assert found["env_mask"] == [[0], [0]]
    assert outcome(**{"outcome": found["outcome"], "prompts": ["t", "u"]}) == [None, None]


def test_a_prompt_that_is_no_task_is_one_sentence(tiny):
    with pytest.raises(UsageError, match="trees has no task 'x': see task_rows"):
        rollout_func(TreeBenchmark(TREES))(["x"], trainer_of(tiny))


def test_the_class_for_trl_plays_an_episode():
    benchmark = TreeBenchmark(TREES, truncated=0.125, max_steps=3)
    environment = environment_factory(benchmark)()
    assert environment.reset(**task_rows(benchmark)[0]) == "Walk.\n\nat : go a b"
    assert environment.get_reward() == 0.125
    assert environment.act("c") == "at : go a b"
    assert environment.act("b") == "at b: go a b"
    assert environment.act("a") == "the end"
    assert environment.get_reward() == 0.5
    assert environment.act("a") == "The episode has ended."
    assert environment.get_reward() == 0.5
    environment.reset(task="u")
    assert environment.get_reward() == 0.125


def test_what_the_environment_raises_leaves_no_reward():
    def fault(path, action):
        if action:
            raise OSError("gone")

    environment = environment_factory(TreeBenchmark(TREES, fault=fault))()
    environment.reset(task="t")
    with pytest.raises(OSError, match="gone"):
        environment.act("a")
    assert environment.get_reward() is None


def test_the_script_has_40_lines():
    assert len([line for line in SCRIPT.splitlines() if line.strip()]) <= 40


@pytest.mark.slow
def test_the_script_trains_the_shop(tmp_path):
    shorter = SCRIPT.replace("max_steps=4,", "max_steps=2,")
    assert shorter != SCRIPT
    (tmp_path / "train.py").write_text(shorter)
    ran = forked.python("train.py", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    rewards = [
        float(value) for value in re.findall(r"^step \d: reward ([\d.]+)$", ran.stdout, re.M)
    ]
    assert len(rewards) == 2
    assert max(rewards) > 0
    before, after = (tmp_path / name / "model.safetensors" for name in ("sft", "trained"))
    assert before.read_bytes() != after.read_bytes()
