"""Tool calls of served models: what is sent, what is read, and a whole episode by them."""

import asyncio
import json
from dataclasses import replace

import pytest
from bad_server import serving
from tool_toys import FAMILIES, TOOLS, asks, calls, result

from rro.environments.base import TaskList
from rro.environments.tools import ToolEnvironment
from rro.episodes.loop import Limits, play_task
from rro.errors import PolicyError
from rro.models.chat import ChatFormat
from rro.policies.api.backoff import TransientError
from rro.policies.api.dialects import Chat, SamplingRequest, VllmTokens
from rro.policies.api.endpoint import ServedModel
from rro.policies.api.opening import open_served
from rro.policies.api.settings import OpenAIConfig
from rro.tool_calls import tools_of
from rro.types import Message, SamplingParams, StepResult, Task

CALL = {"id": "call_1", "type": "function", "function": {"name": "run_sql", "arguments": "{}"}}


def request(*messages, tools=None):
    offered = tools_of(messages) if tools is None else tools
    return SamplingRequest(messages, 64, SamplingParams(), tools=offered)


def read(message, finish="tool_calls", tools=None):
    tree = {"choices": [{"finish_reason": finish, "message": message}]}
    (answer,) = Chat("m").read(tree, request(asks(), tools=tools)).answers
    return answer


def test_a_request_has_tools_calls_and_results_in_the_apis_form():
    call = calls(("run_sql", {"query": "SELECT 'é'"}))
    body = Chat("m").body(request(asks(), call, result(call, "3 rows"), Message("user", "And?")))
    assert body["tools"] == json.loads(TOOLS)
    question, called, answered, _ = body["messages"]
    assert question == {"role": "user", "content": asks().content}
    (sent,) = called["tool_calls"]
    assert json.loads(sent["function"]["arguments"]) == {"query": "SELECT 'é'"}
    assert called["content"] is None
    assert answered == {"role": "tool", "content": "3 rows", "tool_call_id": sent["id"]}
    broken = calls(("run_sql", "{oops"), source="policy")
    (sent,) = Chat("m").body(request(asks(), broken))["messages"][1]["tool_calls"]
    assert json.loads(sent["function"]["arguments"]) == {"invalid": "{oops"}
    assert "tools" not in Chat("m").body(request(Message("user", "x")))


@pytest.mark.parametrize("content", [None, "", "I look it up."])
@pytest.mark.parametrize("finish", ["tool_calls", "stop"])
def test_a_servers_calls_are_the_action(content, finish):
    other = {"function": {"name": "run_sql", "arguments": {"query": "x"}}, "id": "call_1"}
    answer = read({"role": "assistant", "content": content, "tool_calls": [CALL, other]}, finish)
    assert (answer.text, answer.finish) == (content or "", "stop")
    first, second = answer.calls
    assert (first.id, first.values(), second.values()) == ("call_1", {}, {"query": "x"})
    assert second.id != first.id


def test_what_is_no_call_is_no_action():
    for message in (
        {"content": None, "reasoning_content": "hm"},
        {"content": "", "tool_calls": []},
        {"content": None, "refusal": "no"},
        {"content": "x", "function_call": {"name": "run_sql"}},
    ):
        with pytest.raises(PolicyError):
            read(message, "stop")
    others = (True, 7, 0.5)
    for wrong in ("run_sql", [1], [{"id": "a"}], [{"function": "f"}], {"a": 1}, *others):
        with pytest.raises(TransientError, match="tool calls without a function"):
            read({"content": None, "tool_calls": wrong})
    with pytest.raises(PolicyError, match="tool calls"):
        read({"content": None, "tool_calls": [CALL]}, "stop", tools=[])


@pytest.mark.parametrize(
    ("function", "name"),
    [
        ({"name": "run_sql", "arguments": "{oops"}, "run_sql"),
        ({"name": "run_sql", "arguments": None}, "run_sql"),
        ({"name": "run_sql", "arguments": 7}, "run_sql"),
        ({"name": "a<|im_end|>", "arguments": "{}"}, "invalid"),
        ({"name": None}, "invalid"),
        ({"arguments": "{}"}, "invalid"),
    ],
)
def test_odd_calls_are_kept_for_the_environment_to_answer(function, name):
    (call,) = read({"content": None, "tool_calls": [{"function": function}]}).calls
    assert call.name == name
    assert len(call.id) == 9


