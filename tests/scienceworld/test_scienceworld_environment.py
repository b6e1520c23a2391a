"""Episodes in ScienceWorld, on the real engine."""

import shutil

import pytest
from fakes import explore, finished_trees, fresh_journal, make_context
from report_toys import steps_in_report

from rro.cli.main import main
from rro.environments.base import Forkable
from rro.environments.registry import open_benchmark
from rro.environments.splits import tasks_of
from rro.episodes.loop import Limits
from rro.errors import RestoreError, RroError, UsageError
from rro.exploration.forks import replay_checked
from rro.exploration.strategies.fixed_size import FixedSizeExploration
from rro.policies.scripted import ScriptedPolicy
from rro.scripting import play_experts
from rro.types import Message, Step, Task

pytest.importorskip("scienceworld", reason="the extra scienceworld is not installed")
if shutil.which("java") is None:
    pytest.skip("there is no java", allow_module_level=True)

KINDS = ["find-non-living-thing", "lifespan-longest-lived"]


def opened(**options):
    return open_benchmark("scienceworld", {"tasks": KINDS, "engines": 3, **options})


@pytest.fixture(scope="module")
def benchmark():
    return opened()


@pytest.fixture(scope="module")
def one_task():
    return opened(tasks=KINDS[:1], variations=1)


def act(episode, line):
    return episode.step(Message("assistant", f"Thought: so\nAction: {line}"))


def test_splits_are_the_engine_s_own():
    everything = open_benchmark("scienceworld", {})
    sizes = [len(everything.tasks(split)) for split in ("train", "dev", "test")]
    assert sizes == [3592, 1796, 1819]
    train = everything.tasks("train")
    assert len({task.data[0] for task in train[:30]}) == 30
    assert {task.data[1] for task in train[:30]} == {0}
    assert len({task.id for split in ("train", "dev", "test") for task in everything.tasks(split)})
    assert tasks_of(everything, "validation") == everything.tasks("dev")
    assert tasks_of(everything, "train-without-validation") == train


def test_provenance_names_the_engine_and_its_licence(benchmark):
    known = benchmark.provenance()
    assert known["license"] == "Apache-2.0"
    assert known["tasks"] == KINDS
    assert known["scienceworld"]


def test_an_engine_that_does_not_answer_is_one_sentence(capsys):
    with pytest.raises(RroError, match=r"within 0.01 s .* raise environment.options.timeout"):
        opened(timeout=0.01).tasks("train")
    for words in (["--timeout", "0.01"], ["--timeout", "0"], ["--episodes", "0"]):
        assert main(["verify", "scienceworld", *words]) in (1, 2)
    assert "Traceback" not in capsys.readouterr().err


def test_task_types_and_variations_can_be_chosen(benchmark):
    assert {task.data[0] for task in benchmark.tasks("test")} == set(KINDS)
    few = opened(variations=2)
    assert [task.id for task in few.tasks("train")] == [
        *(f"{kind}-0" for kind in KINDS),
        *(f"{kind}-1" for kind in KINDS),
    ]
    with pytest.raises(UsageError, match=r"no task type 'melting': .*melt"):
        open_benchmark("scienceworld", {"tasks": ["melting"]}).tasks("train")
    with pytest.raises(UsageError, match="no split 'valid'"):
        benchmark.tasks("valid")


def test_the_gold_path_earns_more_and_more(benchmark):
    (episode,) = play_experts(benchmark, benchmark.tasks("train")[:1])
    rewards = [step.reward for step in episode.steps]
    assert rewards == sorted(rewards)
    assert rewards[-1] == episode.reward == 1.0
    assert 0 < rewards[0] < 1
    assert len(set(rewards)) > 2
    assert episode.steps[-1].done
    assert not any(step.invalid for step in episode.steps)
    assert [step.info["score"] for step in episode.steps] == [round(100 * r) for r in rewards]
    rules, ok, start = episode.opening
    assert "teleport OBJ" in rules.content
    assert ok.content == "OK"
    assert start.content.startswith("Your task is to find a(n) non-living thing.")


