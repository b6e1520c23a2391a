"""docs/plugins.md is run as it stands: each file, the recipe with all of them, the entry points."""

import json
import re
import tomllib
from pathlib import Path

import forked
import pytest

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(
    r"```(\w*)\n(.*?)```", (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8"), re.DOTALL
)
FILES = {
    name: text
    for language, text in BLOCKS
    if language == "python"
    for name in re.findall(r'^"""(\w+\.py)"""\n', text)
}
RECIPE, PACKAGE = (text for language, text in BLOCKS if language == "toml")
# The trained policy is called after the strategy's own name.
LABEL = "best-of-two-1"
(COMMAND,) = (text.split() for language, text in BLOCKS if not language)


@pytest.fixture
def folder(tmp_path):
    """A user's folder with the files of the page."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


def rro(folder, *words, search=()):
    """Runs a command in `folder`; `search` are folders to import from, besides rro's own."""
    return forked.rro(*words, cwd=folder, search=search)


def pairs_of(run):
    return [json.loads(line) for line in (run / "pairs-1.jsonl").read_text().splitlines()]


def test_the_page_has_a_file_for_each_kind():
    assert sorted(FILES) == ["credit.py", "game.py", "learner.py", "policy.py", "strategy.py"]


@pytest.mark.slow
def test_the_recipe_runs_with_all_of_them(folder):
    ran = rro(folder, "run", "recipe.toml", "--out", "run")
    assert ran.returncode == 0, ran.stderr
    pairs = pairs_of(folder / "run")
    assert pairs
    assert {pair["strategy"] for pair in pairs} == {"best-of-two"}
    assert {pair["step"] for pair in pairs} <= {1, 2}
    assert all(pair["chosen_n"] in (1, 4) for pair in pairs)
    checkpoint = folder / "run" / "checkpoints" / LABEL
    trained = json.loads((checkpoint / "training.json").read_text())
    assert trained["rows"]["used"] == len(pairs)
    results = json.loads((folder / "run" / "results.json").read_text())
    assert [row["label"] for row in results["evaluations"]][-1] == LABEL


def test_the_policy_is_explored_without_a_model(folder):
    ran = rro(folder, *COMMAND[1:], "--out", "run")
    assert ran.returncode == 0, ran.stderr
    pairs = pairs_of(folder / "run")
    assert pairs
    assert {pair["chosen_pricing_policy"] for pair in pairs} == {"mine/base"}
    assert any(pair["rejected"][0]["content"] == "open red" for pair in pairs)


def test_an_option_that_a_file_does_not_have_is_one_sentence(folder):
    ran = rro(folder, "run", "recipe.toml", "explore.options.rolouts=4", "--out", "run")
    assert ran.returncode == 2
    assert "explore.options.rolouts" in ran.stderr
    assert "did you mean rollouts?" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_package_registers_its_names(folder):
    project = tomllib.loads(PACKAGE)["project"]
    installed = folder / "installed"
    about = installed / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    groups = project["entry-points"].items()
    (about / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in points.items())
            for group, points in groups
        )
    )
    for name, text in FILES.items():
        (installed / name).write_text(text)
        (folder / name).unlink()
    chosen = ("environment.name=doors", "explore.strategy=best-of-two", "explore.options={}")
    own = ("explore.best-of-two.rollouts=2", "explore.tasks=10")
    policy = ("credit.name=pairs", "credit.options={}", *COMMAND[3:])
    words = ("explore", "recipe.toml", *chosen, *own, *policy, "--out", "run")
    ran = rro(folder, *words, search=[installed])
    assert ran.returncode == 0, ran.stderr
    assert all(pair["chosen_n"] in (1, 2) for pair in pairs_of(folder / "run"))
    misspelt = ("recipe.toml", *policy, "explore.strategy=best-of-too", "--out", "other")
    unknown = rro(folder, "explore", *misspelt, search=[installed])
    assert unknown.returncode == 2
    assert "did you mean best-of-two?" in unknown.stderr
