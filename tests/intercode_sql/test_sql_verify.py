"""rro verify intercode-sql: what it counts, and what it says of files that are no recordings."""

import gzip
import json

import pytest
from sql_toys import write_data

from rro.errors import DataError
from rro.intercode_sql import IntercodeSqlOptions, open_intercode_sql
from rro.intercode_sql.verify import (
    run_verify,
    verify_answers,
    verify_episodes,
    verify_statements,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("sql"))


@pytest.fixture(scope="module")
def benchmark(folder):
    return open_intercode_sql(IntercodeSqlOptions(data=folder, cache=folder / "cache"))


def write(path, records):
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, records)).encode()))
    return path


def statement(task, sql, observation, reward, db="Shop"):
    return {
        "task_index": task,
        "db": db,
        "sql": sql,
        "mysql97_obs": observation,
        "mysql97_reward": reward,
    }


STATEMENTS = [
    statement(0, "SELECT count(*) FROM customer;", "[(5,)]", 1.0),
    statement(0, "SELECT 4", "[(4,)]", 0.5),  # recorded wrong
    statement(0, "SELECT x", "Error executing query: Unknown column 'x' in 'field list'", 0.0),
    statement(1, "SELECT name FROM customer ORDER BY id", "another text", -0.3),  # recorded wrong
]
EPISODE = {
    "task_index": 1,
    "reward_version": "iou_kendall",
    "turns": [
        {
            "action": "USE zoo",
            "executed": "USE zoo",
            "submit": False,
            "observation": "None",
            "reward": 0.0,
        },
        {"action": "?", "executed": None, "submit": False, "observation": "Format!", "reward": 0},
        {
            "action": "a",
            "executed": "SELECT database()",
            "submit": False,
            "observation": "[('zoo',)]",
            "reward": 0.0,
        },
        {
            "action": "b",
            "executed": "SELECT name FROM shop.customer WHERE born IS NOT NULL ORDER BY born",
            "submit": False,
            "observation": "[(\"O'Neil\",), ('Anna',), ('anna ',), ('Zoë',)]",
            "reward": 1.0,
        },
        {
            "action": "submit",
            "executed": "submit",
            "submit": True,
            "observation": "no",
            "reward": 1.0,
        },
        {
            "action": "c",
            "executed": "SELECT 1",
            "submit": False,
            "observation": "(1,)",
            "reward": None,
        },
    ],
}


def test_statements(benchmark, tmp_path):
    counts = verify_statements(benchmark, write(tmp_path / "s.jsonl.gz", STATEMENTS))
    assert counts == {
        "statements": 4,
        "reward_equal": 2,
        "nonzero": 3,
        "nonzero_equal": 1,
        "observation_equal": 3,
    }


def test_episodes(benchmark, tmp_path):
    counts = verify_episodes(
        benchmark, write(tmp_path / "e.jsonl.gz", [EPISODE, {**EPISODE, "reward_version": "iou"}])
    )
    assert counts == {"episodes": 2, "steps": 10, "reward_equal": 10, "observation_equal": 4}


def test_observations_that_were_cut(benchmark, tmp_path):
    whole = benchmark.engine.execute("shop", "SELECT * FROM purchase").text
    record = statement(0, "SELECT * FROM purchase", f"{whole[:350]}...", 0.0)
    assert (
        verify_statements(benchmark, write(tmp_path / "s.gz", [record]))["observation_equal"] == 1
    )


def test_it_prints_one_line_a_file(folder, tmp_path, capsys):
    statements, episodes = (
        write(tmp_path / "s.gz", STATEMENTS[:1]),
        write(tmp_path / "e.gz", [EPISODE]),
    )
    assert run_verify(folder, statements, episodes, cache=folder / "cache")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [list(line) for line in lines] == [
        ["statements", "reward_equal", "nonzero", "nonzero_equal", "observation_equal"],
        ["episodes", "steps", "reward_equal", "observation_equal"],
    ]
    assert not run_verify(folder, write(tmp_path / "s.gz", STATEMENTS), cache=folder / "cache")


def answer(sql, **kind):
    return {"db": "Shop", "sql": sql, **kind}


def test_answers(benchmark, tmp_path):
    names = "SELECT name FROM customer WHERE id < 3"
    records = [
        answer(names, rows="[('bob',), ('Anna',)]"),  # equal in any order
        answer(f"{names} ORDER BY id", rows="[('Anna',), (\"bob\",)]"),
        answer(f"{names} ORDER BY id", rows="[('bob',), ('Anna',)]"),  # another order
        answer("SELECT x", error=1054),
        answer("SELECT 1", error=1064),  # recorded wrong
        answer("SELECT x", rows="[(1,)]"),  # recorded wrong
    ]
    assert verify_answers(benchmark, write(tmp_path / "a.gz", records)) == {
        "statements": 6,
        "kind_equal": 4,
        "with_rows": 4,
        "rows_equal": 2,
    }


@pytest.mark.parametrize("rows", ["(1,)", "[", 3])
def test_answers_of_another_form(benchmark, tmp_path, rows):
    with pytest.raises(DataError, match="line 1"):
        verify_answers(benchmark, write(tmp_path / "a.gz", [answer("SELECT 1", rows=rows)]))


@pytest.mark.parametrize(
    "line", ["{", '{"task_index": 0}', '{"task_index": 99, "db": "shop", "sql": "SELECT 1"}', "[]"]
)
def test_other_files_are_named(benchmark, tmp_path, line):
    (tmp_path / "f.jsonl").write_text(f"{json.dumps(STATEMENTS[0])}\n{line}\n")
    with pytest.raises(DataError, match=r"f\.jsonl, line 2"):
        verify_statements(benchmark, tmp_path / "f.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        verify_episodes(benchmark, tmp_path / "absent")
