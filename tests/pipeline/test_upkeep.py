"""`rro gc`: what goes, and that resuming and reporting find all that they need afterwards."""

import json
from pathlib import Path

import pytest

from rro.cli.main import main
from rro.config import load_config
from rro.pipeline import stages
from rro.pipeline.run import open_run
from rro.runs.folder import RunFolder

RECIPE = Path(__file__).parents[1] / "end_to_end" / "doors.toml"
SMALL = ("explore.strategy=group", "explore.tasks=6", "explore.options.episodes=4")
SMALL += ("credit.name=successes", "optimise.learner=sft", "rounds.count=2", "experts.episodes=100")
SMALL += ("evaluate.tasks=3", "evaluate.greedy=false", "evaluate.bootstrap=100")


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(load_config(RECIPE, SMALL), tmp_path / "run")


def test_after_gc_the_run_resumes_and_reports(folder, capsys):
    with open_run(folder) as run:
        results = stages.run_all(run)
    checkpoints = folder.path / "checkpoints"
    left_behind = [checkpoints / "sft.partial" / "checkpoint-3", checkpoints / "group-1.damaged"]
    for path in left_behind:
        path.mkdir(parents=True)
        (path / "weights").write_bytes(b"x" * 1_000_000)
    assert main(["gc", str(folder.path), "--dry-run"]) == 0
    assert "could go" in capsys.readouterr().out
    assert (checkpoints / "group-1").is_dir()
    assert main(["gc", str(folder.path)]) == 0
    assert "checkpoints/group-1\n" in capsys.readouterr().out
    assert sorted(path.name for path in checkpoints.iterdir()) == ["base", "group-2", "sft"]
    before = folder.journal.read_bytes()
    with open_run(RunFolder.open(folder.path)) as run:
        assert json.loads(json.dumps(stages.run_all(run))) == json.loads(json.dumps(results))
    assert folder.journal.read_bytes() == before
    assert main(["report", str(folder.path)]) == 0
    assert (folder.path / "report.html").stat().st_size > 10_000


def test_what_an_unfinished_run_needs_stays(folder):
    with open_run(folder) as run:
        stages.sft(run)
        stages.explore(run, 1)
        stages.optimise(run, 1)
    partial = folder.path / "checkpoints" / "group-2.partial"
    partial.mkdir()
    (partial / "identity.txt").write_text("of a training under way")
    assert main(["gc", str(folder.path)]) == 0
    assert partial.is_dir()
    assert {"sft", "group-1"} <= {path.name for path in partial.parent.iterdir()}
    partial.joinpath("identity.txt").unlink()
    with open_run(RunFolder.open(folder.path)) as run:
        assert len(stages.run_all(run)["evaluations"]) == 3


def test_a_run_without_its_journal_is_left_alone(folder, capsys):
    for options in ([], ["--dry-run"]):
        assert main(["gc", str(folder.path), *options]) == 2
        assert "no journal there" in capsys.readouterr().err
    assert not folder.journal.exists()
