"""The command line: a mistake gets one sentence and the right exit code, never a traceback."""

import io
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rro.cli.main import main

RECIPES = Path(__file__).parents[2] / "recipes"


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def refused(capsys, *arguments):
    code, _, err = run(capsys, *arguments)
    lines = [line for line in err.splitlines() if line.startswith("rro: ")]
    assert code == 2
    assert len(lines) == 1, err
    return lines[0]


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text('name = "mine"\n[environment]\nname = "webshop"\n[explore]\nrollouts = 3\n')
    return file


def test_missing_recipe(capsys, tmp_path):
    assert "nothing.toml: no such recipe" in refused(capsys, "run", tmp_path / "nothing.toml")


def test_unknown_key_names_the_nearest(capsys, recipe, tmp_path):
    recipe.write_text("[explore]\nrollout = 3\n")
    message = refused(capsys, "run", recipe, "--out", tmp_path / "run")
    assert str(recipe) in message
    assert "explore.rollout" in message
    assert "did you mean rollouts?" in message
    assert not (tmp_path / "run").exists()


def test_ill_typed_value_names_the_key(capsys, recipe, tmp_path):
    message = refused(capsys, "run", recipe, "explore.rollouts=many", "--out", tmp_path / "run")
    assert "explore.rollouts" in message
    assert "'many'" in message


def test_damaged_recipe(capsys, tmp_path):
    file = tmp_path / "r.toml"
    file.write_text("name = [")
    assert str(file) in refused(capsys, "run", file)


def test_override_without_equals_sign(capsys, recipe):
    assert "key.sub=value" in refused(capsys, "run", recipe, "explore.rollouts")


def test_unknown_environment_lists_the_known(capsys, recipe, tmp_path):
    message = refused(capsys, "sft", recipe, "environment.name=webshpo", "--out", tmp_path / "run")
    assert "webshpo" in message
    assert "webshop" in message.replace("webshpo", "")


def test_unknown_environment_option(capsys, recipe, tmp_path):
    message = refused(
        capsys, "sft", recipe, "environment.options.colour=1", "--out", tmp_path / "run"
    )
    assert "colour" in message


def test_resume_of_no_run_folder(capsys, tmp_path):
    assert "no run folder" in refused(capsys, "run", "--resume", tmp_path)


def test_resume_takes_nothing_else(capsys, recipe, tmp_path):
    assert "nothing else" in refused(capsys, "run", recipe, "--resume", tmp_path)


def test_second_run_does_not_overwrite_the_first(capsys, recipe, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.toml").write_text('name = "earlier"\n')
    assert "holds a run already" in refused(
        capsys, "run", recipe, "environment.options.catalogue=sample", "--out", out
    )
    assert (out / "config.toml").read_text() == 'name = "earlier"\n'


LATE = """
import sys
import rro.cli.main

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in ("numpy", "pydantic", "torch"):
            sys.stderr.write("heavy\\n")

sys.meta_path.insert(0, Watch())
sys.exit(rro.cli.main.main())
"""


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["explore", "RUN"], "opening RUN ..."),
        (["run", "--resume", "RUN"], "opening RUN ..."),
        (["compare", "RUN"], "reading RUN ..."),
        (["report", "RUN"], "reading RUN ..."),
        (["run", "none.toml"], "checking none.toml ..."),
        (["explore", "none.toml"], "checking none.toml ..."),
        (["check", "none.toml"], "checking none.toml ..."),
    ],
)
def test_a_line_comes_before_what_takes_seconds(tmp_path, words, line):
    (tmp_path / "RUN").mkdir()
    ran = subprocess.run(
        [sys.executable, "-c", LATE, *words], cwd=tmp_path, capture_output=True, text=True
    )
    first, *rest = ran.stderr.splitlines()
    assert first == line
    assert "heavy" in rest
    assert ran.returncode == 2