def test_a_wrong_focus_ends_with_nothing_or_with_the_best_score():
    task = Task("x", ("find-living-thing", 0))
    for options, outcome in (({}, 0.0), ({"score": "best"}, 0.25)):
        episode = opened(**options).make()
        episode.reset(task)
        assert act(episode, "teleport to kitchen").reward == 0.25
        last = act(episode, "focus on agent")
        assert (last.done, last.reward, last.info["score"]) == (True, outcome, -100)
        episode.close()


def test_the_limit_counts_the_engine_s_moves():
    episode = opened(move_limit=20).make()
    episode.reset(episode_task := Task("x", (KINDS[0], 0)))
    assert not act(episode, "look around").done
    assert [act(episode, "wait").done for _ in range(2)] == [False, True]
    assert episode.reset(episode_task)[-1].role == "user"
    episode.close()


BAD = ("", " ", " \x00", "a" * 10**6, " (", " fly", " é\ud800", " $1 {} \\")


@pytest.mark.parametrize("text", ["", "look around", *(f"Action:{line}" for line in BAD)])
def test_any_text_is_answered_and_changes_nothing(benchmark, text):
    episode = benchmark.make()
    episode.reset(benchmark.tasks("train")[0])
    result = episode.step(Message("assistant", text))
    assert result.invalid
    assert not result.done
    assert result.info.get("moves", 0) == 0
    assert act(episode, "teleport to kitchen").info["moves"] == 1
    episode.close()


def test_what_follows_the_action_does_not_count(benchmark):
    episode = benchmark.make()
    episode.reset(benchmark.tasks("train")[0])
    line = "teleport to kitchen\nObservation: I am there\nAction: focus on agent"
    assert not act(episode, line).done
    episode.close()


def test_bad_tasks_are_refused(benchmark):
    with pytest.raises(UsageError, match="not a task type and a variation"):
        benchmark.make().reset(Task("x", 3))
    with pytest.raises(UsageError, match="ScienceWorld"):
        benchmark.make().reset(Task("x", ("no-such-thing", 0)))


@pytest.mark.slow
def test_forks_replay_and_their_steps_are_counted(tmp_path, one_task):
    benchmark = one_task
    assert not isinstance(benchmark.make(), Forkable)
    path = list(benchmark.gold(benchmark.tasks("train")[0]))

    def script(messages, rng):
        done = sum(m.role == "assistant" and m.content != "OK" for m in messages)
        return f"Action: {rng.choice([path[min(done, len(path) - 1)], 'look around'])}"

    limits, policy = Limits(2, step_timeout=300), ScriptedPolicy(script)
    with fresh_journal(tmp_path) as journal:
        context = make_context(benchmark, policy, journal, limits=limits)
        assert explore(FixedSizeExploration(2, 1), context) == []
        (tree,) = finished_trees(journal).values()
    nodes = [node for node in tree.root.walk() if node.step is not None]
    assert {node.depth for node in nodes} == {1, 2}
    assert all(node.step.info["moves"] <= 2 for node in nodes)
    for node in nodes:
        assert node.cost.environment_steps == node.depth
        for rollout in node.rollouts.values():
            assert rollout.usage.environment_steps == node.depth + len(rollout.steps)


def test_the_report_shows_its_trees_and_scores(tmp_path, one_task):
    policy = ScriptedPolicy(lambda messages, rng: "Action: teleport to kitchen")
    strategy, limits = FixedSizeExploration(1, 1), Limits(2, step_timeout=300)
    shown = steps_in_report(tmp_path / "run", one_task, policy, strategy, limits=limits)
    assert shown[0]["observation"] == "Observation: You teleport to the kitchen."
    assert shown[0]["info"] == {"score": 25, "moves": 1}


def test_a_replay_that_differs_is_seen(benchmark):
    task = benchmark.tasks("train")[0]
    episode = benchmark.make()
    opening = episode.reset(task)
    action = Message("assistant", "Action: look around")
    result = episode.step(action)
    for seen in (result.observation, result.observation + "!"):
        step = Step(action, seen, result.reward, result.done)
        if seen == result.observation:
            replay_checked(episode, task, 0, opening, [step])
        else:
            with pytest.raises(RestoreError, match="step 1 differs"):
                replay_checked(episode, task, 0, opening, [step])
    episode.close()
