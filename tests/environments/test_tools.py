"""Tools of an environment: schemas from typed functions, and calls that are carried out or
answered."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from rro.environments import contract
from rro.environments.tools import ToolEnvironment, carry_out, declare
from rro.errors import UsageError
from rro.tool_calls import tool_calls, tools_of
from rro.types import Message, StepResult, Task


class Counter(ToolEnvironment):
    """Count to the goal, then stop."""

    def reset(self, task, seed):
        self.count, self.goal = 0, task.data
        return [Message("user", f"Count to {task.data}.")]

    def tools(self):
        return (self.add, self.stop)

    def add(self, amount: int, label: str = "") -> str:
        """Add to the counter.

        Args:
            amount: How much.
            label: What to say.
        """
        self.count += amount
        return f"{label}{self.count}"

    def stop(self) -> StepResult:
        """Stop here."""
        return StepResult("Stopped.", float(self.count == self.goal), done=True)


def start(goal=3):
    environment = Counter()
    opening = contract.reset(environment, Task("t", goal), 0)
    return environment, opening


def act(environment, *given):
    made = tool_calls((name, arguments, None) for name, arguments in given)
    return contract.step(environment, Message("assistant", "", tool_calls=made))


def test_the_first_message_has_the_schemas_of_the_tools():
    _, opening = start()
    names = [schema["function"]["name"] for schema in tools_of(opening)]
    assert names == ["add", "stop"]
    add = tools_of(opening)[0]["function"]
    assert add["description"] == "Add to the counter."
    assert add["parameters"]["required"] == ["amount"]
    assert add["parameters"]["properties"]["amount"] == {
        "type": "integer",
        "description": "How much.",
    }


def test_calls_are_carried_out_and_answered():
    environment, _ = start()
    step = act(environment, ("add", '{"amount": 3, "label": "now "}'))
    assert (step.observation, step.invalid, step.results) == ("now 3", False, ())
    (reply,) = step.replies()
    assert (reply.role, reply.name, reply.content) == ("tool", "add", "now 3")
    assert reply.tool_call_id == step.action.tool_calls[0].id
    end = act(environment, ("stop", None))
    assert (end.reward, end.done) == (1.0, True)


def test_parallel_calls_are_one_step_with_a_result_each():
    environment, _ = start()
    step = act(environment, ("add", {"amount": 1}), ("nothing", {}), ("add", {"amount": 2}))
    assert step.results[0] == "1"
    assert step.results[2] == "3"
    assert step.results[1].startswith("Error: there is no tool 'nothing'")
    assert step.invalid
    assert not step.done
    replies = step.replies()
    assert [reply.content for reply in replies] == list(step.results)
    assert len({reply.tool_call_id for reply in replies}) == 3
    end = act(environment, ("stop", {}), ("add", {"amount": 5}))
    assert (end.done, end.reward, environment.count) == (True, 1.0, 3)
    assert end.results[1] == "Not run: the episode has ended."


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("add", "{}", "amount: field required"),
        ("add", '{"amount": "many"}', "amount: input should be a valid integer"),
        ("add", '{"amount": 1, "label": {"a": [1]}}', "label: input should be a valid string"),
        ("add", '{"amount": 1, "more": 1}', "more: extra inputs are not permitted"),
        ("add", '{"amount": NaN}', "not a valid JSON object"),
        ("add", '{"amount": 1e999}', "not a valid JSON object"),
        ("add", '{"amount": ' + "9" * 5000 + "}", "not a valid JSON object"),
        ("add", "[1]", "not a valid JSON object"),
        ("add", "{" * 100_000, "not a valid JSON object"),
        ("add", '{"amount": 1.5}', "valid integer"),
        ("Add", "{}", "there is no tool 'Add'. Call one of these: add, stop."),
        ("add<|im_end|>", "{}", "could not be read"),
        ("__init__", "{}", "there is no tool"),
        (None, "{}", "could not be read"),
    ],
)
def test_a_bad_call_is_an_invalid_action_that_changes_nothing(name, arguments, reason):
    environment, _ = start()
    step = act(environment, (name, arguments))
    assert step.invalid
    assert reason in step.observation
    assert not step.done
    assert environment.count == 0
    assert len(step.observation) < 400


def test_a_message_without_a_call_is_answered_by_the_user():
    environment, _ = start()
    step = contract.step(environment, Message("assistant", "I count."))
    assert step.invalid
    assert step.replies()[0].role == "user"
    assert "add, stop" in step.observation


def test_a_numeral_is_a_number_where_the_schema_wants_one():
    environment, _ = start()
    assert act(environment, ("add", '{"amount": "2"}')).observation == "2"


def test_an_environment_that_knows_no_tools_answers_the_first_call():
    class Plain(Counter):
        def step(self, action):
            return StepResult("seen")

    step = act(Plain(), ("a", {}), ("b", {}))
    assert step.results == ("seen", "")

    class Wrong(Counter):
        def step(self, action):
            return StepResult("seen", results=("one",))

    with pytest.raises(UsageError, match="one result, a str, for each of the 2 tool calls"):
        act(Wrong(), ("a", {}), ("b", {}))


def test_tools_that_no_schema_can_express_are_refused():
    def untyped(a):
        """Do it.

        Args:
            a: What.
        """

    def undocumented(a: int) -> str:
        return ""

    def starred(*a: int) -> str:
        """Do it."""

    for tool in (untyped, undocumented, starred):
        with pytest.raises(UsageError, match=tool.__name__):
            declare([tool])
    with pytest.raises(UsageError, match="the same name"):
        declare([Counter().add, Counter().add])
    with pytest.raises(UsageError, match="a tool must be"):
        declare([{"name": "flat"}])


def test_schemas_may_be_given_as_they_are():
    schema = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    assert json.loads(declare([schema])) == [schema]
    assert declare([]) == ""


def test_an_error_of_the_tool_is_the_environments():
    def broken() -> str:
        """Fail."""
        raise RuntimeError("disk")

    made = tool_calls([("broken", {}, None)])
    with pytest.raises(RuntimeError, match="disk"):
        carry_out([broken], replace(Message("assistant", ""), tool_calls=made))


def test_the_pages_example_works():
    page = (Path(__file__).parents[2] / "docs" / "tools.md").read_text(encoding="utf-8")
    code, names = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1], {"__name__": "page"}
    exec(compile(code, "tools.md", "exec"), names)
    benchmark = names["counter"]()
    environment, task = benchmark.make(), benchmark.tasks("train")[1]
    opening = contract.reset(environment, task, 0)
    assert [tool["function"]["name"] for tool in tools_of(opening)] == ["add", "stop"]
    assert act(environment, ("add", {"amount": task.data})).observation == (
        f"The counter is at {task.data}."
    )
    assert act(environment, ("stop", {})).reward == 1.0


def test_a_tool_may_be_a_coroutine_function():
    async def later(word: str) -> str:
        """Say it later.

        Args:
            word (str): What to say,
                in one word.

        Returns:
            The word.
        """
        return word

    (schema,) = json.loads(declare([later]))
    properties = schema["function"]["parameters"]["properties"]
    assert properties["word"]["description"] == "What to say, in one word."
    made = tool_calls([("later", {"word": "now"}, None)])
    result = carry_out([later], replace(Message("assistant", ""), tool_calls=made))
    assert result.observation == "now"
