"""The scripted expert: right without noise, wrong now and then with it, and the same for the same
seeds."""

import pytest
from sql_toys import TASKS, write_data

from rro.config import ExpertsConfig
from rro.episodes.experts import scripted_experts
from rro.episodes.loop import Limits
from rro.intercode_sql import IntercodeSqlOptions, open_intercode_sql
from rro.intercode_sql.expert import flawed, plan, tables


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    folder = write_data(tmp_path_factory.mktemp("sql"), test=0)
    return open_intercode_sql(IntercodeSqlOptions(data=folder, cache=folder / "cache"))


def play(benchmark, noise, seed=0):
    config = ExpertsConfig(episodes=len(TASKS), noise=noise)
    return scripted_experts(benchmark, benchmark.tasks("train"), config, Limits(10), seed)


def test_without_noise_it_looks_at_each_table_and_is_right(benchmark):
    episodes = play(benchmark, 0.0)
    assert [episode.reward for episode in episodes] == [1.0] * 6
    join = next(episode for episode in episodes if episode.task == "dev-2")
    said = [step.action.content for step in join.steps]
    wanted = ("SHOW TABLES", "DESC Customer", "DESC purchase", TASKS[2][2], "submit")
    assert all(part in text for part, text in zip(wanted, said, strict=True))
    assert all(text.startswith("Thought: ") and "\nAction: " in text for text in said)


def test_with_noise_it_errs_and_repeats_by_seed(benchmark):
    once, again, other = play(benchmark, 0.6), play(benchmark, 0.6), play(benchmark, 0.6, seed=1)
    messages = [[episode.messages() for episode in episodes] for episodes in (once, again, other)]
    assert messages[0] == messages[1] != messages[2]
    rewards = [episode.reward for seed in range(5) for episode in play(benchmark, 0.6, seed)]
    assert 0.2 < sum(rewards) / len(rewards) < 0.98


def test_what_it_knows_of_a_query():
    gold = (
        "SELECT a FROM T1 x JOIN t2 ON x.i = t2.i WHERE a > 1 GROUP BY a HAVING count(*) > 1 "
        "ORDER BY a DESC LIMIT 3"
    )
    assert tables(gold) == ("T1", "t2")
    assert len(flawed(gold)) == 4
    assert plan(gold) == (
        "I know the columns that I need. I join T1 and t2, keep the rows where a > 1, group by a, "
        "keep groups with COUNT(*) > 1, sort by a DESC, take only the first rows."
    )
    assert tables("no SQL at (all") == ()
    assert flawed("no SQL at (all") == ()
    assert plan("no SQL at (all")
