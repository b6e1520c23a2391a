"""The agent format, the episode's state, and episodes that share an engine but nothing else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sql_toys import write_data

from rro.environments.registry import open_benchmark
from rro.errors import UsageError
from rro.exploration.forks import restore_checked
from rro.intercode_sql import IntercodeSqlOptions, open_intercode_sql
from rro.intercode_sql.environment import INSTRUCTION, MISUNDERSTOOD, NO_ROWS, parse_action
from rro.types import Message, Task


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("sql"))


@pytest.fixture(scope="module")
def benchmark(folder):
    return open_intercode_sql(IntercodeSqlOptions(data=folder, cache=folder / "cache"))


def say(sql):
    return Message("assistant", f"Thought: so.\nAction: \n```sql\n{sql}\n```")


SUBMIT = Message("assistant", "Thought: done.\nAction: submit")


@pytest.mark.parametrize(
    ("answer", "plain", "ipr"),
    [
        ("Thought: x\nAction: \n```sql\nSELECT 1\n```", "SELECT 1", "SELECT 1"),
        (
            "Action: ```sql SELECT\n  1\n```",
            "SELECT\n  1",
            "SELECT",
        ),  # IPR runs only the first line
        ("Action: submit", "", ""),
        ("Action:submit.", "", ""),
        ("Thought: now submit\nAction: \n```sql\nSELECT 1\n```", "SELECT 1", "SELECT 1"),
        (
            "Action: \n```sql\nSELECT 'submit'\n```",
            "SELECT 'submit'",
            "",
        ),  # IPR submits for the word anywhere
        ("Action: I submit", None, ""),
        ("Action: ```SQL\nSELECT 1\n```", "SELECT 1", None),
        ("SELECT 1", None, None),
        ("```sql\nSELECT 1\n```", None, None),
        ("Action: ```sql\n```", None, None),
        ("Action: ```sql\nSELECT 1", None, None),  # no end
        (
            "Action: \n```sql\nSELECT 1\n```\nAction: \n```sql\nSELECT 2\n```",
            "SELECT 1",
            "SELECT 1",
        ),
        # what comes first counts, not what is made up after it
        ("Action: submit\nObservation: [(1,)]\nAction: \n```sql\nSELECT 1\n```", "", ""),
        ("Action: ```sql\nSELECT 1\n```\nObservation: [(1,)]\nAction: submit", "SELECT 1", ""),
        ("", None, None),
    ],
)
def test_parse_action(answer, plain, ipr):
    assert parse_action(answer) == plain
    assert parse_action(answer, "ipr") == ipr


def test_an_episode(benchmark):
    environment = benchmark.make()
    opening = environment.reset(benchmark.tasks("test")[0])
    assert [(message.role, message.content) for message in opening] == [
        ("user", INSTRUCTION), ("assistant", "OK"), ("user", "How many customers are there?"),
    ]  # fmt: skip
    first = environment.step(say("SELECT * FROM customers"))
    assert (
        first.observation
        == "Observation: Error executing query: Table 'shop.customers' doesn't exist\n"
    )
    assert (first.invalid, first.done, first.reward) == (True, False, 0.0)
    confused = environment.step(Message("assistant", "I don't know"))
    assert (confused.observation, confused.invalid) == (f"Observation: {MISUNDERSTOOD}", True)
    second = environment.step(say("SELECT\n  count(*)\nFROM customer"))
    assert (second.observation, second.invalid) == ("Observation: [(5,)]", False)
    last = environment.step(SUBMIT)
    assert (last.done, last.reward, last.observation) == (True, 1.0, "Observation: [(5,)]")


def test_observations_are_cut(benchmark):
    environment = benchmark.make()
    environment.reset(benchmark.tasks("test")[0])
    observation = environment.step(say("SELECT * FROM purchase")).observation
    assert len(observation) == len("Observation: ") + 350 + len("...")
    assert observation.endswith("...")
    assert (
        environment.step(say("SELECT name FROM empty_one, customer")).observation
        == "Observation: []"
    )
    assert environment.step(say("USE zoo")).observation == f"Observation: {NO_ROWS}"


@pytest.mark.parametrize("sql", [None, "SELECT nothing", "USE zoo"])
def test_submitting_no_result_earns_nothing(benchmark, sql):
    environment = benchmark.make()
    environment.reset(benchmark.tasks("test")[0])
    if sql:
        environment.step(say(sql))
    assert (environment.step(SUBMIT).reward, environment.truncated_reward()) == (0.0, 0.0)


def test_two_empty_results_are_equal_and_order_counts(benchmark):
    environment = benchmark.make()
    environment.reset(Task("dev-6", 6))  # its gold finds nothing, as one customer_id is NULL
    environment.step(say("SELECT 1 FROM customer WHERE 1 = 0"))
    assert environment.step(SUBMIT).reward == 1.0
    environment.reset(Task("dev-1", 1))
    environment.step(
        say("SELECT name FROM customer WHERE born IS NOT NULL ORDER BY born DESC, id DESC")
    )
    assert environment.grade("iou") == 1.0
    assert environment.step(SUBMIT).reward == -0.33  # rows compare as texts, place by place


def test_the_gold_runs_in_its_own_database(benchmark):
    environment = benchmark.make()
    environment.reset(benchmark.tasks("test")[0])
    environment.step(say("USE zoo"))
    environment.step(say("SELECT count(*) FROM shop.customer"))
    assert environment.step(SUBMIT).reward == 1.0


def test_compat_brings_the_quirks_back(folder):
    environment = open_benchmark(
        "intercode-sql", {"data": folder, "cache": folder / "cache", "compat": "ipr"}
    ).make()
    environment.reset(Task("dev-0", 0))
    assert environment.step(say("USE zoo")).observation == f"Observation: {MISUNDERSTOOD}"
    environment.reset(Task("dev-0", 0))
    assert environment.step(say("SELECT x")).observation.endswith(
        "in 'field list'"
    )  # no newline after "Unknown ..."
    assert environment.step(say("SELECT 1\nFROM nowhere")).observation == "Observation: [(1,)]"
    assert environment.step(say("SELECT 'submit'")).done


def test_options(folder):
    def opened(**options):
        return open_benchmark(
            "intercode-sql", {"data": folder, "cache": folder / "cache"} | options
        )

    silent = opened(system="")
    assert [message.content for message in silent.make().reset(Task("dev-0", 0))] == [
        "How many customers are there?"
    ]
    assert opened(reward="iou").provenance()["reward"] == "iou"
    assert opened().provenance()["license"].startswith("CC-BY-SA-4.0")
    assert opened(questions="sample").provenance()["license"] == "Apache-2.0"
    whole, fair = (opened(exclude_test_golds=flag) for flag in (False, True))
    assert [task.id for task in whole.tasks("train")] == ["dev-2", "dev-3", "dev-5", "dev-6"]
    assert [task.id for task in fair.tasks("train")] == ["dev-2", "dev-3", "dev-6"]
    for wrong in ({"reward": "best"}, {"compat": "eto"}, {"engine": "duckdb"}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            opened(**wrong)
    with pytest.raises(UsageError, match="has no split 'dev'"):
        whole.tasks("dev")
    with pytest.raises(UsageError, match="not the index"):
        whole.make().reset(Task("x", "x"))


STATEMENTS = [
    "SELECT count(*) FROM customer",
    "SELECT name FROM animal",
    "USE zoo",
    "USE shop",
    "SELECT nothing",
    "SHOW TABLES",
    "SELECT database()",
    "DELETE FROM customer",
    "SELECT name FROM customer WHERE born IS NOT NULL ORDER BY born",
]


@settings(max_examples=5)
@given(st.data())
def test_two_hundred_episodes_at_once_stay_independent(benchmark, data):
    """Each of the interleaved episodes answers as if it were alone."""
    scripts = [
        data.draw(st.lists(st.sampled_from(STATEMENTS), min_size=1, max_size=4)) for _ in range(200)
    ]
    order = data.draw(st.permutations([n for n, script in enumerate(scripts) for _ in script]))
    together = [benchmark.make() for _ in scripts]
    for number, environment in enumerate(together):
        environment.reset(Task("", number % 4))
    answers = [[] for _ in scripts]
    for number in order:
        answers[number].append(
            together[number].step(say(scripts[number][len(answers[number])])).observation
        )
    alone = benchmark.make()
    for number, script in enumerate(scripts):
        alone.reset(Task("", number % 4))
        assert answers[number] == [alone.step(say(sql)).observation for sql in script]
        assert together[number].step(SUBMIT).reward == alone.step(SUBMIT).reward


@given(
    st.lists(st.sampled_from(STATEMENTS), max_size=5),
    st.lists(st.sampled_from(STATEMENTS), max_size=5),
)
def test_snapshot_and_restore(benchmark, before, after):
    one, other = benchmark.make(), benchmark.make()
    one.reset(Task("dev-1", 1))
    for sql in before:
        one.step(say(sql))
    saved = one.snapshot()
    first = [one.step(say(sql)) for sql in after] + [one.step(SUBMIT)]
    restore_checked(other, saved)
    assert [other.step(say(sql)) for sql in after] + [other.step(SUBMIT)] == first
    restore_checked(one, saved)
    assert hash(saved) == hash(one.snapshot())
