"""Expert trajectories from files and from scripts."""

import gzip
import json
import random
from dataclasses import replace

import pytest

from rro.config import ExpertsConfig
from rro.environments.base import Environment, TaskList
from rro.episodes.experts import (
    read_conversations,
    replayed_experts,
    scripted_experts,
    write_conversations,
)
from rro.episodes.loop import Limits
from rro.errors import DataError
from rro.policies.scripted import ScriptedPolicy
from rro.types import Message, Source, StepResult, Task

TURNS = [
    {"from": "human", "value": "rules"},
    {"from": "gpt", "value": "OK"},
    {"from": "human", "value": "task"},
]


def test_sharegpt_rows_are_read_with_roles_and_provenance(tmp_path):
    file = tmp_path / "experts.json"
    file.write_text(
        json.dumps(
            [{"id": "task-1", "conversations": [*TURNS, {"from": "gpt", "value": "Action: go"}]}]
        )
    )
    [(name, messages)] = read_conversations(file)
    assert name == "task-1"
    assert [message.role for message in messages] == ["user", "assistant", "user", "assistant"]
    assert messages[-1].content == "Action: go"
    assert [message.source for message in messages if message.role == "assistant"] == [
        Source.EXPERT
    ] * 2


def test_conversational_json_lines_gzipped(tmp_path):
    file = tmp_path / "experts.jsonl.gz"
    row = {
        "messages": [
            {"role": "user", "content": "task"},
            {"role": "assistant", "content": "Action: go"},
        ]
    }
    file.write_bytes(gzip.compress((json.dumps(row) + "\n" + json.dumps(row) + "\n").encode()))
    assert len(read_conversations(file)) == 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "no expert trajectory"),
        ("{", "not JSON"),
        ('[{"id": 1}]', "row 1: neither 'messages' nor 'conversations'"),
        (
            '[{"id": 1, "conversations": [{"from": "robot", "value": "x"}]}]',
            "row 1: conversations, message 1: the role 'robot' is unknown",
        ),
        ('[{"id": 1, "conversations": ["hello"]}]', "row 1"),
    ],
)
def test_wrong_files_are_named_with_their_row(tmp_path, text, sentence):
    file = tmp_path / "experts.json"
    file.write_text(text)
    with pytest.raises(DataError) as error:
        read_conversations(file)
    assert str(file) in str(error.value)
    assert sentence in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"experts\.json cannot be read: .*No such file"):
        read_conversations(tmp_path / "experts.json")


class Echo(Environment):
    """Two turns, the second of which ends; worth 1 if both actions were the expected ones."""

    def reset(self, task, seed=0):
        self.actions = []
        return [Message("user", "rules"), Message("assistant", "OK"), Message("user", task.id)]

    def step(self, action):
        self.actions.append(action.content)
        done = len(self.actions) == 2
        return StepResult("next", float(self.actions == ["one", "two"]), done)


def test_a_files_actions_are_played_again():
    bench = TaskList("echo", Echo, {"train": [Task("t")]})
    opening = (Message("user", "other rules"), Message("assistant", "OK"), Message("user", "t"))
    turns = (
        *opening,
        Message("assistant", "one"),
        Message("user", "next"),
        Message("assistant", "two"),
    )
    short = (*opening, Message("assistant", "one"))
    rows = [("t", turns), ("t", short), ("unknown", turns)]
    [episode] = replayed_experts(bench, bench.tasks("train"), rows, Limits(), 0)
    assert episode.reward == 1.0
    assert [step.action.content for step in episode.steps] == ["one", "two"]
    assert {step.action.source for step in episode.steps} == {Source.EXPERT}


def test_scripted_experts_are_filtered_and_repeatable(tmp_path):
    def expert(task, noise, seed):
        rng = random.Random(seed)

        def script(messages, _):
            return "one" if len(messages) == 3 else rng.choice(["two", "three"])

        return ScriptedPolicy(script, "expert", Source.EXPERT)

    tasks = [Task(str(number)) for number in range(40)]
    bench = TaskList("echo", Echo, {"train": tasks}, expert=expert)
    played = scripted_experts(bench, tasks, ExpertsConfig(episodes=30, min_reward=1.0), Limits(), 7)
    assert 5 < len(played) < 25
    assert all(episode.reward == 1.0 for episode in played)
    assert played == [
        replace(episode, usage=replace(episode.usage, seconds=old.usage.seconds))
        for episode, old in zip(
            scripted_experts(bench, tasks, ExpertsConfig(episodes=30, min_reward=1.0), Limits(), 7),
            played,
            strict=True,
        )
    ]
    write_conversations(played, tmp_path / "rows.jsonl")
    again = read_conversations(tmp_path / "rows.jsonl")
    assert again == [(episode.task, episode.messages()) for episode in played]
