"""The generated databases and their questions."""

import asyncio

import pytest
from pydantic import ValidationError

from rro.intercode_sql import IntercodeSqlOptions, open_intercode_sql
from rro.intercode_sql.sample import (
    SampleDatabases,
    questions,
    sample_databases,
    sample_tasks,
    write_dump,
)
from rro.types import Message, SamplingParams

SIZE = SampleDatabases(databases=20, rows=24, questions=200)


@pytest.fixture
def benchmark(tmp_path):
    options = IntercodeSqlOptions(questions="sample", cache=tmp_path, sample=SIZE, system="")
    benchmark = open_intercode_sql(options)
    yield benchmark
    benchmark.engine.close()


def test_the_same_seed_gives_the_same_databases_and_questions():
    assert sample_databases(3) == sample_databases(3) != sample_databases(4)
    databases = sample_databases(3)
    assert sample_tasks(databases, 3) == sample_tasks(databases, 3) != sample_tasks(databases, 4)


def test_every_gold_query_has_rows(benchmark):
    for task in benchmark.all_tasks:
        result = benchmark.engine.execute(task.database, task.gold)
        assert result.error is None, task
        assert result.rows, task


def test_a_question_about_a_database_is_asked_once():
    for database in sample_databases(0, SIZE):
        asked = [question for question, _, _ in questions(database)]
        golds = [gold for _, gold, _ in questions(database)]
        assert len(set(asked)) == len(asked)
        assert len(set(golds)) == len(golds)


def test_the_splits_share_no_task_and_leave_none_out(benchmark):
    train, test = ({task.id for task in benchmark.tasks(split)} for split in ("train", "test"))
    assert not train & test
    assert len(train | test) == len(benchmark.all_tasks)
    assert len(test) == len(benchmark.all_tasks) // 5


def test_the_columns_of_a_table_are_shown_whole(benchmark):
    """An observation has 350 characters, and an agent has to see all columns."""
    environment = benchmark.make()
    for database in sample_databases(0, SIZE):
        task = next(
            task
            for task in benchmark.tasks("train")
            if benchmark.all_tasks[task.data].database == database.thing
        )
        environment.reset(task)
        assert not environment.run(f"DESC {database.table}").observation.endswith("...")


@pytest.mark.parametrize("hardness", ["easy", "medium", "hard"])
def test_the_expert_answers_a_question_of_each_kind(benchmark, hardness):
    async def play(task):
        environment, expert = benchmark.make(), benchmark.expert(task)
        messages = list(environment.reset(task))
        while True:
            answer = (await expert.sample(messages, 1, SamplingParams(), 0))[0].message
            step = environment.step(answer)
            if step.done:
                return step.reward
            messages += [answer, Message("user", step.observation)]

    tasks = [
        task
        for task in benchmark.tasks("train")
        if benchmark.all_tasks[task.data].hardness == hardness
    ]
    assert [asyncio.run(play(task)) for task in tasks[:20]] == [1.0] * 20


def test_a_dump_is_written_once_and_others_stand_beside_it(tmp_path):
    file = write_dump(sample_databases(0), tmp_path)
    written = file.stat().st_mtime_ns
    assert write_dump(sample_databases(0), tmp_path) == file
    assert file.stat().st_mtime_ns == written
    assert write_dump(sample_databases(1), tmp_path) != file


def test_the_sample_is_not_on_a_server():
    with pytest.raises(ValidationError, match="on no server: leave engine at sqlite"):
        IntercodeSqlOptions(questions="sample", engine="mysql://reader@host:3306")


def test_its_recipe_is_the_quickstart_of_the_benchmark(capsys):
    from rro.cli.main import main

    assert main(["quickstart", "intercode-sqll", "--out", "never"]) == 2
    assert "quickstart-intercode-sql" in capsys.readouterr().err
