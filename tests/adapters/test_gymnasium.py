"""Gymnasium's environments, on the real package: text, actions, chance, forks, whole runs."""

import asyncio
import random
import sys

import pytest
from fakes import (
    ROLL_OUT,
    explore,
    finished_trees,
    fresh_journal,
    make_context,
    pairs_of,
)
from report_toys import steps_in_report

from rro.environments.base import Forkable
from rro.environments.registry import open_benchmark
from rro.episodes.loop import Limits, play_task
from rro.errors import RestoreError, UsageError
from rro.exploration.strategies.fixed_size import FixedSizeExploration
from rro.exploration.strategies.group import Group
from rro.learning.credit.group_advantages import GroupAdvantages
from rro.policies.scripted import ScriptedPolicy
from rro.types import Message, StopReason

gymnasium = pytest.importorskip("gymnasium")
LAKE = {"id": "FrozenLake-v1", "actions": ["left", "down", "right", "up"], "train_tasks": 3}
TAXI = {
    "id": "Taxi-v4",
    "actions": ["south", "north", "east", "west", "pick up", "drop off"],
    "train_tasks": 2,
    "reward_range": (-2000.0, 20.0),
}
OWN = '''
import time

import gymnasium
import numpy as np
import rro

class Dial(gymnasium.Env):
    """Turn a dial to a place in a box; a dictionary says where it is."""
    metadata = {"render_modes": []}
    observation_space = gymnasium.spaces.Dict({"place": gymnasium.spaces.Box(-9, 9, (1,))})
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = np.array([self.np_random.integers(3, 5)], np.float32)
        return {"place": self.place}, {}

    def step(self, action):
        if action[0] == 1:
            raise RuntimeError("stuck")
        self.place = self.place + action
        done = bool(abs(self.place[0]) < 0.1)
        return {"place": self.place}, 0.5, done, False, {"turned": float(action[0])}

class Clock(Dial):
    def step(self, action):
        observation, reward, done, truncated, info = super().step(action)
        return observation, reward, done, truncated, {**info, "seconds": time.perf_counter()}

class Broken(Dial):
    def reset(self, *, seed=None, options=None):
        raise RuntimeError("no power")

class Leaving(Dial):
    def step(self, action):
        raise SystemExit(3)

gymnasium.register("Dial-v0", Dial, max_episode_steps=6)
gymnasium.register("Clock-v0", Clock, max_episode_steps=6)
gymnasium.register("Broken-v0", Broken, max_episode_steps=6)
gymnasium.register("Leaving-v0", Leaving, max_episode_steps=6)

def turn(text, env):
    return np.array([float(text)], np.float32)

def say(observation, info, env):
    return f"at {observation['place'][0]:g}, turned {info.get('turned')}"
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "dial.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("dial", None)


def play(benchmark, answer, seed=0, task=0):
    policy = ScriptedPolicy(answer)
    return asyncio.run(
        play_task(
            benchmark,
            policy,
            benchmark.tasks("train")[task],
            params=ROLL_OUT,
            limits=Limits(benchmark.max_steps),
            seed=seed,
            environment_seed=seed,
        )
    )


def one_of(names):
    return lambda messages, rng: rng.choice(names)


def test_frozen_lake_by_name_and_rendering():
    benchmark = open_benchmark("gymnasium", {**LAKE, "arguments": {"is_slippery": False}})
    path = iter(["right", "Action: right", "I go Down!", "flop", "down or up", "down"])
    path = iter([*path, "DOWN", "so, right"])
    episode = play(benchmark, lambda messages, rng: next(path))
    assert (episode.reward, episode.stop) == (1.0, StopReason.TERMINAL)
    assert [step.invalid for step in episode.steps] == [False] * 3 + [True] * 2 + [False] * 3
    assert episode.opening[0].content.endswith("<red S>FFF\nFHFH\nFFFH\nHFFG")
    assert "HFF<red G>" in episode.steps[-1].observation
    assert episode.steps[3].observation == "not an action: choose one of left, down, right, up"


def test_taxi_gives_the_same_rewards_as_gymnasium_itself():
    benchmark = open_benchmark("gymnasium", TAXI)
    names = TAXI["actions"]
    for seed in range(3):
        episode = play(benchmark, one_of(names), seed, task=seed % 2)
        inner = gymnasium.make("Taxi-v4")
        inner.reset(seed=seed % 2)
        rewards = [inner.step(names.index(step.action.content))[1] for step in episode.steps]
        # The step that ends the episode carries its return.
        assert [step.reward for step in episode.steps[:-1]] == rewards[:-1]
        assert episode.reward == sum(rewards) < 0
        assert len(rewards) == benchmark.max_steps == 200


def test_the_task_decides_the_start_and_the_seed_the_chance():
    benchmark, names = open_benchmark("gymnasium", LAKE), LAKE["actions"]
    seen = [
        [step.observation for step in play(benchmark, lambda messages, rng: "right", seed).steps]
        for seed in (0, 0, 1, 2, 3)
    ]
    assert seen[0] == seen[1]
    assert any(other != seen[0] for other in seen[2:])
    taxi = open_benchmark("gymnasium", TAXI)
    openings = [
        play(taxi, one_of(names), seed, task).opening for seed, task in ((0, 0), (1, 0), (0, 1))
    ]
    assert openings[0] == openings[1] != openings[2]


def test_the_report_shows_its_trees_and_info(tmp_path):
    benchmark = open_benchmark("gymnasium", {**LAKE, "train_tasks": 1})
    policy = ScriptedPolicy(one_of(LAKE["actions"]))
    shown = steps_in_report(tmp_path / "run", benchmark, policy, Group(episodes=3))
    assert all("F" in step["observation"] for step in shown)
    assert {round(step["info"]["prob"], 3) for step in shown} == {0.333}


def test_copies_and_replay_give_the_same_trees(tmp_path):
    found, names = [], LAKE["actions"]
    for fork in ("replay", "copy"):
        benchmark = open_benchmark("gymnasium", {**LAKE, "fork": fork})
        assert isinstance(benchmark.make(), Forkable) == (fork == "copy")
        with fresh_journal(tmp_path, f"{fork}.jsonl") as journal:
            context = make_context(benchmark, ScriptedPolicy(one_of(names)), journal)
            strategy = FixedSizeExploration(3, 3)
            assert explore(strategy, context) == []
            trees = finished_trees(journal)
        found.append({key: pairs_of(strategy, tree) for key, tree in trees.items()})
    assert found[0] == found[1]
    assert any(found[0].values())


def test_a_group_needs_no_fork(tmp_path):
    benchmark = open_benchmark("gymnasium", {**LAKE, "arguments": {"is_slippery": False}})
    with fresh_journal(tmp_path) as journal:
        policy = ScriptedPolicy(lambda messages, rng: rng.choice(["right", "down"]))
        assert explore(Group(episodes=16), make_context(benchmark, policy, journal)) == []
        found = [list(GroupAdvantages().rows(tree)) for tree in finished_trees(journal).values()]
    assert {row.reward for rows in found for row in rows} == {0.0, 1.0}


def test_functions_of_the_user_map_what_is_no_text(own):
    options = {"id": "dial:Dial-v0", "act": "dial:turn", "observe": "dial:say", "fork": "copy"}
    benchmark = open_benchmark("gymnasium", {**options, "train_tasks": 1})
    texts = iter(["-1", "lots", "-1", "nan", "-2", "-1", "-1", "-1", "-1"])
    episode = play(benchmark, lambda messages, rng: next(texts))
    assert [step.invalid for step in episode.steps[:5]] == [False, True, False, True, True]
    assert episode.steps[0].observation.endswith("turned -1.0")
    assert episode.reward in (1.5, 2.0)
    outcome = open_benchmark("gymnasium", {**options, "outcome": "last"})
    assert play(outcome, lambda messages, rng: "-1").reward == 0.5


def test_what_it_raises_is_its_failure(own):
    options = {"id": "dial:Dial-v0", "act": "dial:turn", "train_tasks": 1}
    episode = play(open_benchmark("gymnasium", options), lambda messages, rng: "1")
    assert (episode.reward, episode.error) == (None, "RuntimeError: stuck")
    assert '{"place": [' in episode.opening[0].content


def test_an_environment_with_hidden_chance_is_found_out_on_replay(own, tmp_path, monkeypatch):
    benchmark = open_benchmark(
        "gymnasium", {"id": "dial:Dial-v0", "act": "dial:turn", "observe": "dial:say"}
    )
    import dial

    say, noise = dial.say, random.Random(0)
    monkeypatch.setattr(benchmark, "text", lambda *seen: f"{say(*seen)} {noise.random()}")
    with fresh_journal(tmp_path) as journal:
        context = make_context(benchmark, ScriptedPolicy(one_of(["-1", "0"])), journal)
        with pytest.raises(RestoreError, match="differs on replay"):
            explore(FixedSizeExploration(), context)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"id": "Texi-v4"}, "Gymnasium cannot make Texi-v4: "),
        ({"id": "Taxi-v4", "arguments": {"colour": 1}}, "cannot make Taxi-v4"),
        ({"id": "Pendulum-v1"}, "environment.options.act is missing: .* module:function"),
        ({"id": "Taxi-v4", "act": "nowhere:x"}, "function nowhere:x: No module named 'nowhere'"),
        ({"id": "Taxi-v4", "observe": "os:system"}, "function os:system is no plug-in"),
    ],
)
def test_what_does_not_fit_is_one_sentence(options, sentence):
    with pytest.raises(UsageError, match=sentence):
        open_benchmark("gymnasium", options)


def test_a_package_that_is_missing_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(UsageError, match=r"pip install 'rro\[gymnasium\]'"):
        open_benchmark("gymnasium", LAKE)


@pytest.mark.parametrize("text", ["", "\x00", "left right", "9" * 10_000, "Action:", "leftover"])
def test_what_is_no_action_changes_nothing(text):
    environment = open_benchmark("gymnasium", LAKE).make()
    environment.reset(open_benchmark("gymnasium", LAKE).tasks("train")[0])
    assert environment.step(Message("assistant", text)).invalid
    assert not environment.step(Message("assistant", "left")).invalid


def test_what_is_to_be_copied_may_tell_the_time_but_not_raise(own):
    options = {"act": "dial:turn", "observe": "dial:say", "fork": "copy"}
    assert open_benchmark("gymnasium", {**options, "id": "dial:Clock-v0"}).tasks("train")
    for name, reason in (("Broken", "no power"), ("Leaving", "SystemExit")):
        with pytest.raises(UsageError, match=f"{name}-v0 cannot be copied .*{reason}"):
            open_benchmark("gymnasium", {**options, "id": f"dial:{name}-v0"})
