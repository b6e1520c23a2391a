"""Classes for TRL's `environment_factory` as environments of rro's. The class is checked with TRL's
own trainer's rules where TRL would use it."""

import asyncio
import json
import sys

import pytest
from fakes import ROLL_OUT, explore, fresh_journal, make_context
from report_toys import steps_in_report

from rro.environments import contract
from rro.environments.registry import open_benchmark
from rro.episodes.loop import Limits, play_task
from rro.errors import DataError, UsageError
from rro.exploration.strategies.fixed_size import FixedSizeExploration
from rro.tool_calls import tool_calls, tools_of
from rro.types import Completion, Message, Source

# As in TRL's documentation.
CLASS = '''
import rro

class Increment:
    def reset(self, start=0, **row):
        self.counter = start
        return f" It is {start}."

    def increment(self, step: int) -> int:
        """
        Increment the internal counter.

        Args:
            step: Value to add to the counter.

        Returns:
            The updated counter value.
        """
        self.counter += step
        if step > 99:
            raise ValueError("too far")
        return self.counter

    async def look(self) -> str:
        """
        Look at the counter.

        Returns:
            Its value.
        """
        return f"it is {self.counter}"

    def get_reward(self):
        return None if self.counter < 0 else min(self.counter / 10, 1.0)

class Odd(Increment):
    def give(self, what: str) -> object:
        """
        Give something odd.

        Args:
            what: Which.

        Returns:
            It.
        """
        blocks = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
        return {"none": None, "pairs": {(1, 2): "x"}, "blocks": blocks, "list": [1, "x"]}[what]

class Waiting(Increment):
    async def reset(self, start=0, **row):
        return super().reset(start)

    async def get_reward(self):
        return super().get_reward()

class Bare:
    def reset(self):
        pass

    def get_reward(self):
        return 0.0
'''


class Calls:
    """A policy of tool calls that are planned."""

    name = "calls"

    def __init__(self, plan):
        self.plan = plan

    async def sample(self, messages, n, params, seed):
        turn = sum(message.role == "assistant" for message in messages)
        calls, text = self.plan[min(turn, len(self.plan) - 1)]
        made = tool_calls((name, arguments, None) for name, arguments in calls)
        message = Message("assistant", text, Source.POLICY, None, made)
        return [Completion(message, "stop", self.name)] * n


