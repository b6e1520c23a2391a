"""Sweeps: what is refused before the first trial, what is proposed, trials that really train."""

import json
import random
import re
import signal
import sys
import time
from pathlib import Path

import forked
import pytest

from rro.cli.main import main
from rro.errors import RroError, UsageError
from rro.exploration.strategies.rising import RisingExploration
from rro.pipeline.sweep import Report, Trial, parse_metric, propose, read_sweep
from rro.pipeline.sweep_space import parse_space

HERE = Path(__file__).parents[1] / "end_to_end"
DOORS = str(HERE / "doors.toml")
QUICK = (
    *("explore.tasks=12", "evaluate.trend_tasks=0", "evaluate.episodes=2"),
    *("evaluate.greedy=false", "environment.validation_split=validation[:24]"),
)


def swept(*words):
    return main(["sweep", *map(str, words)])


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["dpo.epoch=1,2"], "unknown key dpo.epoch: did you mean epochs?"),
        (["dpo.epochs=1,two"], "dpo.epochs must be a number above 0, not 'two'"),
        (["dpo.epochs=int:0:3"], "dpo.epochs must be a number above 0"),
        (["explore.strategy=rro,eta"], "did you mean eto?"),
        (["dpo.epochs=1,2", "--trials", "0"], "--trials 0: at least 1"),
        (["dpo.epochs=1,2", "--metric", "test.reward"], "never looks at test tasks"),
        (["dpo.epochs=1,2", "--metric", "validation"], "choose validation.reward"),
        (["dpo.epochs=1,2", "--metric", "validation.reward.best"], "sampled or greedy"),
        (["dpo.epochs=1,2", "environment.train_split=train[:150]"], "has 22 of the 32 tasks"),
        (["dpo.epochs=1,2", "environment.train_split=train"], "holds the validation tasks"),
        (["dpo.epochs=1,2", "environment.validation_split=test"], "has 40 of the 40 tasks"),
        (["dpo.epochs=1,2", "environment.validation_split=dev"], "no split 'dev'"),
        (["dpo.epochs=1,2", "model.name=/nowhere"], "nowhere"),
        (["dpo.epochs=1,2", "evaluate.validation=false"], "measures on the validation tasks"),
    ],
)
def test_a_sweep_that_cannot_work_is_refused_before_its_first_trial(
    tmp_path, capsys, words, problem
):
    assert swept(DOORS, *words, "--out", tmp_path / "sweep") == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


