"""Policies on the validation tasks: a run's own measure beside the test tasks, in its own file."""

import json
from pathlib import Path

import pytest

from rro.cli.main import main
from rro.config import load_config
from rro.errors import DataError, UsageError
from rro.pipeline.check import new_run
from rro.pipeline.run import open_run
from rro.runs.folder import RunFolder

DOORS = Path(__file__).parents[1] / "end_to_end" / "doors.toml"
SMALL = ("sft.epochs=1", "experts.episodes=16", "evaluate.episodes=1", "evaluate.trend_tasks=0")
APART = "environment.train_split=train-without-validation"


def evaluated(file):
    results = json.loads(file.read_text())
    return results, {row["label"]: set(row["rewards"]) for row in results["evaluations"]}


def test_a_policy_is_measured_on_both_and_neither_counts_for_the_other(tmp_path, capsys):
    run = str(tmp_path / "run")
    assert main(["sft", str(DOORS), *SMALL, APART, "--out", run]) == 0
    assert main(["evaluate", run, "--validation"]) == 0
    assert "validation tasks" in capsys.readouterr().out
    assert not (tmp_path / "run" / "results.json").exists()
    assert main(["evaluate", run]) == 0
    validation, tasks = evaluated(tmp_path / "run" / "validation.json")
    results, test = evaluated(tmp_path / "run" / "results.json")
    assert (validation["split"], results["split"]) == ("validation", "test")
    # the last 32 of 160 train tasks, and the 40 test tasks
    assert tasks == {"sft": {f"doors-{number}" for number in range(128, 160)}}
    assert test == {"sft": {f"doors-{number}" for number in range(160, 200)}}
    lines = (tmp_path / "run" / "journal.jsonl").read_text()
    assert main(["evaluate", run, "--validation"]) == 0
    assert (tmp_path / "run" / "journal.jsonl").read_text() == lines


def test_a_policy_that_has_learned_the_validation_tasks_is_not_measured_on_them(tmp_path, capsys):
    run = str(tmp_path / "run")
    assert main(["sft", str(DOORS), *SMALL, "--out", run]) == 0
    assert main(["evaluate", run, "--validation"]) == 2
    assert "environment.train_split=train-without-validation" in capsys.readouterr().err


def test_an_experts_file_teaches_no_validation_task(tmp_path, capsys):
    experts, rows = tmp_path / "experts.jsonl", []
    for number in (3, 130, 150):  # validation is 128 to 159
        turns = [("user", "Which door?"), ("assistant", f"Door {number}")]
        messages = [{"role": role, "content": content} for role, content in turns]
        rows.append(json.dumps({"id": f"doors-{number}", "messages": messages}))
    experts.write_text("\n".join(rows))
    run, words = tmp_path / "run", [APART, f"experts.file={experts}"]
    with open_run(*new_run(load_config(DOORS, words), run, "sft")) as opened:
        assert [talk[1].text for talk in opened.demonstrations()] == ["Door 3"]
    experts.write_text(rows[1])
    with (
        open_run(RunFolder.open(run), None) as opened,
        pytest.raises(DataError, match="every row is of a validation task"),
    ):
        opened.demonstrations()
    run = tmp_path / "all"
    with open_run(*new_run(load_config(DOORS, words[1:]), run, "sft")) as opened:
        assert len(opened.demonstrations()) == 1


def test_a_recipe_that_measures_both_is_checked_before_it_starts(tmp_path):
    with pytest.raises(UsageError, match="train-without-validation"):
        new_run(load_config(DOORS, ["evaluate.validation=true"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_sampled_episodes_may_have_a_temperature_of_their_own(tmp_path):
    words = ["policy.temperature=0.8", "evaluate.temperature=0.4"]
    with open_run(*new_run(load_config(DOORS, words), tmp_path / "run", "sft")) as run:
        modes = {mode: params.temperature for mode, params, _ in run.modes()}
        assert (modes, run.params.temperature) == ({"sampled": 0.4, "greedy": 0.0}, 0.8)
