"""A run folder of somebody else is a program: its code runs only if the user says so. What is no
plug-in is refused before it is called."""

import os
import shutil
import sys

import pytest

from rro import plugins
from rro.cli.main import main
from rro.config import parse_config
from rro.errors import UsageError
from rro.pipeline.run import open_run
from rro.runs.folder import RunFolder


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


OWN = {"environment": {"name": "my_environment:open_it"}}


def make(tmp_path, tree=OWN):
    return RunFolder.create(parse_config(tree, "the test"), tmp_path / "run").path


def test_a_run_that_was_made_here_needs_no_word(tmp_path):
    path = make(tmp_path)
    assert RunFolder.open(path).trusted
    path.rename(tmp_path / "moved")
    with open_run(RunFolder.open(tmp_path / "moved")):
        pass


@pytest.mark.parametrize(
    "tree",
    [
        OWN,
        {"explore": {"strategy": "evil:Strategy"}},
        {"environment": {"name": "x", "options": {"observe": "evil:Strategy"}}},
        {"environment": {"name": "x", "gymnasium": {"id": "evil:Strategy-v0"}}},
        {"policy": {"backend": "vllm", "vllm": {"python": "/tmp/evil"}}},
        {"policy": {"vllm": {"options": {"trust_remote_code": True}}}},
    ],
)
def test_a_run_of_somebody_else_is_refused_until_the_user_says_so(
    tmp_path, home, tree, capsys, monkeypatch
):
    (tmp_path / "evil.py").write_text("class Strategy:\n    name = 'evil'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = make(tmp_path, tree)
    (tmp_path / "evil.py").write_text("raise AssertionError('imported')")
    sys.modules.pop("evil", None)
    shutil.rmtree(home)  # another user, or another machine
    with pytest.raises(UsageError, match=r"config\.toml runs code .* --trust-run-folder"):
        open_run(RunFolder.open(path))
    assert main(["run", "--resume", str(path)]) == 2
    assert "--trust-run-folder" in capsys.readouterr().err
    with open_run(RunFolder.open(path, trust=True)):
        pass
    with open_run(RunFolder.open(path)):  # it was said once
        pass


def test_a_changed_configuration_is_somebody_elses(tmp_path):
    path = make(tmp_path, {})
    config = (path / "config.toml").read_text()
    (path / "config.toml").write_text(config.replace('name = ""', 'name = "os:system"'))
    with pytest.raises(UsageError, match=r"environment\.name = 'os:system'"):
        open_run(RunFolder.open(path))


def test_a_run_with_installed_plugins_alone_is_opened(tmp_path, home):
    path = make(tmp_path, {"environment": {"name": "webshop"}})
    shutil.rmtree(home)
    with open_run(RunFolder.open(path)):
        pass


def test_a_home_that_cannot_be_written_costs_only_the_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/null")
    path = make(tmp_path)
    assert not RunFolder.open(path).trusted
    assert RunFolder.open(path, trust=True).trusted


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "subprocess:run",
        "subprocess:Popen",
        "builtins:exec",
        "builtins:eval",
        "shutil:rmtree",
        "runpy:run_path",
        "importlib:import_module",
        "webbrowser:open",
        "antigravity:fly",
        "os.path:join",
        "numpy:load",
        "torch:load",
        "pytest:main",
        "functools:partial",
        "aliased_for_the_test:run",
        "aliased_for_the_test:half",
    ],
)
@pytest.mark.parametrize("door", [plugins.ENVIRONMENTS, plugins.STRATEGIES, plugins.POLICIES])
def test_what_is_no_plugin_is_refused(door, name, tmp_path, monkeypatch):
    text = (
        "import functools, os\nfrom os import system as run\nhalf = functools.partial(run, 'x')\n"
    )
    (tmp_path / "aliased_for_the_test.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match="is no plug-in: it"):
        door.find(name)
    assert os.sep


def test_a_module_of_the_users_own_is_found(tmp_path, monkeypatch):
    (tmp_path / "own_for_the_test.py").write_text("def open_it():\n    return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert plugins.ENVIRONMENTS.find("own_for_the_test:open_it").factory() == 1
