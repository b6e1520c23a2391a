"""Evaluation: means over what finished, intervals by task, nothing run twice."""

import asyncio

import pytest

from rro.environments.base import Environment, TaskList
from rro.episodes.loop import Limits
from rro.errors import DataError, RroError
from rro.evaluation.evaluate import evaluate
from rro.evaluation.figures import journalled_evaluation
from rro.policies.scripted import ScriptedPolicy
from rro.runs.journal import Journal
from rro.runs.progress import Progress
from rro.types import Message, SamplingParams, StepResult, Task


class Coin(Environment):
    """Right is worth the task's number; any other answer is invalid and leaves the episode open."""

    def reset(self, task, seed=0):
        self.worth = task.data
        return [Message("user", f"task {task.id}")]

    def step(self, action):
        if action.content == "right":
            return StepResult("done", self.worth, done=True)
        return StepResult("what?", invalid=True)


TASKS = [Task("a", 1.0), Task("b", 0.5), Task("c", 0.0)]
BENCH = TaskList("coin", Coin, {"test": TASKS}, max_steps=3)


def measure(journal, policy, episodes=2, label="p"):
    with Progress("evaluate", None, "episodes") as progress:
        asyncio.run(
            evaluate(
                TASKS,
                BENCH,
                policy,
                journal,
                label=label,
                mode="sampled",
                episodes=episodes,
                params=SamplingParams(),
                limits=Limits(3, retries=1),
                seed=0,
                concurrency=4,
                progress=progress,
            )
        )
    return journalled_evaluation(
        journal,
        label,
        "sampled",
        expected=len(TASKS) * episodes,
        success_reward=1.0,
        resamples=1000,
        seed=0,
    )


def test_means_steps_and_invalid_actions(tmp_path):
    def script(messages, rng):
        return "right" if len(messages) > 1 else "wrong"

    with Journal(tmp_path / "j") as journal:
        found = measure(journal, ScriptedPolicy(script))
    assert found.reward.mean == pytest.approx(0.5)
    assert found.success.mean == pytest.approx(1 / 3)
    assert (found.steps, found.invalid_actions, found.episodes, found.failed) == (2.0, 1.0, 6, 0)
    assert found.usage.policy_calls == 12
    assert found.usage.environment_steps == 12
    assert found.stops["terminal"] == 6


def test_running_out_of_steps_is_worth_nothing(tmp_path):
    with Journal(tmp_path / "j") as journal:
        found = measure(journal, ScriptedPolicy(lambda messages, rng: "wrong"), episodes=1)
    assert found.reward.mean == 0.0
    assert found.stops["step_limit"] == 3


def test_a_failed_episode_is_missing_and_counted(tmp_path):
    def script(messages, rng):
        if messages[0].content == "task b":
            raise ConnectionError("gone")
        return "right"

    with Journal(tmp_path / "j") as journal:
        found = measure(journal, ScriptedPolicy(script), episodes=1)
    assert found.failed == 1
    assert found.reward.mean == pytest.approx(0.5)  # of a and c; b is not 0 but missing
    assert set(found.rewards) == {"a", "c"}
    with Journal(tmp_path / "j") as journal:
        assert (
            measure(journal, ScriptedPolicy(lambda messages, rng: "right"), episodes=1).failed == 0
        )  # tried again


def test_nothing_finished_is_an_error_not_a_zero(tmp_path):
    def script(messages, rng):
        raise ConnectionError("gone")

    with (
        Journal(tmp_path / "j") as journal,
        pytest.raises(RroError, match=r"no episode of p .* was finished"),
    ):
        measure(journal, ScriptedPolicy(script))


def test_finished_episodes_are_not_repeated(tmp_path):
    calls = []

    def script(messages, rng):
        calls.append(messages[0].content)
        return "right"

    with Journal(tmp_path / "j") as journal:
        first = measure(journal, ScriptedPolicy(script))
    before = len(calls)
    with Journal(tmp_path / "j") as journal:
        again = measure(journal, ScriptedPolicy(script))
    assert len(calls) == before
    assert again == first


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"reward":0.5', '"reward":"much"', "reward: input should be a valid number"),
        ('"task":"b"', '"task":7', "task: input should be a valid string"),
        ('"invalid":false', '"invalid":[]', r"steps\.0\.invalid"),
        ('"stop":"terminal"', '"stop":"\\u001b[31m"', "stop: input should be"),
        ('"steps":[', '"step":[', "steps: field required"),
    ],
)
def test_a_record_of_another_form_is_told_with_its_line(tmp_path, old, new, problem):
    file = tmp_path / "j"
    with Journal(file) as journal:
        measure(journal, ScriptedPolicy(lambda messages, chance: "right"))
    lines = file.read_text().split("\n")
    number = next(n for n, line in enumerate(lines) if '"task":"b"' in line and old in line)
    lines[number] = lines[number].replace(old, new)
    file.write_text("\n".join(lines))
    with (
        Journal(file) as journal,
        pytest.raises(DataError, match=rf"j, line {number + 1}: damaged record \({problem}"),
    ):
        measure(journal, ScriptedPolicy(lambda messages, chance: "right"))


def test_two_policies_meet_the_same_random_numbers(tmp_path):
    def script(messages, rng):
        return rng.choice(["right", "wrong"])

    with Journal(tmp_path / "j") as journal:
        one = measure(journal, ScriptedPolicy(script), episodes=8, label="one")
        two = measure(journal, ScriptedPolicy(script), episodes=8, label="two")
    assert one.rewards == two.rewards
