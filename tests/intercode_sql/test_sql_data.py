"""Tasks and splits from files, and fetching: from a folder, whole or not at all."""

import gzip
import json

import pytest
from sql_toys import TASKS, write_data

from rro.environments.data_sets import fetch
from rro.episodes.experts import read_conversations
from rro.errors import DataError
from rro.intercode_sql import IntercodeSqlOptions, open_intercode_sql
from rro.intercode_sql.data import (
    DUMP_FILE,
    SPLITS_FILE,
    TASKS_FILE,
    read_splits,
    read_tasks,
    shares_answer,
    split_tasks,
    valid_tasks,
)
from rro.intercode_sql.environment import INSTRUCTION
from rro.intercode_sql.recorded import write_experts


@pytest.fixture
def source(tmp_path):
    return write_data(tmp_path / "source")


def test_tasks(source):
    tasks = read_tasks(source)
    assert (len(tasks), tasks[3].id, tasks[3].database, tasks[3].hardness) == (
        len(TASKS),
        "dev-3",
        "zoo",
        "easy",
    )
    assert valid_tasks(source, tasks) == [0, 1, 2, 3, 5, 6]
    assert shares_answer(tasks, [0]) == {0, 5}


def test_the_first_two_hundred_are_for_testing():
    splits = split_tasks([n for n in range(300) if n % 7])
    assert (len(splits["test"]), splits["test"][0], splits["train"][0]) == (200, 1, 234)


def test_fetched_from_a_folder_it_opens(source, tmp_path, monkeypatch):
    monkeypatch.setenv("RRO_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("RRO_CACHE", str(tmp_path / "cache"))
    folder = fetch("intercode-sql", source)
    assert folder == tmp_path / "data" / "intercode-sql"
    benchmark = open_intercode_sql(IntercodeSqlOptions())
    assert [task.id for task in benchmark.tasks("test")] == ["dev-0", "dev-1"]
    assert len(benchmark.tasks("train")) == 4
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert fetch("intercode-sql", None) == folder
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before


def test_splits_are_made_where_there_are_none(source, tmp_path):
    (source / SPLITS_FILE).unlink()
    folder = fetch("intercode-sql", source, tmp_path / "t")
    assert read_splits(folder, len(TASKS)) == {"test": [0, 1, 2, 3, 5, 6], "train": []}


def test_a_broken_source_leaves_nothing(source, tmp_path):
    (source / TASKS_FILE).write_text('[{"db": "shop"}]')
    with pytest.raises(
        DataError, match=r"ic_spider_dev\.json, entry 0: db, query, gold and hardness are required"
    ):
        fetch("intercode-sql", source, tmp_path / "t")
    assert not (tmp_path / "t").exists()
    with pytest.raises(DataError, match="is not a folder"):
        fetch("intercode-sql", tmp_path / "absent", tmp_path / "t")


def test_a_download_that_fails_says_what_to_do(source, tmp_path, monkeypatch):
    def refuse(url, timeout):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    (source / DUMP_FILE).unlink()
    with pytest.raises(
        DataError,
        match=r" has no ic_spider_dbs\.sql; .* not be downloaded \(no network\): .*--from FOLDER",
    ):
        fetch("intercode-sql", source, tmp_path / "t")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "not JSON"),
        ("{}", "test_dev_indices"),
        (
            json.dumps({"test_dev_indices": [99], "nontest_dev_indices": []}),
            "99 is not the index of a task",
        ),
    ],
)
def test_wrong_splits(source, content, message):
    (source / SPLITS_FILE).write_text(content)
    with pytest.raises(DataError, match=message):
        read_splits(source, len(TASKS))


def test_missing_files(tmp_path, monkeypatch):
    monkeypatch.setenv("RRO_DATA", str(tmp_path))
    with pytest.raises(DataError, match="run rro data fetch intercode-sql"):
        open_intercode_sql(IntercodeSqlOptions())
    with pytest.raises(DataError, match=r"ic_spider_dev\.json cannot be read"):
        open_intercode_sql(IntercodeSqlOptions(data=tmp_path))


def recorded(task, *answers):
    turns = [
        {"from": "human", "value": "rules"},
        {"from": "gpt", "value": "OK"},
        {"from": "human", "value": "question"},
    ]
    for answer in answers:
        turns += [
            {"from": "gpt", "value": answer},
            {"from": "human", "value": "Observation: whatever was recorded"},
        ]
    return {"id": f"ic_dev_{task}_someone", "conversations": turns[:-1]}


def block(sql, thought="Thought: so.\n"):
    return f"{thought}Action: \n```sql\n{sql}\n```"


def test_recorded_experts_are_played_again(source, tmp_path):
    gold, submit = block(TASKS[3][2]), "Thought: done.\nAction: submit"
    episodes = [
        recorded(3, block("DESC animal"), gold, submit),
        recorded(3, block("SELECT 1"), submit),  # does not succeed here
        recorded(3, gold),  # does not submit
        recorded(3, block(TASKS[3][2], ""), submit),  # without a thought
        recorded(0, block(TASKS[0][2]), submit),  # a test task
        recorded(5, block(TASKS[5][2]), submit),  # shares its answer with one
    ]
    (source / "experts.json.gz").write_bytes(gzip.compress(json.dumps(episodes).encode()))
    folder = fetch("intercode-sql", source, tmp_path / "t")
    ((name, messages),) = read_conversations(folder / "experts.jsonl")
    assert (name, len(messages), messages[-1].content) == ("dev-3", 8, submit)
    assert messages[0].content == INSTRUCTION
    assert messages[4].content.startswith("Observation: [('name', b'varchar(255)'")
    assert (
        write_experts(
            folder, folder / "experts.json.gz", tmp_path / "all.jsonl", thoughts_only=False
        )
        == 2
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[no JSON", "not JSON"),
        ('[{"id": "x"}]', "row 1"),
        ('[{"id": "x", "conversations": [{"from": "gpt", "value": "OK"}]}]', "row 1: 'x'"),
    ],
)
def test_what_are_no_experts(source, tmp_path, content, message):
    (tmp_path / "e.json").write_text(content)
    with pytest.raises(DataError, match=message):
        write_experts(source, tmp_path / "e.json", tmp_path / "out.jsonl")
