"""Expert trajectories from files and from scripts."""

import gzip
import json

import pytest

from rro.errors import DataError
from rro.experts import read_conversations
from rro.types import Source

TURNS = [{"from": "human", "value": "rules"}, {"from": "gpt", "value": "OK"}, {"from": "human", "value": "task"}]


def test_sharegpt_rows_are_read_with_roles_and_provenance(tmp_path):
    file = tmp_path / "experts.json"
    file.write_text(json.dumps([{"id": "task-1", "conversations": [*TURNS, {"from": "gpt", "value": "Action: go"}]}]))
    [(name, messages)] = read_conversations(file)
    assert name == "task-1"
    assert [message.role for message in messages] == ["user", "assistant", "user", "assistant"]
    assert messages[-1].content == "Action: go"
    assert [message.source for message in messages if message.role == "assistant"] == [Source.EXPERT] * 2


def test_conversational_json_lines_gzipped(tmp_path):
    file = tmp_path / "experts.jsonl.gz"
    row = {"messages": [{"role": "user", "content": "task"}, {"role": "assistant", "content": "Action: go"}]}
    file.write_bytes(gzip.compress((json.dumps(row) + "\n" + json.dumps(row) + "\n").encode()))
    assert len(read_conversations(file)) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no expert trajectory"),
        ("{", "not JSON"),
        ('[{"id": 1}]', "row 1: neither 'messages' nor 'conversations'"),
        ('[{"id": 1, "conversations": [{"from": "robot", "value": "x"}]}]', "row 1: a turn needs role and content"),
        ('[{"id": 1, "conversations": ["hello"]}]', "row 1"),
    ],
)
def test_wrong_files_are_named_with_their_row(tmp_path, text, said):
    file = tmp_path / "experts.json"
    file.write_text(text)
    with pytest.raises(DataError) as error:
        read_conversations(file)
    assert str(file) in str(error.value)
    assert said in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"experts\.json: no such file"):
        read_conversations(tmp_path / "experts.json")
