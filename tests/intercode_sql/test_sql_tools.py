"""InterCode-SQL by tools: the same episodes and rewards as in text, and bad calls answered."""

import gzip
import itertools
import json
from dataclasses import replace

import pytest
from fakes import expert_episode
from sql_toys import write_data

from rro.environments import contract
from rro.episodes.experts import check_tools
from rro.errors import DataError
from rro.intercode_sql import IntercodeSqlOptions, open_intercode_sql
from rro.intercode_sql.environment import PREFIX, parse_action
from rro.tool_calls import tool_calls, tools_of
from rro.types import Message, Task


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("sql"))


def opened(folder, **options):
    return open_intercode_sql(IntercodeSqlOptions(data=folder, cache=folder / "cache", **options))


def as_call(answer):
    """The text action as the call that does the same."""
    sql = parse_action(answer)
    given = ("submit", {}, None) if sql == "" else ("run_sql", {"query": sql}, None)
    return Message("assistant", "", tool_calls=tool_calls([given]))


def test_an_agent_is_offered_two_tools(folder):
    benchmark = opened(folder, tools=True)
    opening = contract.reset(benchmark.make(), benchmark.tasks("train")[0], 0)
    assert [tool["function"]["name"] for tool in tools_of(opening)] == ["run_sql", "submit"]
    assert len(opening) == 1
    assert opening[0].content.endswith(benchmark.all_tasks[0].question) or opening[0].content
    assert tools_of(contract.reset(opened(folder).make(), benchmark.tasks("train")[0], 0)) == []


@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_the_same_actions_earn_the_same_by_tools_as_in_text(folder, noise):
    """The experts' random choices differ, as they depend on the conversation: text actions are
    played again as calls."""
    text, tools = opened(folder), opened(folder, tools=True)
    for task in text.tasks("train"):
        episode, environment = expert_episode(text, task, noise), tools.make()
        contract.reset(environment, task, 0)
        for step in episode.steps:
            again = contract.step(environment, as_call(step.action.content))
            assert PREFIX + again.observation == step.observation
            assert (again.reward, again.done) == (step.reward, step.done)
            assert again.invalid == step.invalid
        assert tools.action_of(again.action) == text.action_of(step.action)


def test_the_expert_calls_tools(folder):
    benchmark = opened(folder, tools=True)
    for task in benchmark.tasks("train"):
        episode = expert_episode(benchmark, task, 0.0)
        assert episode.reward == 1.0
        assert all(len(step.action.tool_calls) == 1 for step in episode.steps)
        assert episode.steps[-1].action.tool_calls[0].name == "submit"
        assert {message.role for message in episode.messages()[2::2]} == {"tool"}


def test_snapshots_hold_what_calls_do(folder):
    benchmark = opened(folder, tools=True)
    environment, other = benchmark.make(), benchmark.make()
    contract.reset(environment, benchmark.tasks("train")[0], 0)
    contract.step(environment, as_call("Action: ```sql\nSHOW TABLES\n```"))
    bad = Message("assistant", "", tool_calls=tool_calls([("run_sql", "{", None)]))
    before = environment.snapshot()
    assert contract.step(environment, bad).invalid
    assert environment.snapshot() == replace(before, steps=2)
    other.restore(environment.snapshot())
    last = as_call("Action: submit")
    assert contract.step(other, last) == contract.step(environment, last)


def test_recorded_episodes_earn_the_same_by_tools(shared, tmp_path):
    """Every fiftieth of those that GPT-4 and others played, turn by turn in both forms."""
    folder = shared / "data" / "intercode-sql"
    options = {"data": folder, "cache": tmp_path, "reward": "iou"}
    text = open_intercode_sql(IntercodeSqlOptions(**options))
    tools = open_intercode_sql(IntercodeSqlOptions(**options, tools=True))
    steps = rewards = 0
    with gzip.open(shared / "conformance" / "intercode-sql" / "episodes.jsonl.gz", "rt") as file:
        for line in itertools.islice(file, 0, None, 50):
            row = json.loads(line)
            index = row["task_index"]
            pair = text.make(), tools.make()
            for environment in pair:
                contract.reset(environment, Task(text.all_tasks[index].id, index), 0)
            for turn in row["turns"]:
                submit = turn["submit"]
                answer = "submit" if submit else f"\n```sql\n{turn['executed']}\n```"
                action = f"Action: {answer}"
                if parse_action(action) is None:
                    continue
                one = contract.step(pair[0], Message("assistant", action))
                two = contract.step(pair[1], as_call(action))
                assert PREFIX + two.observation == one.observation
                assert (two.reward, two.done, two.invalid) == (one.reward, one.done, one.invalid)
                grades = [environment.grade("iou") for environment in pair]
                assert grades[0] == grades[1]
                steps, rewards = steps + 1, rewards + grades[1]
                if one.done:
                    break
    assert steps > 90
    assert rewards > 5


@pytest.mark.parametrize("tools", [False, True])
def test_schema_below_the_question(folder, tools):
    openings = {
        schema: opened(folder, tools=tools, show_schema=schema) for schema in ("tables", "columns")
    }
    plain = opened(folder, tools=tools)
    task = plain.tasks("test")[0]
    question = plain.make().reset(task)[-1].content
    database = plain.all_tasks[task.data].database
    tables = [row[0] for row in plain.engine.execute(database, "SHOW TABLES").rows]
    assert len(tables) > 1
    for schema, benchmark in openings.items():
        shown = benchmark.make().reset(task)[-1].content
        assert shown.startswith(question + "\n\nTables of the database:\n")
        lines = shown.splitlines()[-len(tables) :]
        assert [line.split(" ")[0] for line in lines] == tables
        for table, line in zip(tables, lines, strict=True):
            columns = plain.engine.execute(database, f"DESC {table}").rows
            inside = f" ({', '.join(row[0] for row in columns)})" if schema == "columns" else ""
            assert line == table + inside
        assert benchmark.provenance()["schema"] == schema
    assert "schema" not in plain.provenance()


def test_experts_rows_must_have_the_form_in_which_the_agent_acts(folder):
    path = folder / "experts.jsonl"
    text, tools = opened(folder), opened(folder, tools=True)
    task = text.tasks("train")[0]
    played_by = {b: contract.reset(b.make(), task, 0) for b in (text, tools)}
    for benchmark, opening in played_by.items():
        check_tools(path, [("1", opening)], benchmark, task)
    rows = [("1", played_by[tools]), ("2", played_by[text])]
    with pytest.raises(DataError, match=r"experts\.jsonl, episode 2: it has no tools"):
        check_tools(path, rows, tools, task)
    with pytest.raises(DataError, match=r"episode 1: it has tools"):
        check_tools(path, [("1", played_by[tools])], text, task)
