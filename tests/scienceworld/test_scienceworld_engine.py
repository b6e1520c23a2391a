"""ScienceWorld's real engine in a process of its own: deterministic, bounded, replaced."""

import os
import shutil
import signal
import stat

import pytest

from rro.errors import UsageError

pytest.importorskip("scienceworld", reason="the extra scienceworld is not installed")
if shutil.which("java") is None:
    pytest.skip("there is no java", allow_module_level=True)

from rro.environments.registry import open_benchmark
from rro.scienceworld import ScienceWorldOptions
from rro.scienceworld.engine import Engine, EngineFailed
from rro.scienceworld.pool import Engines
from rro.scienceworld.verify import verify
from rro.types import Message

pytestmark = pytest.mark.slow
EASY = "easy"
KIND = "lifespan-longest-lived"


def pids():
    """The engines of this process."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
                with open(f"/proc/{entry}/cmdline") as file:
                    command = file.read()
            except OSError:
                continue
            children[int(entry)] = int(fields[1]), command
    own = os.getpid()
    return [pid for pid, (parent, line) in children.items() if parent == own and "java" in line]


@pytest.fixture
def engines():
    made = []

    def start():
        made.append(Engine(300))
        return made[-1]

    yield Engines(2, start)
    for engine in made:
        engine.kill()


def test_an_engine_that_hangs_is_killed_and_replaced(engines, caplog):
    with engines.lend(None) as engine:
        engine.load(KIND, 0, EASY)
        engine.timeout = 1
    (hanging,) = pids()
    os.kill(hanging, signal.SIGSTOP)
    late = pytest.raises(EngineFailed, match="did not answer within 1 s")
    with late, engines.lend(None) as again:
        again.step("look around")
    assert pids() == []
    with engines.lend(None) as other:
        assert other.load(KIND, 0, EASY).answer.observation
    assert caplog.messages == []


def test_an_episode_that_is_given_up_takes_its_engine_along(engines):
    episode = object()

    def hang():
        with engines.lend(episode) as engine:
            engine.episode = episode
            engines.release(episode)
            engine.step("look around")

    with pytest.raises(EngineFailed):
        hang()
    assert pids() == []


def test_a_dead_engine_is_replaced_by_the_pool(engines):
    first, second = object(), object()
    with engines.lend(first) as engine:
        seen = engine.load(KIND, 0, EASY)
    (pid,) = pids()
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(EngineFailed), engines.lend(first) as engine:
        engine.step("look around")
    assert engines.running == 0
    with engines.lend(second) as engine:
        assert engine.episode is None
        assert engine.load(KIND, 0, EASY) == seen
    assert engines.running == 1


def test_an_error_between_two_calls_ends_the_engine(engines):
    with pytest.raises(KeyError), engines.lend(None):
        raise KeyError
    assert engines.running == 0
    assert pids() == []


def test_a_released_engine_serves_the_next_episode(engines):
    first, second = object(), object()
    with engines.lend(first) as engine:
        engine.episode = first
    engines.release(first)
    with engines.lend(second) as again:
        assert again is engine
    assert engines.running == 1


def fake_java(folder, text):
    (folder / "bin").mkdir()
    file = folder / "bin" / "java"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return str(folder)


def test_a_java_that_ignores_the_flag_is_refused(tmp_path, monkeypatch):
    real = shutil.which("java")
    drop = 'for a; do shift; [ "$a" = -XX:hashCode=2 ] || set -- "$@" "$a"; done'
    monkeypatch.setenv("JAVA_HOME", fake_java(tmp_path, f'{drop}; exec {real} "$@"'))
    with pytest.raises(UsageError, match="not deterministic"):
        Engine(300)


def test_a_java_that_refuses_the_flag_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", fake_java(tmp_path, "exit 1"))
    with pytest.raises(UsageError, match="Java 11"):
        Engine(300)


def test_a_java_that_says_nothing_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", fake_java(tmp_path, "exec sleep 1000"))
    with pytest.raises(EngineFailed, match="did not answer within 1 s"):
        Engine(1)


def test_without_java_the_benchmark_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(UsageError, match="default-jre-headless"):
        open_benchmark("scienceworld", {})


def test_more_episodes_than_engines_answer_as_alone():
    few, many = (open_benchmark("scienceworld", {"engines": n, "tasks": [KIND]}) for n in (1, 2))
    task, path = few.tasks("train")[1], few.gold(few.tasks("train")[1])
    answers = []
    for benchmark in (few, many):
        episodes = [benchmark.make() for _ in range(2)]
        openings = [episode.reset(task) for episode in episodes]
        steps = [
            [episode.step(Message("assistant", f"Action: {line}")) for episode in episodes]
            for line in path[:2]
        ]
        answers.append((openings, steps))
        for episode in episodes:
            episode.close()
    assert answers[0] == answers[1]
    assert (few.engines.running, many.engines.running) == (1, 2)


def test_gold_paths_are_answered_alike_by_two_engines():
    kinds = [KIND, "find-non-living-thing", "chemistry-mix-paint-secondary-color"]
    counts = verify(ScienceWorldOptions(tasks=kinds), 9)
    assert counts.episodes == counts.episodes_equal == counts.solved == counts.in_limit == 9
    assert counts.steps == counts.steps_equal > 45
