"""`benchmarks.results`: files that are refused, figures over seeds and tasks, real trials."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.results import Comparison, Trial, main, read_plan
from benchmarks.results_table import Finished, remarks, rows_of, table_of
from rro.errors import UsageError
from rro.evaluation.results import LearningCost, RewardScale, learning_cost
from rro.evaluation.statistics import crossed_difference, crossed_mean
from rro.report.table_forms import markdown
from rro.runs.journal import Journal

HERE = Path(__file__).parent
PLAN = """
seeds = [1, 2]
settings = ["explore.tasks=3", "dpo.epochs=1"]
[environments.shop]
recipe = "quickstart"
settings = ["explore.tasks=4"]
[methods.one]
[methods.two]
settings = ["dpo.epochs=2"]
"""


def comparison(folder, text=PLAN):
    file = folder / "plan.toml"
    file.write_text(text)
    return Comparison(read_plan(file), file, folder / "out")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("seeds = [1, 2]", "seeds = []", "seeds"),
        ("seeds = [1, 2]", "seeds = [1, 1]", "each seed once"),
        ("seeds = [1, 2]", "seed = [1, 2]", "seed"),
        ("seeds = [1, 2]", "seeds = [1, 2", "not TOML"),
        ("seeds = [1, 2]", 'seeds = [1, 2]\nfirst = "three"', "no method 'three'"),
        ("[methods.two]", '[methods."a/b"]', "a/b"),
        ("[methods.one]", "[methods.one]\nsettings = 3", "methods.one.settings"),
        ("[methods.one]", '[tuning]\nseed = 2\n[methods.one]\nsweep = ["a=1,2"]', "one of seeds"),
        ('recipe = "quickstart"', "", "recipe"),
    ],
)
def test_a_file_that_is_wrong_is_told_with_its_place(tmp_path, old, new, problem):
    with pytest.raises(UsageError, match=problem) as error:
        comparison(tmp_path, PLAN.replace(old, new))
    assert "plan.toml" in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("dpo.epochs=2", "dpo.epoch=2", "dpo.epoch"),
        ("quickstart", "quickstar", "quickstar"),
        ("[methods.two]", '[methods.two]\nsweep = ["dpo.beta=0.1,-1"]', "dpo.beta"),
        (
            "[methods.two]",
            '[tuning]\nmetric = "test.reward"\n[methods.two]\nsweep = ["dpo.beta=0.1,1"]',
            "test tasks",
        ),
    ],
)
def test_a_setting_that_does_not_fit_is_told_before_anything_runs(
    tmp_path, capsys, old, new, problem
):
    (tmp_path / "plan.toml").write_text(PLAN.replace(old, new))
    assert main([str(tmp_path / "plan.toml"), "--out", str(tmp_path / "out")]) == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_words_and_files_that_are_wrong_get_a_sentence(tmp_path, capsys):
    (tmp_path / "latin.toml").write_bytes(b"seeds = [1] # \xe9")
    (tmp_path / "plan.toml").write_text(PLAN)
    for file, out, more, problem in (
        ("latin.toml", "out", (), "not a text in UTF-8"),
        ("plan.toml", "latin.toml", (), "name a folder"),
        ("plan.toml", "out", ("--workers", "0"), "at least 1"),
    ):
        assert main([str(tmp_path / file), "--out", str(tmp_path / out), *more]) == 2
        assert problem in capsys.readouterr().err
    [trial, *_] = comparison(tmp_path).trials()
    folder = comparison(tmp_path).folder(trial)
    folder.mkdir(parents=True)
    (folder / "results.json").write_text("{")
    assert main([str(tmp_path / "plan.toml"), "--out", str(tmp_path / "out"), "--table"]) == 1
    assert "results.json is damaged" in capsys.readouterr().err


def test_a_table_runs_no_trial_of_a_sweep_that_was_cut_off(tmp_path, capsys):
    text = PLAN.replace('settings = ["dpo.epochs=2"]', 'sweep = ["dpo.epochs=1,2"]')
    found = comparison(tmp_path, text.replace("[methods.one]", "[tuning]\nseed = 9\n[methods.one]"))
    [trial] = found.sweeps()
    folder = found.sweep_folder(trial)
    folder.mkdir(parents=True)
    with Journal(folder / "journal.jsonl") as journal:
        journal.append("sweep", "sweep", {**found.sweep(trial).record(), "trials": 6})
    (folder / "sweep.json").write_text('{"trials": []}')
    assert main([str(found.file), "--out", str(found.out), "--table"]) == 1
    assert "0 of 2 trials of the sweep ended" in capsys.readouterr().err
    assert not list(folder.glob("trial-*"))


def test_later_settings_win_and_other_settings_have_another_folder(tmp_path):
    found = comparison(tmp_path)
    trials = list(found.trials())
    assert [(trial.method, trial.seed) for trial in trials] == [
        ("one", 1), ("two", 1), ("one", 2), ("two", 2),
    ]  # fmt: skip
    config = found.config(trials[1])
    assert (config.explore.tasks, config.dpo.epochs, config.seed) == (4, 2, 1)
    folders = {found.folder(trial) for trial in trials}
    assert len(folders) == 4
    assert found.folder(trials[0]).parent == found.folder(trials[2]).parent
    changed = comparison(tmp_path, PLAN.replace("explore.tasks=4", "explore.tasks=5"))
    assert not folders & {changed.folder(trial) for trial in changed.trials()}
    tuned = replace(trials[0], chosen=("dpo.epochs=3",))
    assert found.config(tuned).dpo.epochs == 3
    assert found.folder(tuned) not in folders


def finished(seed, level, cost=10, tasks=24):
    rewards = {f"t{task}": [level, level + task / 10] for task in range(tasks)}
    costs = LearningCost(cost, 2 * cost, 3 * cost, 4 * cost, 5.0 * cost)
    rewards = {("last", "sampled"): rewards, ("last", "greedy"): {"t0": [level]}}
    return Finished(seed, rewards, RewardScale(-1.0, 1.8, success=1.0), costs, [], [])


def test_a_row_has_figures_over_seeds_and_tasks_and_what_learning_took():
    found = {
        ("shop", "one"): [finished(1, 0.1), finished(2, 0.2)],
        ("shop", "two"): [finished(1, 0.3, cost=30), finished(2, 0.3), finished(3, 0.9)],
    }
    first, second = rows_of(found, "one")
    own = {each.seed: each.rewards["last", "sampled"] for each in found["shop", "two"]}
    base = {each.seed: each.rewards["last", "sampled"] for each in found["shop", "one"]}
    assert second["sampled_reward"] == {**crossed_mean(own).plain(), "high": 1.8}
    assert second["sampled_difference"] == crossed_difference(own, base).plain()
    assert second["sampled_difference"]["mean"] == pytest.approx(0.15)
    assert second["sampled_success"]["mean"] == pytest.approx(
        sum(level + task / 10 >= 1 for level in (0.3, 0.3, 0.9) for task in range(24)) / 144
    )
    assert second["greedy_reward"]["low"] is None
    assert (second["seeds"], second["generated_tokens"]) == (3, pytest.approx(50 / 3))
    assert "sampled_difference" not in first
    text = markdown(table_of([first, second], "plan"))
    assert len(text.splitlines()) == 4
    assert "| shop | two | last | 3 |" in text


def test_a_table_speaks_of_intervals_where_there_are_any():
    one, other = [finished(1, 0.1), finished(2, 0.2)], [finished(1, 0.3), finished(2, 0.5)]
    rows = rows_of({("shop", "one"): one, ("shop", "two"): other}, "one")
    assert remarks(rows, "one").startswith("Differences: minus one")
    assert remarks(rows, "one").endswith("Intervals: 95 %, over seeds and tasks.")
    alone = remarks(rows_of({("shop", "one"): one[:1]}, "one"), "one")
    assert alone == "No intervals: they take two seeds and 20 tasks."


def test_the_cost_of_learning_is_that_of_rounds_and_closing():
    usage = {"generated_tokens": 5, "prompt_tokens": 7, "policy_calls": 2}
    trained = {"seconds": 2.0, "training": {"steps": 3}}
    stages = {
        "sft": {"seconds": 50.0, "training": {"steps": 99}},
        "explore-1": {"seconds": 1.0, "usage": usage},
        "optimise-1": trained,
        "explore-2": {"seconds": 1.5, "usage": usage},
        "optimise-2": {"seconds": 0.5, "skipped": True},
        "closing": trained,
        "evaluate-rro-1": {"seconds": 9.0},
    }
    assert learning_cost(stages) == LearningCost(10, 14, 4, 6, 7.0)


@pytest.mark.slow
def test_the_smallest_shop(tmp_path, capsys):
    words = [str(HERE / "small-shop.toml"), "--out", str(tmp_path), "--workers", "2"]
    assert main(words) == 0
    assert "4 trials, 4 of them to run" in capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    rows = {(row["method"], row["policy"]): row for row in results["rows"]}
    # so small a model may have no success, and then makes no closing pass
    assert set(rows) >= {("pairs", "last"), ("successes", "last")}
    assert results["missing"] == []
    for row in rows.values():
        assert row["seeds"] == 2
        assert row["greedy_reward"]["n"] == 20
        assert row["generated_tokens"] > 0
        assert row["policy_calls"] > 0
    assert rows["successes", "last"]["sampled_difference"]["low"] is not None
    assert any(setting.startswith("dpo.epochs=") for setting in results["settings"]["shop pairs"])
    [curve, _] = results["curves"]["shop"]["successes"]
    assert len(curve["played"]) == 2
    assert {mode for _, mode, _ in curve["evaluated"]} == {"sampled", "greedy"}
    assert (tmp_path / "rewards-shop.png").stat().st_size > 10_000
    [log] = tmp_path.glob("shop/successes-*/seed-1.log")
    assert "explore 2: 8/8 tasks" in log.read_text()
    # one SFT policy for each seed, and one that the sweep's trials share
    assert len(list(tmp_path.glob("shop/sft/*/config.toml"))) == 3
    table = (tmp_path / "results.md").read_text()
    (tmp_path / "results.md").unlink()
    assert main(words) == 0
    assert "4 trials, 0 of them to run" in capsys.readouterr().out
    assert (tmp_path / "results.md").read_text() == table
    broken = Comparison(read_plan(HERE / "small-shop.toml"), HERE / "small-shop.toml", tmp_path)
    trial = next(trial for trial in broken.trials() if trial == Trial("shop", "successes", 2))
    (broken.folder(trial) / "results.json").unlink()
    assert main([*words, "--table"]) == 0
    assert "Missing trials: shop successes seed 2" in (tmp_path / "results.md").read_text()


ONE_TRIAL = """
seeds = [1]
settings = ["explore.tasks=20", "sft.epochs=3", "evaluate.tasks=20", "evaluate.trend_tasks=0"]
[environments.doors]
recipe = "{recipe}"
[methods.one]
"""


@pytest.mark.slow
def test_a_command_that_was_killed_leaves_no_trial_behind(tmp_path):
    plan, out = tmp_path / "plan.toml", tmp_path / "out"
    plan.write_text(ONE_TRIAL.format(recipe=HERE.parent / "end_to_end" / "doors.toml"))
    command = [sys.executable, "-m", "benchmarks.results", str(plan), "--out", str(out)]
    folders = (HERE.parent / "end_to_end", HERE.parents[1] / "src", *sys.path)
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    process = subprocess.Popen(command, env=variables, cwd=HERE.parents[1])
    while not (begun := list(out.glob("*/*/*/journal.jsonl"))):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    while written(begun[0]):
        time.sleep(0.1)


def written(journal):
    """Whether a process still writes it; the test's own time limit ends a wait in vain."""
    try:
        Journal(journal).close()
    except UsageError:
        return True
    return False
