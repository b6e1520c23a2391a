"""docs/environments.md is run as it stands: the class, its fork, the recipe, the exploration."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import explore, finished_trees, fresh_journal, make_context, pairs_of

from rro.config import load_config
from rro.environments.base import Forkable
from rro.environments.registry import open_benchmark
from rro.episodes.loop import reset_checked
from rro.errors import UsageError
from rro.exploration.strategies.rising import RisingExploration
from rro.policies.scripted import ScriptedPolicy
from rro.types import Message, Task

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(
    r"```(\w+)\n(.*?)```",
    (ROOT / "docs" / "environments.md").read_text(encoding="utf-8"),
    re.DOTALL,
)
GAME, FORKABLE, SCRIPT = (text for language, text in BLOCKS if language == "python")
(RECIPE,) = (text for language, text in BLOCKS if language == "toml")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder with guess.py and a recipe, and the user in it."""
    (tmp_path / "guess.py").write_text(GAME)
    (tmp_path / "forkable.py").write_text(f"from guess import *\n\n{FORKABLE}\n\n{TASKS}")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield tmp_path
    for name in ("guess", "forkable"):
        sys.modules.pop(name, None)


TASKS = """
class Remembering(ForkableGuessNumber):
    def reset(self, task, seed=0):
        self.guesses = ()
        return super().reset(task, seed)

    def step(self, action):
        self.guesses += (action.content,)
        return super().step(action)

    def snapshot(self):
        return self.number, self.guesses

    def restore(self, snapshot):
        self.number, self.guesses = snapshot

def remembering(**options):
    plain = __import__("guess").guess_number(**options)
    return TaskList("remembering", Remembering, {"train": plain.tasks("train")}, max_steps=5)

def guess_number(**options):
    plain = __import__("guess").guess_number(**options)
    return TaskList("forkable", ForkableGuessNumber, {"train": plain.tasks("train")}, max_steps=5)
"""


def test_the_example_is_about_twenty_lines():
    lines = [
        line
        for line in GAME.splitlines()
        if line.strip() and not line.lstrip().startswith(("import", "from", '"""'))
    ]
    assert len(lines) <= 20


def test_a_recipe_opens_it_and_rro_gets_pairs(folder):
    config = load_config(folder / "recipe.toml")
    policy = ScriptedPolicy(lambda messages, rng: f"Is it {rng.randint(1, 10)}?")
    trees, strategy = {}, RisingExploration()
    names = (config.environment.name, "forkable:guess_number", "forkable:remembering")
    for name in names:
        benchmark = open_benchmark(name, config.environment.options)
        with fresh_journal(folder, f"{name.replace(':', '-')}.jsonl") as journal:
            assert explore(strategy, make_context(benchmark, policy, journal)) == []
            trees[name] = finished_trees(journal)
        assert isinstance(benchmark.make(), Forkable) == name.startswith("forkable")
    plain, forkable, remembering = (
        {key: pairs_of(strategy, tree, 0) for key, tree in grown.items()}
        for grown in trees.values()
    )
    # Where every guess leads to a state of its own, restoring and replaying give the same pairs.
    assert plain == remembering
    # With snapshots, guesses that lead to the same state share their outcomes and make no pair.
    assert plain.keys() == forkable.keys()
    assert all(any(found.values()) for found in (plain, forkable))
    pairs = [pair for found in (plain, forkable) for own in found.values() for pair in own]
    assert all(pair.chosen_reward.mean > pair.rejected_reward.mean for pair in pairs)
    assert {pair.task for pair in pairs} <= {f"number-{n}" for n in (1, 3, 5, 7, 9)}
    replayed, _, restored = (
        sum(tree.usage().environment_steps for tree in grown.values()) for grown in trees.values()
    )
    assert replayed > restored


def test_the_script_runs_and_runs_again(folder):
    (folder / "try.py").write_text(SCRIPT)
    paths = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])

    def script():
        return subprocess.run(
            [sys.executable, "try.py"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )

    first = script()
    assert re.search(
        r"^number-\d+ \d Is it \d+\? [01]\.\d+ rather than 0\.\d+$", first.stdout, re.MULTILINE
    )
    journal = (folder / "journal.jsonl").read_bytes()
    again = script()
    assert again.stdout == first.stdout
    assert (folder / "journal.jsonl").read_bytes() == journal


@pytest.mark.parametrize("action", ["", "seven", "9" * 10_000, "١٢", "-1", "\x00", "5; import os"])
def test_the_example_itself_survives_what_models_write(folder, action):
    environment = open_benchmark("guess:guess_number").make()
    (message,) = asyncio.run(reset_checked(environment, Task("t", (7, 20)), 0, 1.0))
    assert message.role == "user"
    assert environment.step(Message("assistant", action)).done is False
    assert environment.step(Message("assistant", "so 8, no: 7")).reward == 1.0


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("guess", {}, "unknown environment 'guess': choose one of .*webshop.*module:attribute"),
        ("guess:nothing", {}, "guess:nothing: .*no attribute 'nothing'"),
        ("no_such_module:x", {}, "No module named 'no_such_module'"),
        (
            "guess:guess_number",
            {"lowest": 3},
            "unknown key environment.options.lowest: known keys are highest",
        ),
        ("guess:re", {}, "is a module: name a class or a function"),
        ("guess:Task", {"id": "x"}, "returned a Task, not a Benchmark"),
    ],
)
def test_a_name_that_is_wrong_is_one_sentence(folder, name, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        open_benchmark(name, options)


def test_an_unknown_split_lists_those_there_are(folder):
    with pytest.raises(UsageError, match="guess has no split 'dev': choose one of train, test"):
        open_benchmark("guess:guess_number").tasks("dev")


def test_an_expert_is_a_file_where_none_is_scripted(folder):
    benchmark = open_benchmark("guess:guess_number")
    with pytest.raises(UsageError, match=r"experts\.file"):
        benchmark.expert(benchmark.tasks("train")[0], 0.0, 0)


def test_an_environment_written_for_the_first_version_still_opens(folder):
    """Its module imports the contract from where it was."""
    text = (folder / "guess.py").read_text().replace("rro.environments.base", "rro.envs.base")
    old = text.replace("from rro import ", "from rro.envs.base import ")
    (folder / "old_guess.py").write_text(old)
    assert "rro.envs.base" in old
    with pytest.warns(FutureWarning, match="import Benchmark, Environment and TaskList from rro"):
        assert open_benchmark("old_guess:guess_number").tasks("train")