def test_calls_are_read_from_a_servers_token_ids():
    tokenizer = FAMILIES["qwen2.5"]
    chat = ChatFormat(tokenizer)
    written = '<tool_call>\n{"name": "run_sql", "arguments": {"query": "x"}}\n</tool_call>'
    ids = [*tokenizer.encode(written, add_special_tokens=False), chat.end_of_turn]
    tree = {"choices": [{"finish_reason": "stop", "token_ids": ids}]}
    asked = replace(request(asks()), prompt=[1])
    (answer,) = VllmTokens("m", chat).read(tree, asked).answers
    assert answer.ids == tuple(ids)
    (answer,) = VllmTokens("m", chat).read(tree, replace(asked, tools=())).answers
    assert answer.ids == ()


class Lookup(ToolEnvironment):
    """Look two words up, then say the sum of their lengths."""

    def reset(self, task, seed):
        return [Message("user", task.data)]

    def tools(self):
        return (self.length, self.answer)

    def length(self, word: str) -> str:
        """The length of a word.

        Args:
            word: The word.
        """
        return str(len(word))

    def answer(self, number: int) -> StepResult:
        """Give the answer.

        Args:
            number: The number.
        """
        return StepResult("Thanks.", float(number == 7), done=True)


def agent(body):
    """Calls both words' lengths at once, then answers with the sum of the results."""
    results = [message["content"] for message in body["messages"] if message["role"] == "tool"]
    if not results:
        words = body["messages"][0]["content"].split()
        made = [("length", {"word": word}) for word in words]
    else:
        made = [("answer", {"number": sum(map(int, results))})]
    given = [
        {"id": f"c{n}", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for n, (name, arguments) in enumerate(made)
    ]
    return {"role": "assistant", "content": None, "tool_calls": given}


def test_an_episode_by_parallel_calls_of_a_served_model():
    benchmark = TaskList("lookup", Lookup, {"train": [Task("t", "red blue")]})
    with serving(calls=agent) as server:
        settings = OpenAIConfig(base_url=server.base_url, retries=1)
        policy = open_served(settings, ServedModel("walker"), "run/base", None)

        async def body():
            try:
                return await play_task(
                    benchmark,
                    policy,
                    benchmark.tasks("train")[0],
                    params=SamplingParams(),
                    limits=Limits(),
                    seed=1,
                    environment_seed=0,
                )
            finally:
                await policy.close()

        episode = asyncio.run(body())
    assert episode.reward == 1.0
    first, second = episode.steps
    assert first.results == ("3", "4")
    assert [message.role for message in episode.messages()] == [
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
    ]
    assert second.action.tool_calls[0].values() == {"number": 7}
    assert episode.usage.environment_steps == 2


def test_a_call_that_the_server_took_for_text_is_read():
    """llama.cpp's server leaves the calls of Qwen2.5-Coder-0.5B, JSON in a fence, in the text."""
    written = 'Yes.\n```json\n{"name": "run_sql", "arguments": {"query": "SELECT 1"}}\n```'
    answer = read({"role": "assistant", "content": written}, "stop")
    assert [(call.name, call.values()) for call in answer.calls] == [
        ("run_sql", {"query": "SELECT 1"})
    ]
    assert answer.text == "Yes."
    other = written.replace("run_sql", "drop")
    assert read({"role": "assistant", "content": other}, "stop").calls == ()


def test_a_servers_thought_is_kept_where_no_history_holds_it():
    """By either of the two names that servers have for it; and alone, where the answer was cut."""
    for name in ("reasoning_content", "reasoning"):
        said = {"role": "assistant", "content": "yes", name: "why"}
        tree = {"choices": [{"finish_reason": "stop", "message": said}]}
        question = request(Message("user", "q"))
        [kept] = Chat("m", thoughts=True).read(tree, question).answers
        assert (kept.text, kept.thought) == ("yes", "why")
        [plain] = Chat("m").read(tree, question).answers
        assert (plain.text, plain.thought) == ("yes", "")
        tree["choices"][0] = {"finish_reason": "length", "message": {**said, "content": ""}}
        [cut] = Chat("m", thoughts=True).read(tree, question).answers
        assert (cut.text, cut.thought, cut.finish) == ("", "why", "length")
        with pytest.raises(PolicyError, match="no text"):
            Chat("m").read(tree, question)
    earlier = Message("assistant", "yes", thought="why")
    body = Chat("m").body(request(Message("user", "q"), earlier, Message("user", "r")))
    assert body["messages"][1] == {"role": "assistant", "content": "yes"}
