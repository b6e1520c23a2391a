"""`rro check`: what a recipe takes, beside whether it can start."""

import re

import pytest

from rro.cli.main import main

SHOP = ("quickstart", "method=adaptive", "explore.tasks=10", "evaluate.tasks=10")


def told(capsys, *words):
    code = main(["check", *words])
    return code, capsys.readouterr().out


def test_calls_tokens_and_memory_are_told_without_a_speed(capsys, tmp_path):
    code, out = told(capsys, *SHOP, "--out", str(tmp_path / "run"))
    assert code == 0
    # four rollouts from the start, then three more from each state
    calls = 4 * 10 + 3 * sum(range(10))
    assert f"exploration: up to {10 * calls:,} policy calls" in out
    assert "memory of dpo: about" in out
    assert "hours" not in out
    assert not (tmp_path / "run").exists()


def test_a_speed_and_a_price_give_hours_and_money(capsys):
    _, out = told(capsys, *SHOP, "--sampling-rate", "1", "--price", "3600")
    sampled = [int(n.replace(",", "")) for n in re.findall(r"([\d,]+) sampled tokens", out)]
    assert f"{sum(sampled) / 3600:,.1f} hours for a price of {sum(sampled):,.2f}" in out
    assert "without what --training-rate would add" in out
    _, out = told(capsys, *SHOP, "--sampling-rate", "1", "--training-rate", "1e3")
    assert "would add" not in out
    assert "price" not in out


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["explore.strategy=rro"], "needs explore.reward_model"),
        (["explore.strategy=group", "explore.reward_model=x"], "estimate single actions"),
        (["explore.strategy=rro", "explore.reward_model=/nowhere"], "nowhere"),
    ],
)
def test_what_keeps_rewards_from_being_estimated_is_told_by_its_name(capsys, words, problem):
    code, out = told(capsys, "quickstart", "method=rro", "explore.pricing=prm", *words)
    assert code == 2
    [wrong] = re.findall("wrong .*", out)
    assert wrong.startswith("wrong process rewards: ")
    assert problem in wrong


@pytest.mark.parametrize("rate", ["0", "-1", "fast", "inf", "nan"])
def test_a_speed_is_a_number_above_0(capsys, rate):
    with pytest.raises(SystemExit) as stop:
        main(["check", *SHOP, f"--sampling-rate={rate}"])
    assert stop.value.code == 2
    assert "no number above 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    "recipe", ["webshop-gemma2-2b", "webshop-1k-qwen2.5-1.5b", "intercode-sql-gemma2-2b"]
)
def test_recipes_for_a_gpu_are_estimated_without_data_and_model(capsys, monkeypatch, recipe):
    monkeypatch.setenv("RRO_DATA", "nowhere")
    code, out = told(capsys, recipe)
    assert code == 2
    assert re.search(r"exploration: up to [\d,]{7,} policy calls", out)
    assert "as its name says" in out
    assert "config.json" in out


def test_what_a_recipe_leaves_to_its_environment_is_not_guessed(capsys, monkeypatch):
    monkeypatch.setenv("RRO_DATA", "nowhere")
    code, out = told(capsys, "webshop-1k-tiny")
    assert code == 2
    assert "not counted: that takes the environment, or a recipe that sets explore.tasks" in out
    assert "memory to sample" in out


def test_a_strategy_of_ones_own_that_fails_is_not_counted(capsys, tmp_path, monkeypatch):
    (tmp_path / "failing_strategy.py").write_text(FAILING)
    monkeypatch.syspath_prepend(str(tmp_path))
    code, out = told(capsys, *SHOP, "explore.strategy=failing_strategy:Failing")
    assert code == 0
    assert "calls and tokens: not counted: ValueError: no luck" in out
    assert "memory to sample" in out


FAILING = """
from rro.exploration.strategies.base import Strategy


class Failing(Strategy):
    name = "failing"

    async def explore(self, sampler):
        raise ValueError("no luck")
"""


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["optimise.policy_gradient.scheduler=foo"], "must be one of linear, cosine"),
        (["credit.anchor_advantages.step_weight=nan"], "must be a number, not nan"),
        (
            ["optimise.policy_gradient.old_logprobs=sampled", "policy.temperature=0.6"],
            "those at temperature 1",
        ),
        (["explore.pricing=sft"], "leave out explore.pricing"),
    ],
)
def test_what_would_fail_after_an_exploration_is_told_before_it(capsys, words, problem):
    assert main(["check", "quickstart", "method=gigpo", *words]) == 2
    assert problem in "".join(capsys.readouterr())
