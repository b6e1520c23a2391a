"""A start that fails leaves no folder, whatever stage it begins with; a module beside the recipe is
found from everywhere."""

import shutil
import sys
from pathlib import Path

import forked
import pytest

from rro.cli.main import main
from rro.config import load_config
from rro.errors import UsageError
from rro.pipeline.check import new_run

HERE = Path(__file__).parents[1] / "end_to_end"


def config(*overrides):
    return load_config(HERE / "doors.toml", overrides)


@pytest.mark.parametrize(
    ("stage", "sentence"), [("explore", "rro sft first"), ("optimise", "a run folder")]
)
def test_a_stage_that_cannot_begin_a_run_leaves_no_folder(tmp_path, stage, sentence):
    with pytest.raises(UsageError, match=sentence):
        new_run(config(), tmp_path / "run", stage)
    assert not (tmp_path / "run").exists()


def test_an_environment_that_raises_is_told_in_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "broken_world.py").write_text("def make():\n    raise KeyError('door')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match="KeyError: 'door'"):
        new_run(config("environment.name=broken_world:make"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_experts_are_needed_only_by_what_learns_from_them(tmp_path, monkeypatch):
    (tmp_path / "no_expert.py").write_text(
        "import doors\nfrom rro.environments.base import TaskList\n"
        "def make():\n"
        "    tasks = list(doors.open_doors().tasks('train'))\n"
        "    return TaskList('doors', doors.Doors, {'train': tasks, 'test': tasks})\n"
    )
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = config("environment.name=no_expert:make", f"model.name={tmp_path}")
    with pytest.raises(UsageError, match=r"experts\.file"):
        new_run(settings, tmp_path / "run")
    folder, _ = new_run(settings, tmp_path / "run", "explore")
    assert folder.path.is_dir()


def test_a_start_opens_the_environment_once(tmp_path, monkeypatch):
    (tmp_path / "counted.py").write_text(
        "import doors\nopened = []\n"
        "def make():\n"
        "    opened.append(1)\n"
        "    return doors.open_doors()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    small = ["environment.name=counted:make", "sft.epochs=1", "experts.episodes=8"]
    words = ["sft", str(HERE / "doors.toml"), *small, "--out", str(tmp_path / "run")]
    assert main(words) == 0
    assert len(sys.modules["counted"].opened) == 1


def test_a_folder_below_a_file_cannot_be_a_run(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        new_run(config(), tmp_path / "file" / "run")


def rro(folder, *arguments):
    """What `rro` prints in `folder`, where no module can be found."""
    ran = forked.rro(*arguments, cwd=folder)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.slow
def test_a_module_beside_the_recipe_is_found_from_elsewhere(tmp_path):
    mine, elsewhere, run = tmp_path / "mine", tmp_path / "elsewhere", tmp_path / "run"
    mine.mkdir()
    elsewhere.mkdir()
    shutil.copy(HERE / "doors.py", mine / "my_doors.py")
    recipe = (HERE / "doors.toml").read_text().replace("doors:open", "my_doors:open")
    (mine / "recipe.toml").write_text(recipe)
    small = ["evaluate.trend_tasks=0", "explore.tasks=20", "evaluate.tasks=4"]
    rro(elsewhere, "sft", mine / "recipe.toml", *small, "--out", run)
    rro(elsewhere, "run", "--resume", run)
    shutil.rmtree(mine)
    assert "rro-1" in rro(elsewhere, "compare", run)
    assert Path(rro(elsewhere, "report", run).strip()).is_file()
