"""Recordings of MySQL 9.7 and of the original InterCode-SQL, replayed on the embedded engine."""

import datetime
import gzip
import json
from collections import Counter
from decimal import Decimal

import pytest

from rro.config import ExpertsConfig
from rro.episodes.experts import scripted_experts
from rro.episodes.loop import Limits
from rro.intercode_sql import IntercodeSqlOptions, open_intercode_sql
from rro.intercode_sql.data import shares_answer, split_tasks, valid_tasks
from rro.intercode_sql.verify import verify_episodes, verify_statements


@pytest.fixture(scope="module")
def recordings(shared):
    return shared / "conformance" / "intercode-sql"


@pytest.fixture(scope="module")
def data(shared):
    return shared / "data" / "intercode-sql"


@pytest.fixture(scope="module")
def benchmark(data, tmp_path_factory):
    return open_intercode_sql(
        IntercodeSqlOptions(data=data, cache=tmp_path_factory.mktemp("cache"))
    )


def lines(file):
    return gzip.decompress(file.read_bytes()).splitlines()


def sample(file, every, folder):
    """Every so manieth line of a recording."""
    (folder / file.name).write_bytes(gzip.compress(b"\n".join(lines(file)[::every])))
    return folder / file.name


def test_golds(benchmark, recordings):
    """The bar is 980 identical and 1,020 with the same rows."""
    identical = same_rows = 0
    for record in map(json.loads, lines(recordings / "gold_results.jsonl.gz")):
        result = benchmark.engine.execute(record["db"].lower(), record["gold"])
        identical += result.text == record["obs"]
        same_rows += Counter(_rows(result.text)) == Counter(_rows(record["obs"]))
    assert identical >= 1000
    assert same_rows >= 1024


def _rows(text):
    """The rows of an observation, each as text."""
    return (
        [text]
        if text.startswith("Error")
        else map(str, eval(text, {"datetime": datetime, "Decimal": Decimal}))
    )


def check_statements(counts, slack=0.0):
    """The bar is 99.45 % of all rewards and 94.5 % of those that are not 0."""
    assert counts["reward_equal"] >= (0.9945 - slack) * counts["statements"]
    assert counts["nonzero_equal"] >= (0.965 - 4 * slack) * counts["nonzero"]
    assert counts["observation_equal"] >= (0.95 - slack) * counts["statements"]


def test_a_tenth_of_the_statements(benchmark, recordings, tmp_path):
    counts = verify_statements(
        benchmark, sample(recordings / "mysql_statements.jsonl.gz", 10, tmp_path)
    )
    check_statements(counts, slack=0.005)


@pytest.mark.slow
def test_all_statements(benchmark, recordings):
    check_statements(verify_statements(benchmark, recordings / "mysql_statements.jsonl.gz"))


def test_a_tenth_of_the_episodes(benchmark, recordings, tmp_path):
    counts = verify_episodes(benchmark, sample(recordings / "episodes.jsonl.gz", 10, tmp_path))
    assert counts["reward_equal"] >= 0.995 * counts["steps"]
    assert counts["observation_equal"] >= 0.96 * counts["steps"]


@pytest.mark.slow
def test_all_episodes(benchmark, recordings):
    counts = verify_episodes(benchmark, recordings / "episodes.jsonl.gz")
    assert (counts["episodes"], counts["steps"]) == (1049, 5867)
    assert counts["reward_equal"] >= 5850


def test_splits_are_those_that_the_golds_give(benchmark, data):
    listed = json.loads((data / "splits.json").read_bytes())
    valid = valid_tasks(data, benchmark.all_tasks)
    assert sorted(set(range(1034)) - set(valid)) == listed["corrupt_gold_dev_indices"]
    splits = split_tasks(valid)
    assert (splits["test"], splits["train"]) == (
        listed["test_dev_indices"],
        listed["nontest_dev_indices"],
    )


def test_shared_answers_are_those_of_the_recorded_experts(benchmark, data):
    shared = shares_answer(benchmark.all_tasks, [task.data for task in benchmark.tasks("test")])
    for episode in json.loads(gzip.decompress((data / "experts.json.gz").read_bytes())):
        assert episode["meta"]["same_gold_as_test"] == (episode["meta"]["task_index"] in shared)


def test_the_scripted_expert_solves_what_it_plays(benchmark):
    config = ExpertsConfig(episodes=60)
    episodes = scripted_experts(benchmark, benchmark.tasks("train")[::14], config, Limits(10), 0)
    assert [episode.reward for episode in episodes] == [1.0] * len(episodes)
    assert len(episodes) == 59
