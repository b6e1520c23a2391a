"""reasoning-gym's data sets, on the real package."""

import re

import pytest
from fakes import explore, finished_trees, fresh_journal, make_context
from report_toys import steps_in_report

from rro.environments.base import Forkable
from rro.environments.registry import open_benchmark
from rro.errors import UsageError
from rro.exploration.strategies.group import Group
from rro.learning.credit.group_advantages import GroupAdvantages
from rro.policies.scripted import ScriptedPolicy
from rro.types import Message

pytest.importorskip("reasoning_gym")
SUMS = {
    "dataset": "chain_sum",
    "config": {"min_terms": 2, "max_terms": 2, "min_digits": 4, "max_digits": 4},
    "train_tasks": 4,
    "test_tasks": 3,
}


def ask(benchmark, split="train", index=0):
    environment = benchmark.make()
    (message,) = environment.reset(benchmark.tasks(split)[index])
    return environment, message.content


def value(question):
    left, sign, right = re.search(r"(\d+) ([+-]) (\d+)", question).groups()
    return int(left) + int(right) * (1 if sign == "+" else -1)


def test_the_data_set_asks_and_scores():
    benchmark = open_benchmark("reasoning-gym", SUMS)
    environment, question = ask(benchmark)
    assert question.startswith("State the final answer to the following arithmetic problem")
    assert question.endswith("</answer>.")
    right = f"It is 7 <answer>1</answer>, no: <answer> {value(question)}</answer>"
    result = environment.step(Message("assistant", right))
    assert (result.reward, result.done) == (1.0, True)
    environment, question = ask(benchmark)
    assert environment.step(Message("assistant", "a million")).reward < 1


def test_seeds_make_the_same_questions_and_splits_differ():
    first, again = (open_benchmark("reasoning-gym", SUMS) for _ in range(2))
    other = open_benchmark("reasoning-gym", {**SUMS, "seed": 5})
    asked = [[ask(b, "train", n)[1] for n in range(4)] for b in (first, again, other)]
    assert asked[0] == asked[1] != asked[2]
    assert not {ask(first, "test", n)[1] for n in range(3)} & set(asked[0])
    assert [len(first.tasks(split)) for split in ("train", "test")] == [4, 3]


@pytest.mark.parametrize("text", ["", "<answer>", "</answer><answer>", "9" * 10_000, "\x00", "é"])
def test_any_text_is_an_answer(text):
    environment, _ = ask(open_benchmark("reasoning-gym", SUMS))
    result = environment.step(Message("assistant", text))
    assert (result.done, 0 <= result.reward < 1) == (True, True)


def test_a_group_learns_from_it(tmp_path):
    benchmark = open_benchmark("reasoning-gym", SUMS)
    assert isinstance(benchmark.make(), Forkable)

    def answer(messages, rng):
        return f"<answer>{value(messages[0].content) + rng.randint(0, 1)}</answer>"

    with fresh_journal(tmp_path) as journal:
        context = make_context(benchmark, ScriptedPolicy(answer), journal)
        assert explore(Group(episodes=8), context) == []
        trees = finished_trees(journal)
    assert len(trees) == 4
    outcomes = {row.reward for tree in trees.values() for row in GroupAdvantages().rows(tree)}
    assert 1.0 in outcomes
    assert len(outcomes) > 1


def test_the_report_shows_its_questions_and_answers(tmp_path):
    def answer(messages, rng):
        return f"<answer>{value(messages[0].content) + rng.randint(0, 1)}</answer>"

    benchmark, policy = open_benchmark("reasoning-gym", SUMS), ScriptedPolicy(answer)
    shown = steps_in_report(tmp_path / "run", benchmark, policy, Group(episodes=4))
    assert len(shown) >= 16
    assert {step["info"]["answer"] in step["action"] for step in shown} == {True, False}
    assert all(step["observation"].startswith("Score: ") for step in shown)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dataset": "chain_sums"}, "no data set 'chain_sums': did you mean chain_sum"),
        ({"dataset": "chain_sum", "config": {"terms": 3}}, "config does not fit chain_sum"),
        ({"dataset": "countdown"}, "may evaluate answers as Python code: set .*allow_eval"),
    ],
)
def test_what_does_not_fit_is_one_sentence(options, sentence):
    with pytest.raises(UsageError, match=sentence):
        open_benchmark("reasoning-gym", options)


def test_code_in_answers_runs_only_if_it_may():
    allowed = {"dataset": "countdown", "allow_eval": True, "train_tasks": 1}
    assert ask(open_benchmark("reasoning-gym", allowed))[1]
