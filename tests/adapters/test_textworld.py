"""TextWorld's games, on the real package."""

import subprocess
import sys

import pytest
from fakes import explore, finished_trees, fresh_journal, make_context

from rro.environments.base import Forkable
from rro.environments.registry import open_benchmark
from rro.episodes.loop import Limits
from rro.errors import DataError, UsageError
from rro.exploration.strategies.fixed_size import FixedSizeExploration
from rro.policies.scripted import ScriptedPolicy
from rro.scripting import play_experts
from rro.types import Message

pytest.importorskip("textworld", reason="the extra textworld is not installed")
# Making a game takes seconds.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def games(tmp_path_factory):
    folder = tmp_path_factory.mktemp("games")
    options = ["--nb-objects", "4", "--quest-length", "3", "--world-size", "2"]
    maker = "import sys; sys.argv[0] = 'tw-make'; exec(open(sys.argv.pop(1)).read())"
    script = next(path for path in _scripts() if path.is_file())
    command = [sys.executable, "-c", maker, str(script), "custom", *options, "--seed", "7"]
    output = str(folder / "a game.z8")
    subprocess.run([*command, "--output", output], check=True, capture_output=True)
    return folder


def _scripts():
    from pathlib import Path

    import textworld

    for base in (Path(sys.executable).parent, Path(textworld.__file__).parents[4] / "bin"):
        yield base / "tw-make"


def opened(games, **options):
    return open_benchmark("textworld", {"games": str(games), **options})


def act(episode, line):
    return episode.step(Message("assistant", f"Action: {line}"))


def test_the_walkthrough_wins(games):
    benchmark = opened(games)
    (episode,) = play_experts(benchmark, benchmark.tasks("train"))
    assert episode.task == "a-game"
    assert (episode.reward, episode.steps[-1].done) == (1.0, True)
    assert episode.steps[-1].info == {
        "score": 1, "max_score": 1, "won": True, "lost": False, "moves": 3,
    }  # fmt: skip
    assert "Possible commands: " in episode.opening[-1].content
    assert not any("\n>" in step.observation for step in episode.steps)


@pytest.mark.parametrize("text", ["", "\x00", "save", "quit", "restart", "fly", "x" * 10**6, "é"])
def test_only_possible_commands_reach_the_interpreter(games, text):
    episode = opened(games, show_commands=False).make()
    episode.reset(opened(games).tasks("train")[0])
    result = act(episode, text)
    assert result.invalid
    assert result.observation == "This command is not possible here."
    assert act(episode, "LOOK").info["moves"] == 1
    episode.close()


def test_forks_by_copy_and_by_replay_are_the_same(games, tmp_path):
    trees = []
    for fork in ("copy", "replay"):
        benchmark = opened(games, fork=fork)
        assert isinstance(benchmark.make(), Forkable) == (fork == "copy")

        def script(messages, rng):
            listed = messages[-1].content.rpartition("Possible commands: ")[2]
            return f"Action: {rng.choice(listed.split(', '))}"

        with fresh_journal(tmp_path, f"{fork}.jsonl") as journal:
            limits = Limits(3, step_timeout=300)
            context = make_context(benchmark, ScriptedPolicy(script), journal, limits=limits)
            assert explore(FixedSizeExploration(2, 2), context) == []
            (tree,) = finished_trees(journal).values()
        trees.append([(n.id, n.step and n.step.observation, n.estimate) for n in tree.root.walk()])
    assert trees[0] == trees[1]
    assert len(trees[0]) >= 7


def test_folders_without_games_are_refused(games, tmp_path):
    with pytest.raises(UsageError, match="games is missing"):
        open_benchmark("textworld", {})
    with pytest.raises(DataError, match="has no games"):
        opened(tmp_path)
    (tmp_path / "x.z8").write_bytes(b"")
    with pytest.raises(DataError, match=r"has no x\.json"):
        opened(tmp_path)
    assert [len(opened(games, test_tasks=1).tasks(split)) for split in ("train", "test")] == [0, 1]
