"""What a run calls its trained policies: known from the folder alone."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rro.config import load_config, parse_config
from rro.errors import UsageError
from rro.runs.folder import RunFolder

STRATEGIES = """
class Enough:
    name = "enough-is-enough"

class Nameless:
    pass

class Lost:
    name = "../elsewhere"

def function():
    pass
"""


def made(folder: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> RunFolder:
    """A run whose strategies are gone again."""
    (folder / "own_strategies.py").write_text(STRATEGIES)
    (folder / "recipe.toml").write_text('[environment]\nname = "webshop"\n')
    monkeypatch.syspath_prepend(str(folder))
    config = load_config(folder / "recipe.toml", overrides)
    RunFolder.create(config, folder / "run")
    (folder / "own_strategies.py").unlink()
    monkeypatch.delitem(sys.modules, "own_strategies", raising=False)
    return RunFolder.open(folder / "run")


@pytest.mark.parametrize(
    ("settings", "label"),
    [
        (["explore.strategy=own_strategies:Enough"], "enough-is-enough-2"),
        (["explore.strategy=own_strategies:Nameless"], "Nameless-2"),
        (["explore.strategy=own_strategies:function"], "function-2"),
        (["explore.strategy=ipr"], "ipr-2"),
        # that of another run, whose config.toml serves as the recipe
        (["explore.strategy=ipr", "explore.label=fixed"], "ipr-2"),
    ],
)
def test_labels_need_no_strategy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: list[str], label: str
) -> None:
    assert made(tmp_path, monkeypatch, *settings).trained(2) == label


def test_a_run_of_before_keeps_its_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(tmp_path, monkeypatch, "explore.strategy=own_strategies:Enough")
    file = run.path / "config.toml"
    file.write_text(file.read_text().replace('label = "enough-is-enough"\n', ""))
    assert RunFolder.open(run.path).trained(1) == "Enough-1"


@pytest.mark.parametrize("line", ['method = "../elsewhere"', '[explore]\nstrategy = "a:../b"'])
def test_a_run_folder_of_somebody_else_names_no_other_folder(tmp_path: Path, line: str) -> None:
    RunFolder.create(parse_config({"environment": {"name": "webshop"}}, "test"), tmp_path / "run")
    file = tmp_path / "run" / "config.toml"
    tables = [text for text in file.read_text().split("\n\n") if "[explore]" not in text]
    head = f"{line}\n" if "[" not in line else ""
    file.write_text(head + "\n\n".join(tables) + ("" if head else f"\n{line}\n"))
    with pytest.raises(UsageError, match="has a slash, but a folder gets this name"):
        RunFolder.open(tmp_path / "run").trained(1)


def test_a_name_that_can_be_no_folders_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"own_strategies:Lost: '../elsewhere' has a slash"):
        made(tmp_path, monkeypatch, "explore.strategy=own_strategies:Lost")
    assert not (tmp_path / "run").exists()


def test_of_runs_that_start_in_one_folder_at_once_one_goes_on(tmp_path: Path) -> None:
    def start(seed: int) -> str:
        config = parse_config({"environment": {"name": "webshop"}, "seed": seed}, "recipe")
        try:
            return f"seed {RunFolder.create(config, tmp_path / 'run').config.seed}"
        except UsageError as error:
            return str(error)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(start, range(16)))
    run = RunFolder.open(tmp_path / "run")
    assert answers.count(f"seed {run.config.seed}") == 1
    assert sum("holds a run already" in answer for answer in answers) == 15
    assert run.trusted
