"""Differences between policies and between runs, and what results.json holds of them."""

import json

import pytest

from rro.errors import DataError, RroError, UsageError
from rro.evaluation.compare import compare, rewards_of, to_first_policy, to_first_run
from rro.evaluation.figures import EpisodeTotals, evaluation_of, journalled_evaluation
from rro.evaluation.results import load_results
from rro.runs.journal import Journal

RESAMPLING = {"resamples": 1000, "seed": 0}
SFT = {"a": [0.0, 0.5], "b": [0.5], "c": [1.0]}
LATER = {"a": [0.5], "b": [1.0], "c": [1.0], "d": [0.0]}


def brief(difference):
    paired = difference.paired
    return (
        (difference.label, difference.against, difference.mode),
        paired.difference.mean,
        (paired.difference.n, paired.only_a + paired.only_b),
    )


def episode(task, reward, steps=2, invalid=1, stop="terminal"):
    turns = [{"invalid": number < invalid} for number in range(steps)]
    usage = {"policy_calls": steps, "generated_tokens": 3 * steps}
    return {"task": task, "reward": reward, "steps": turns, "stop": stop, "usage": usage}


def test_later_policies_are_compared_to_the_first_by_mode():
    rewards = {
        ("sft", "sampled"): SFT,
        ("sft", "greedy"): SFT,
        ("rro-1", "sampled"): LATER,
        ("rro-1", "greedy"): SFT,
        ("rro-2", "sampled"): {"elsewhere": [1.0]},
    }
    differences = to_first_policy(rewards, 1000, 0)
    assert [brief(difference) for difference in differences] == [
        (("rro-1", "sft", "sampled"), 0.25, (3, 1)),
        (("rro-1", "sft", "greedy"), 0.0, (3, 0)),
    ]
    assert list(differences[0].plain()) == [
        "mode", "label", "against", "mean", "low", "high", "n", "left_out"
    ]  # fmt: skip
    assert to_first_policy({}, 1000, 0) == []


def test_runs_are_compared_by_their_last_policies():
    first = {("sft", "sampled"): LATER, ("rro-1", "sampled"): SFT}
    second = {("sft", "sampled"): SFT, ("ipr-1", "sampled"): LATER, ("ipr-1", "greedy"): LATER}
    found = to_first_run([first, second, {}, first])
    assert [(run, *brief(difference)) for run, difference in found] == [
        (1, ("ipr-1", "rro-1", "sampled"), 0.25, (3, 1)),
        (3, ("rro-1", "rro-1", "sampled"), 0.0, (3, 0)),
    ]


def results(name, rewards):
    rows = [{"label": label, "mode": mode, "rewards": r} for (label, mode), r in rewards.items()]
    return {"name": name, "evaluations": rows}


def test_a_run_that_shares_no_task_is_named():
    runs = [
        results("one", {("sft", "sampled"): SFT}),
        results("two", {("sft", "sampled"): LATER}),
        results("three", {("sft", "sampled"): {"elsewhere": [1.0]}}),
    ]
    assert rewards_of(runs[0]) == {("sft", "sampled"): SFT}
    assert [run for run, _ in compare(runs[:2])] == [1]
    with pytest.raises(UsageError, match="three shares no evaluated task with one"):
        compare(runs)


def test_an_evaluation_in_progress_knows_neither_successes_nor_failures():
    totals = EpisodeTotals()
    for number in range(4):
        totals.add(episode(f"t{number}", number / 4, steps=2 + number % 2), lambda *_: "")
    evaluation = evaluation_of(totals, "sft", "sampled", resamples=1000, seed=0)
    assert (evaluation.success, evaluation.failed) == (None, None)
    assert (evaluation.reward.mean, evaluation.steps, evaluation.episodes) == (0.375, 2.5, 4)
    assert evaluation.plain()["success"] is None
    assert evaluation.usage.generated_tokens == 30


def test_the_order_in_which_episodes_ended_does_not_matter(tmp_path):
    episodes = {
        f"sft/sampled/t{task}/{number}": episode(f"t{task}", (task + number) / 6)
        for task in range(4)
        for number in range(2)
    }
    found = []
    for name, keys in (("one", list(episodes)), ("other", list(reversed(episodes)))):
        with Journal(tmp_path / name) as journal:
            for key in keys:
                journal.append("evaluation", key, episodes[key])
            journal.append("evaluation", "sft/greedy/t0/0", episode("t0", 1.0))
            found.append(
                journalled_evaluation(
                    journal, "sft", "sampled", expected=10, success_reward=0.5, **RESAMPLING
                )
            )
            with pytest.raises(RroError, match=r"no episode of rro-1 \(sampled\) was finished"):
                journalled_evaluation(
                    journal, "rro-1", "sampled", expected=1, success_reward=1.0, **RESAMPLING
                )
    assert found[0] == found[1]
    assert list(found[0].rewards) == ["t0", "t1", "t2", "t3"]
    assert (found[0].failed, found[0].success.mean) == (2, 0.375)
    assert json.loads(json.dumps(found[0].plain())) == found[0].plain()


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "evaluate the run first"), ("{", "make it again"), ("[]", "no evaluation in it")],
)
def test_missing_and_damaged_results_are_named(tmp_path, text, message):
    if text is not None:
        (tmp_path / "results.json").write_text(text)
    with pytest.raises(DataError, match=message):
        load_results(tmp_path)
