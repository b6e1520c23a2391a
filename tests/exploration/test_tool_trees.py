"""Trees whose steps call tools, several at once: forked, journalled, and made into rows as those of
text are."""

import asyncio

import pytest
from fakes import fresh_journal, make_context

from rro.environments.base import TaskList
from rro.environments.tools import ToolEnvironment
from rro.exploration import explorer
from rro.exploration.records import read_tree
from rro.exploration.strategies.group import Group
from rro.exploration.strategies.rising import RisingExploration
from rro.learning.credit.group_advantages import GroupAdvantages
from rro.policies.scripted import ScriptedPolicy
from rro.runs.progress import Progress
from rro.tool_calls import tool_calls
from rro.types import Message, StepResult, Task


class Climb(ToolEnvironment):
    """Three steps; each may go up several times at once."""

    def reset(self, task, seed):
        self.height, self.turns = 0, 0
        return [Message("user", "Climb.")]

    def tools(self):
        return (self.up,)

    def up(self, by: int) -> StepResult:
        """Go up.

        Args:
            by: How far.
        """
        self.height += by
        return StepResult(f"at {self.height}")

    def step(self, action):
        self.turns += 1
        result = super().step(action)
        done = self.turns == 3
        reward = min(1.0, self.height / 9) if done else 0.0
        return StepResult(result.observation, reward, done, result.invalid, results=result.results)


class Forked(Climb):
    def snapshot(self):
        return self.height, self.turns

    def restore(self, snapshot):
        self.height, self.turns = snapshot


def climber(messages, rng):
    """Two calls, one, or none at all."""
    count = rng.choice((0, 1, 2, 2))
    calls = tool_calls([("up", {"by": rng.randint(0, 3)}, None) for _ in range(count)])
    return Message("assistant", "up", tool_calls=calls)


def explored(tmp_path, environment, strategy):
    benchmark = TaskList("climb", environment, {"train": [Task(f"t{n}") for n in range(6)]})
    live = {}
    with fresh_journal(tmp_path) as journal:
        policy = ScriptedPolicy(climber, "climber")
        context = make_context(benchmark, policy, journal, retries=0)
        with Progress("explore", None, "tasks") as progress:
            work = explorer.explore(
                benchmark.tasks("train"),
                strategy,
                context,
                4,
                progress,
                lambda tree: live.update({context.key(tree.task): tree}),
            )
            asyncio.run(work)
        return live, {key: read_tree(journal, key, tree.task) for key, tree in live.items()}


@pytest.mark.parametrize("environment", [Climb, Forked])
def test_trees_with_parallel_calls_are_read_back(tmp_path, environment):
    live, read = explored(tmp_path, environment, RisingExploration(2, 3))
    assert len(live) == 6
    parallel = 0
    for key, tree in live.items():
        nodes = list(tree.root.walk())
        again = list(read[key].root.walk())
        assert [node.history() for node in again] == [node.history() for node in nodes]
        assert [node.estimate for node in again] == [node.estimate for node in nodes]
        for node in nodes[1:]:
            replies = node.step.replies()
            calls = node.action.tool_calls
            assert [reply.role for reply in replies] == ["tool"] * len(calls) or ["user"]
            assert len(replies) == max(1, len(calls))
            parallel += len(calls) > 1
    assert parallel


@pytest.mark.parametrize("environment", [Climb, Forked])
def test_each_action_of_an_episode_has_its_advantage(tmp_path, environment):
    _, read = explored(tmp_path, environment, Group(4))
    rows = [row for tree in read.values() for row in GroupAdvantages().rows(tree)]
    assert len(rows) >= 24
    for row in rows:
        assert len(row.messages) == len(row.advantages)
        for message, advantage in zip(row.messages, row.advantages, strict=True):
            assert (advantage is None) == (message.role != "assistant")
    assert any(message.role == "tool" for row in rows for message in row.messages)