def test_optuna_is_asked_for_where_it_is_missing(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert swept(DOORS, "dpo.epochs=1,2", "--out", tmp_path / "sweep") == 2
    assert "pip install 'rro[sweep]'" in capsys.readouterr().err


def test_a_folder_without_a_sweep_is_told(tmp_path, capsys):
    assert swept("--resume", tmp_path) == 2
    assert "holds no sweep" in capsys.readouterr().err
    (tmp_path / "journal.jsonl").write_text("")
    assert swept(DOORS, "dpo.epochs=1,2", "--out", tmp_path) == 2
    assert swept("--resume", tmp_path, "--seed", "3") == 2


def proposals(words, count, score, seed=0):
    """What is proposed one after another where a trial's metric is `score` of its values, None if
    it fails."""
    report = Report(Path("sweep"), "validation.reward", parse_space(words), [])
    for number in range(1, count + 1):
        values = propose(report, seed + number)
        mean = score(values)
        metric = None if mean is None else {"mean": mean, "low": None, "high": None, "n": 1}
        trial = Trial(number, values, 0.0, metric, None if metric else "failed")
        report = Report(report.folder, report.metric, report.space, [*report.trials, trial])
    return report


@pytest.mark.parametrize("score", [lambda values: 1.0, lambda values: None], ids=["same", "failed"])
def test_where_all_can_be_tried_each_is_tried_once(score):
    found = proposals(["a=1,2,3", "b=int:1:2", "c=0"], 6, score)
    tried = {(trial.values["a"], trial.values["b"]) for trial in found.trials}
    assert tried == {(a, b) for a in ("1", "2", "3") for b in (1, 2)}


def test_proposals_depend_on_seed_and_trials_alone():
    def score(values):
        return values["a"] if values["b"] == "x" else None

    words = ["a=log:0.001:1", "b=x,y"]
    one, again = (proposals(words, 14, score) for _ in range(2))
    assert one.trials == again.trials != proposals(words, 14, score, seed=99).trials
    assert all(0.001 <= trial.values["a"] <= 1 for trial in one.trials)
    assert one.ranked[0] == one.best
    assert one.ranked[-1].metric is None
    # after the first ten, which are random, it looks where the metric is high
    later = [trial for trial in proposals(words, 40, score).trials if trial.number > 20]
    assert sum(trial.values["a"] > 0.3 for trial in later) > len(later) / 2


def test_a_figure_that_is_no_number_is_a_failure():
    row = {"mode": "sampled", "reward": {"mean": float("nan")}}
    with pytest.raises(RroError, match="its reward is nan"):
        parse_metric("validation.reward").of({"evaluations": [row]})
    with pytest.raises(UsageError, match=r"validation\.reward or"):
        parse_metric("reward")


def journalled(folder, kind):
    lines = (folder / "journal.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record.get("kind") == kind]


def outcome(folder):
    """What a sweep came to, without what depends on the clock."""
    report = json.loads((folder / "sweep.json").read_text())
    for trial in report["trials"]:
        trial["seconds"] = trial["cost"].pop("seconds", 0)
        del trial["seconds"]
    return report


@pytest.mark.slow
def test_a_sweep_of_real_trials_looks_at_no_test_task_and_outlives_a_failing_one(
    tmp_path, capsys, monkeypatch
):
    (tmp_path / "broken_strategy.py").write_text(
        "from rro.exploration.strategies.rising import RisingExploration\n"
        "class Broken(RisingExploration):\n"
        "    def __init__(self, **options):\n"
        "        raise SystemExit('no exploring today')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    out = tmp_path / "sweep"
    words = ["explore.strategy=rro,broken_strategy:Broken", *QUICK, "--trials", "5"]
    assert swept(DOORS, *words, "--out", out) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.partition("best settings")[0].splitlines())) <= 60
    report = outcome(out)
    good, bad = sorted(report["trials"], key=lambda trial: trial["problem"] is not None)
    assert "no exploring today" in bad["problem"]
    assert good["metric"]["n"] == 24
    assert good["cost"]["optimiser_steps"] > 0
    assert "explore.strategy=rro" in report["best"]
    run = out / f"trial-{good['number']:03d}"
    assert journalled(run, "evaluation") == []
    everywhere = "".join(path.read_text() for path in out.glob("*/*.jsonl"))
    # 0 to 127 are to be learned from, then come 24 of the validation tasks, and tests from 160
    assert max(map(int, re.findall(r"doors-(\d+)", everywhere))) == 151
    before = (out / "journal.jsonl").read_text()
    assert swept("--resume", out) == 0
    assert (out / "journal.jsonl").read_text() == before
    assert main(["evaluate", str(run)]) == 0
    assert (run / "results.json").exists()


class Broken(RisingExploration):
    """Explores nothing: all its trials fail."""

    async def explore(self, sampler):
        raise ValueError("no exploring today")


@pytest.mark.slow
def test_what_fails_at_last_leaves_nothing_to_go_on_with(tmp_path, capsys):
    """A sweep of failures that is extended, then resumed as far as it was extended."""
    out = tmp_path / "sweep"
    words = ["explore.strategy=pipeline.test_sweep:Broken", "sft.epochs=1", *QUICK]
    assert swept(DOORS, *words, "dpo.epochs=1,2,3,4", "--trials", "3", "--out", out) == 1
    said = capsys.readouterr().err
    assert "every trial failed" in said
    assert "--resume" not in said
    assert swept("--resume", out, "--trials", "4") == 1
    assert "every trial failed" in capsys.readouterr().err
    assert read_sweep(out)[1] == 4
    assert len(journalled(out, "trial")) == 4


@pytest.mark.slow
def test_a_sweep_that_was_stopped_or_killed_goes_on_as_if_it_had_not_been(tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    words = [DOORS, "dpo.epochs=1,2", "dpo.learning_rate=log:1e-4:1e-3", *QUICK, "--trials", "2"]
    chance = random.Random(4)

    def records():
        return sum(file.read_bytes().count(b"\n") for file in killed.glob("**/journal.jsonl"))

    def start(*arguments):
        return forked.start("sweep", *arguments, search=[HERE])

    process = start(*words, "--out", killed)
    # While it makes the SFT policy, in the first trial, twice, and in the second.
    moments = (1, chance.randrange(10, 60), chance.randrange(60, 120), 260)
    kinds = (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGTERM)
    for enough, kind in zip(moments, kinds, strict=True):
        while records() < enough:
            assert process.exitcode is None, process.ended().stderr
            time.sleep(0.01)
        process.send_signal(kind)
        process.join()
        assert process.exitcode == (75 if kind == signal.SIGTERM else -signal.SIGKILL)
        process = start("--resume", killed)
    for ending in (process, start(*words, "--out", whole)):
        ended = ending.ended()
        assert ended.returncode == 0, ended.stderr
    assert outcome(killed) == outcome(whole)
    assert len(journalled(killed, "begun")) == 2