@pytest.fixture
def rows(tmp_path, monkeypatch):
    (tmp_path / "increment.py").write_text(CLASS)
    monkeypatch.syspath_prepend(str(tmp_path))
    messages = [
        {"role": "system", "content": "Count."},
        {"role": "user", "content": "Count to ten."},
    ]
    lines = [{"prompt": messages, "start": 4}, {"prompt": "Count.", "start": 0}, {"start": 9}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    yield tmp_path / "rows.jsonl"
    sys.modules.pop("increment", None)


def opened(rows, **options):
    return open_benchmark("trl", {"factory": "increment:Increment", "rows": rows, **options})


def play(benchmark, plan, task=0):
    return asyncio.run(
        play_task(
            benchmark,
            Calls(plan),
            benchmark.tasks("train")[task],
            params=ROLL_OUT,
            limits=Limits(benchmark.max_steps),
            seed=0,
            environment_seed=0,
        )
    )


def test_an_episode_as_trl_would_play_it(rows):
    benchmark = opened(rows, test_tasks=1)
    assert [len(benchmark.tasks(split)) for split in ("train", "test")] == [2, 1]
    plan = [
        ([("increment", '{"step": 3}'), ("look", "{}")], ""),
        ([("increment", '{"step": "three"}')], ""),
        ([("increment", '{"step": 100}')], ""),
        ([("increment", '{"step": -99}')], ""),
        ([], "It is ten."),
    ]
    episode = play(benchmark, plan)
    assert [message.content for message in episode.opening] == ["Count.", "Count to ten. It is 4."]
    assert episode.steps[0].observation == "7\nit is 7"
    assert [step.invalid for step in episode.steps] == [False, True, True, False, False]
    assert episode.steps[2].observation == "{'error': 'too far'}"
    assert (episode.reward, len(episode.steps)) == (0.8, 5)
    names = [schema["function"]["name"] for schema in tools_of(episode.opening)]
    assert names == ["increment", "look"]


def test_an_episode_that_is_cut_off_is_scored_and_one_without_reward_is_missing(rows):
    benchmark = opened(rows, max_steps=2)
    assert play(benchmark, [([("look", "{}")], "")]).reward == 0.4
    missing = play(benchmark, [([("increment", '{"step": -9}')], ""), ([], "done")])
    assert (missing.reward, missing.error) == (
        None,
        "ValueError: get_reward gave None: the outcome is missing",
    )


def test_every_method_may_be_a_coroutine(rows):
    plan = [([("increment", '{"step": 3}'), ("look", "{}")], ""), ([], "done")]
    kinds = "increment:Increment", "increment:Waiting"
    plain, waiting = (play(opened(rows, factory=kind), plan) for kind in kinds)
    assert (waiting.opening, waiting.steps, waiting.reward) == (plain.opening, plain.steps, 0.7)


def test_it_is_forked_by_replay(rows, tmp_path):
    benchmark = opened(rows, max_steps=3)
    plan = [([("increment", '{"step": 1}')], ""), ([("look", "{}")], ""), ([], "done")]
    with fresh_journal(tmp_path) as journal:
        assert explore(FixedSizeExploration(), make_context(benchmark, Calls(plan), journal)) == []


def test_the_report_shows_its_calls(rows, tmp_path):
    benchmark = opened(rows, max_steps=3)
    plan = [([("increment", '{"step": 1}'), ("look", "{}")], ""), ([], "done")]
    shown = steps_in_report(tmp_path / "run", benchmark, Calls(plan), FixedSizeExploration(2, 1))
    assert shown[0]["action"] == 'increment({"step": 1})\nlook({})'
    assert {step["observation"] for step in shown} == {
        "5\nit is 5",
        "1\nit is 1",
        "10\nit is 10",
        "",
    }


def test_a_row_without_a_prompt_is_what_reset_says(rows):
    benchmark = opened(rows)
    (message,) = contract.reset(benchmark.make(), benchmark.tasks("train")[2], 0)
    assert message.content == " It is 9."


@pytest.mark.parametrize(
    ("factory", "sentence"),
    [
        ("", "environment.options.factory is missing"),
        ("increment:Bare", "Bare has no public method to be a tool"),
        ("increment:rro", "is a module: name a class or a function"),
        ("increment:Nothing", "increment:Nothing: .*no attribute"),
    ],
)
def test_what_is_no_class_of_trls_kind_is_one_sentence(rows, factory, sentence):
    with pytest.raises(UsageError, match=sentence):
        open_benchmark("trl", {"factory": factory})


@pytest.mark.parametrize(
    "prompt", [3, [], [{"role": "assistant", "content": "x"}], [{"role": "user"}]]
)
def test_a_bad_prompt_names_its_line(rows, prompt):
    rows.write_text('{"prompt": "x"}\n' + json.dumps({"prompt": prompt}) + "\n")
    with pytest.raises(DataError, match=r"rows\.jsonl, line 2: prompt is neither"):
        opened(rows)


@pytest.mark.parametrize(
    ("what", "told"),
    [("none", "None"), ("pairs", "{(1, 2): 'x'}"), ("blocks", "ab"), ("list", "[1, 'x']")],
)
def test_results_are_told_as_trl_tells_them(rows, what, told):
    odd = opened(rows, factory="increment:Odd")
    episode = play(odd, [([("give", json.dumps({"what": what}))], ""), ([], "done")])
    assert episode.steps[0].observation == told
