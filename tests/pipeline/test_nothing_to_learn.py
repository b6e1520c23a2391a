"""A run whose exploration gives no pairs is evaluated all the same, and can explore more tasks."""

import json
import signal

import forked
import pytest
from door_runs import door_run

from rro.cli.main import main
from rro.pipeline import stages
from rro.pipeline.run import open_run

# one candidate has no sibling, so there are no pairs
EXPLORE = {"tasks": 2, "rollouts": 1, "candidates": 1, "budget": {"policy_calls": 1000}}
EVALUATE = {"tasks": 3, "greedy": False, "bootstrap": 100}


def made(tmp_path, **sections):
    return door_run(tmp_path / "run", "nothing", evaluate=EVALUATE, **sections)


@pytest.fixture
def folder(tmp_path):
    return made(tmp_path, explore=EXPLORE)


def tasks_of(folder):
    records = (json.loads(line) for line in folder.journal.open())
    return [record["key"] for record in records if record["kind"] == "task"]


def test_it_is_evaluated_and_goes_on(folder, capsys):
    assert main(["run", "--resume", str(folder.path)]) == 1
    out, err = capsys.readouterr()
    assert "sft" in out  # its figures
    assert json.loads(folder.results.read_text())["evaluations"][0]["label"] == "sft"
    assert f"rro explore {folder.path} --iteration 1 --tasks 4" in err
    assert main(["explore", str(folder.path), "--tasks", "4"]) == 0
    assert len(tasks_of(folder)) == 4
    assert len(set(tasks_of(folder))) == 4
    assert main(["run", "--resume", str(folder.path)]) == 1  # still one candidate a step
    assert "--tasks 8" in capsys.readouterr().err
    stages_of = json.loads(folder.results.read_text())["stages"]
    assert stages_of["explore-1"]["tasks"] == 4  # the extended exploration, told once
    assert not [name for name in stages_of if "-to-" in name]


def test_what_cannot_be_extended_is_refused(folder, capsys):
    assert main(["explore", str(folder.path), "--tasks", "4"]) == 2
    assert "nothing is explored yet" in capsys.readouterr().err
    with open_run(folder) as run:
        run.journal.append("stage", "optimise-1", {"seconds": 0.0})
        with pytest.raises(stages.UsageError, match="has been trained on its pairs already"):
            stages.explore(run, 1, tasks=4)


def test_where_no_task_is_left_the_sentence_says_so(folder, capsys):
    assert main(["run", "--resume", str(folder.path)]) == 1
    assert main(["explore", str(folder.path), "--tasks", "1000"]) == 0
    capsys.readouterr()
    assert main(["run", "--resume", str(folder.path)]) == 1
    assert "no train task is left to explore" in capsys.readouterr().err


# Ends its process at once, as a shortage of memory does, while the file `killed` says so.
MORTAL = """
import os, pathlib, signal
import doors
import forked
from rro.environments.base import TaskList

FILE = pathlib.Path(__file__).with_name("killed")
resets = 0

class Mortal(doors.Doors):
    def reset(self, task, seed=0):
        global resets
        resets += 1
        if FILE.exists() and resets > int(FILE.read_text()):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().reset(task, seed)

def make():
    original = doors.open_doors()
    splits = {name: original.tasks(name) for name in ("train", "test")}
    return TaskList("doors", Mortal, splits, max_steps=4, expert=doors.expert)
"""


def mortal_run(tmp_path, module, policy_calls):
    (tmp_path / f"{module}.py").write_text(MORTAL)
    explore = {**EXPLORE, "concurrency": 1, "budget": {"policy_calls": policy_calls}}
    environment = {"name": f"{module}:make"}
    return made(tmp_path, environment=environment, explore=explore, modules=[str(tmp_path)])


@pytest.mark.slow
def test_an_extension_that_was_killed_goes_on(tmp_path):
    folder = mortal_run(tmp_path, "mortal", 40)
    for stage in ("sft", "explore"):
        assert main([stage, str(folder.path)]) == 0
    (tmp_path / "killed").write_text("20")
    words = ["explore", str(folder.path), "--tasks", "30", "--budget", "policy_calls=1000"]
    ran = forked.rro(*words)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert 2 < len(tasks_of(folder)) < 30
    (tmp_path / "killed").unlink()
    assert main(["run", "--resume", str(folder.path)]) == 1  # one candidate a step gives no pairs
    assert len(set(tasks_of(folder))) == len(tasks_of(folder)) == 30
    explored = json.loads(folder.results.read_text())["stages"]["explore-1"]
    assert (explored["tasks"], explored["budget"]) == (30, {"policy_calls": 1000})


def test_a_budget_of_the_command_line_outlasts_a_kill(tmp_path):
    folder = mortal_run(tmp_path, "mortal_budget", 8)
    assert main(["sft", str(folder.path)]) == 0
    (tmp_path / "killed").write_text("1")
    words = ["explore", str(folder.path), "--budget", "policy_calls=1000"]
    ran = forked.rro(*words)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    (tmp_path / "killed").unlink()
    assert main(["run", "--resume", str(folder.path)]) == 1  # one candidate a step gives no pairs
    explored = json.loads(folder.results.read_text())["stages"]["explore-1"]
    assert (explored["budget"], explored["left_tasks"]) == ({"policy_calls": 1000}, 0)