def test_a_run_folder_takes_no_settings(capsys, tmp_path):
    (tmp_path / "config.toml").write_text("")
    assert "neither settings" in refused(capsys, "explore", tmp_path, "seed=3")


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e300", "soon"])
def test_a_time_limit_is_above_0(capsys, recipe, seconds):
    with pytest.raises(SystemExit) as ended:
        main(["run", str(recipe), f"--stop-after={seconds}"])
    assert ended.value.code == 2
    assert f"'{seconds}' is no number of seconds above 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("run", "RECIPE"), ("--stop-after", "9")),
        (("check", "RECIPE"), ()),
        (("quickstart",), ("--seed", "1")),
        (("sft", "RECIPE", "seed=1"), ()),
        (("explore", "RECIPE"), ("--iteration", "1")),
        (("evaluate", "RECIPE"), ("--validation",)),
        (("sweep", "RECIPE", "seed=1,2"), ("--trials", "1")),
        (("config", "RECIPE"), ()),
        (("play", "RECIPE"), ("--split", "test")),
        (("serve-env", "RECIPE"), ("--port", "0")),
    ],
)
def test_settings_stand_before_and_after_options(capsys, recipe, tmp_path, before, after):
    out = ("--out", tmp_path / "out") if before[0] not in ("config", "play", "serve-env") else ()
    words = [recipe if word == "RECIPE" else word for word in before]
    key = "explore.nonsense=1"
    assert "explore.nonsense" in refused(capsys, *words, *out, *after, key)
    assert "explore.nonsense" in refused(capsys, *words, key, *out, *after)
    assert "explore.nonsense" in refused(capsys, *words, "dpo.epochs=2", *out, key, *after)


def test_exploring_before_sft_says_what_to_run(capsys, recipe, tmp_path):
    options = ["environment.options.catalogue=sample"]
    assert "run rro sft first" in refused(
        capsys, "explore", recipe, *options, "--out", tmp_path / "run"
    )


@pytest.mark.parametrize("command", ["compare", "report", "view"])
def test_a_run_named_twice_is_refused(capsys, tmp_path, command):
    again = tmp_path / "there" / ".."
    (tmp_path / "there").mkdir()
    message = refused(capsys, command, tmp_path, again)
    assert message == f"rro: {again} is named twice: name each run once"


def test_comparing_a_run_without_results(capsys, tmp_path):
    assert "rro evaluate" in refused(capsys, "compare", tmp_path)


def test_fetching_from_a_folder_that_is_not_there(capsys, tmp_path):
    source = tmp_path / "nowhere"
    message = refused(
        capsys, "data", "fetch", "webshop-1k", "--from", source, "--to", tmp_path / "data"
    )
    assert str(source) in message


def test_fetching_something_unknown_lists_what_there_is(capsys):
    assert "webshop-1k" in refused(capsys, "data", "fetch", "webshopp")


def test_playing_an_unknown_task(capsys):
    assert "no task 'nope'" in refused(capsys, "play", "--task", "nope")


def test_playing_a_slice_without_tasks(capsys):
    assert "has no tasks" in refused(capsys, "play", "--split", "train[9000:]")


def test_a_player_who_leaves_has_not_failed(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("search[x]\n"))
    code, out, err = run(capsys, "play")
    assert code == 0
    assert out.endswith("\nended by the player\n")
    assert "failed" not in out + err


def test_a_person_plays_to_the_end(capsys, monkeypatch):
    typed = iter(["search[lamp]", "nonsense", "click[back to search]"])
    monkeypatch.setattr("rich.console.Console.input", lambda self, prompt="": next(typed))
    code, out, _ = run(capsys, "play", "environment.max_steps=3")
    assert code == 0
    assert "that was no valid action" in out
    assert "step_limit: reward 0.0 after 3 steps" in out


HOSTILE = """
from rro.environments.base import Environment, TaskList
from rro.types import Message, StepResult, Task

class Hostile(Environment):
    def reset(self, task, seed=0):
        return [Message("user", "\\x1b]0;title\\x07 \\x1b[2J [bold]x[/y] :smile:")]

    def step(self, action):
        return StepResult("\\x9b31m\\u202e", 0.0, done=True)

def make():
    return TaskList("hostile", Hostile, {"train": [Task("a", None)]}, max_steps=2)
"""


def test_what_an_environment_says_controls_no_terminal(capsys, monkeypatch, tmp_path):
    (tmp_path / "hostile_text.py").write_text(HOSTILE)
    (tmp_path / "recipe.toml").write_text('[environment]\nname = "hostile_text:make"\n')
    monkeypatch.setattr("rich.console.Console.input", lambda self, prompt="": "x")
    code, out, _ = run(capsys, "play", str(tmp_path / "recipe.toml"))
    assert code == 0
    assert "\\x1b]0;title\\x07 \\x1b[2J [bold]x[/y] :smile:" in out
    assert "\\x9b31m\\u202e" in out
    assert not {"\x1b", "\x9b", "\x07", "\u202e"} & {*out}


def test_python_dash_m_says_its_version():
    ran = subprocess.run(
        [sys.executable, "-m", "rro", "--version"], capture_output=True, text=True, check=True
    )
    assert ran.stdout.startswith("rro ")


def test_packaged_recipes_are_valid(caplog):
    from rro.config import load_config

    recipes = sorted(RECIPES.glob("*.toml"))
    assert recipes
    for recipe in recipes:
        load_config(recipe)
    assert caplog.text == ""  # no old key


def test_a_recipe_is_found_by_its_name_and_a_path_wins(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with_error = ("run", "quickstart", "explore.rolouts=1")
    assert "override explore.rolouts=1" in refused(capsys, *with_error)
    (tmp_path / "quickstart").write_text("colour = 1\n")
    assert "unknown key colour" in refused(capsys, "run", "quickstart")


@pytest.mark.parametrize("command", ["run", "sft", "play"])
def test_a_misspelt_recipe_names_the_nearest(capsys, command):
    assert "did you mean quickstart?" in refused(capsys, command, "quikstart")
    assert "did you mean quickstart?" in refused(capsys, command, "recipes/quickstrat.toml")


@pytest.mark.parametrize("words", [["recipes"], ["recipes", "list"]])
def test_recipes_are_listed_with_what_they_are(capsys, words):
    code, out, _ = run(capsys, *words)
    assert code == 0
    names = {line.split()[0] for line in out.splitlines() if not line.startswith(" ")}
    methods = {f"method={file.stem}" for file in RECIPES.glob("methods/*.toml")}
    assert {file.stem for file in RECIPES.glob("*.toml")} | methods == names
    assert "on two CPU cores in minutes" in " ".join(out.split())


def test_a_recipe_is_shown_as_its_file_is(capsys):
    code, out, _ = run(capsys, "recipes", "show", "quickstart")
    assert (code, out) == (0, (RECIPES / "quickstart.toml").read_text(encoding="utf-8"))


def test_config_lists_a_recipe_with_overrides(capsys, recipe):
    code, out, _ = run(capsys, "config", recipe, "explore.tasks=7")
    listed = tomllib.loads(out)
    assert code == 0
    assert (listed["name"], listed["explore"]["rollouts"], listed["explore"]["tasks"]) == (
        "mine",
        3,
        7,
    )
    assert listed["modules"] == [str(recipe.parent)]
    code, out, _ = run(capsys, "config", "explore.strategy=eto")
    assert tomllib.loads(out)["explore"]["strategy"] == "eto"
    assert "modules" not in tomllib.loads(out)


def test_the_listing_without_a_recipe_runs(capsys, tmp_path):
    _, out, _ = run(capsys, "config")
    (tmp_path / "mine.toml").write_text(out)
    message = refused(capsys, "run", tmp_path / "mine.toml", "explore.rollouts=0")
    assert "explore.rollouts must be" in message


def test_config_refuses_what_run_refuses(capsys, recipe):
    assert "did you mean rollouts?" in refused(capsys, "config", recipe, "explore.rolouts=7")
    assert "did you mean quickstart?" in refused(capsys, "config", "quickstrat")
    assert "name none" in refused(capsys, "config", "--schema", "quickstart")


def test_the_schema_is_json(capsys):
    code, out, _ = run(capsys, "config", "--schema")
    assert code == 0
    assert json.loads(out)["additionalProperties"] is False


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["explore", "runs/one", "--iteration", "0"], "rounds are counted from 1"),
        (["export", "runs/one", "--iteration", "-1"], "rounds are counted from 1"),
        (["serve-policy", "runs/one", "--seconds", "nan"], "no number of seconds above 0"),
        (["run", "quickstart", "--out", ""], "name a folder"),
        (["evaluate"], "required: target\n"),
    ],
)
def test_an_option_that_cannot_be_is_refused_at_once(capsys, words, sentence):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err
