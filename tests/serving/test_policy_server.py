"""A policy behind an OpenAI-compatible address, asked by OpenAI's own client."""

import asyncio
import json
from dataclasses import replace

import pytest
from served import TOOLS, adder, ask, client_of, echo
from tiny_model import WORDS, make_tiny

from rro.errors import UsageError
from rro.policies.local.policy import TransformersPolicy
from rro.policies.scripted import ScriptedPolicy
from rro.serving.conversations import read_recorded
from rro.serving.credit import group_rows
from rro.serving.server import PolicyServer, ServerLimits, append_to, count_calls
from rro.types import SamplingParams


def agent(client, question):
    """A small agent with a tool, written as for any endpoint of this kind."""
    messages = [{"role": "user", "content": question}]
    while True:
        answer = client.chat.completions.create(model="m", messages=messages, tools=TOOLS)
        said = answer.choices[0].message
        messages.append(said)
        if not said.tool_calls:
            return said.content
        for call in said.tool_calls:
            values = json.loads(call.function.arguments)
            content = str(values["a"] + values["b"])
            messages.append({"role": "tool", "tool_call_id": call.id, "content": content})


def test_an_agent_with_tools_is_answered_and_its_calls_are_one_conversation(served):
    server, client = served(adder, "sum/0")
    assert agent(client, "2 + 3?") == "it is 5"
    (conversation,) = server.conversations.take().values()
    assert conversation.id == "sum/0"
    first, second = conversation.calls
    assert second.continues(first)
    assert second.messages[1] is first.answer
    assert conversation.threads() == [second]


def test_a_conversation_is_named_by_address_header_or_user_or_known_by_its_messages(served):
    server, client = served()
    ask(client_of(server, "by/address"), "x")
    ask(client, "x", extra_headers={"X-Conversation-Id": "header"})
    ask(client, "x", user="user")
    said = ask(client, "x").choices[0].message.content
    ask(client, "x", said, "more")
    again = ask(client, "x").choices[0].message.content
    ask(client, "x", again, "more")
    calls = {name: len(c.calls) for name, c in server.conversations.take().items()}
    unnamed = [name for name in calls if name.startswith("unnamed-")]
    assert [calls.pop(name) for name in unnamed] == [2, 2]
    assert calls == {"by/address": 1, "header": 1, "user": 1}


@pytest.mark.parametrize("name", ["what?/0", "a#b", "a%2Fb", "task 1/ä", "a..b"])
def test_a_conversation_has_the_name_that_its_address_was_made_of(served, name):
    server, client = served(name=name)
    ask(client, "hello")
    assert [*server.conversations.take()] == [name]


@pytest.mark.parametrize("name", ["../x", "a/./b", "x" * 201])
def test_a_name_that_no_address_can_hold_is_refused(served, name):
    server, _ = served()
    with pytest.raises(UsageError, match="cannot be named"):
        server.url(name)


def test_two_servers_name_conversations_apart(served):
    names = set()
    for _ in range(2):
        server, client = served()
        ask(client, "x")
        names |= {*server.conversations.take()}
    assert len(names) == 2


def test_what_is_forgotten_is_continued_no_more(served):
    server, client = served(limits=ServerLimits(conversations=1))
    said = ask(client, "x").choices[0].message.content
    first = ask(client, "x", said, "y").conversation
    ask(client, "z")
    assert ask(client, "x", said, "y").conversation != first
    assert len(server.conversations) == 1


def test_a_message_in_parts_is_one_text(served):
    _, client = served()
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    answer = client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": parts}]
    )
    assert answer.choices[0].message.content.startswith("1 one two ")


def test_an_answer_that_ends_inside_a_thought_was_cut(served):
    class Thinking(ScriptedPolicy):
        async def sample(self, messages, n, params, seed):
            drawn = await super().sample(messages, n, params, seed)
            return [replace(each, finish="thought") for each in drawn]

    with PolicyServer(Thinking(echo)) as server:
        assert ask(client_of(server), "x").choices[0].finish_reason == "length"


def test_a_stream_says_the_same_as_a_whole_answer(served):
    _, client = served(adder)
    whole = client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "?"}], tools=TOOLS
    )
    with client.chat.completions.stream(
        model="m",
        messages=[{"role": "user", "content": "?"}],
        tools=TOOLS,
        stream_options={"include_usage": True},
    ) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].finish_reason == whole.choices[0].finish_reason == "tool_calls"
    (one,), (two,) = (c.choices[0].message.tool_calls for c in (whole, final))
    assert (one.id, one.function.name) == (two.id, two.function.name)
    assert json.loads(one.function.arguments) == json.loads(two.function.arguments)
    assert final.usage == whole.usage


def test_answers_are_drawn_as_the_server_says_unless_it_obeys():
    drawn = []

    class Watching(ScriptedPolicy):
        async def sample(self, messages, n, params, seed):
            drawn.append(params)
            return await super().sample(messages, n, params, seed)

    for obey in (False, True):
        params = SamplingParams(temperature=0.7, max_new_tokens=50)
        with PolicyServer(Watching(echo), params, obey=obey) as server:
            ask(client_of(server), "x", temperature=0, max_tokens=9, stop=["\n"])
            ask(client_of(server), "x", max_completion_tokens=99)
    first, second, third, fourth = drawn
    assert (first.temperature, first.max_new_tokens, first.stop) == (0.7, 9, ("\n",))
    assert (second.temperature, second.max_new_tokens, second.stop) == (0.7, 50, ())
    assert (third.temperature, fourth.temperature) == (0.0, 0.7)
    assert all(params.logprobs for params in drawn)


def test_several_answers(served):
    server, client = served()
    answer = ask(client, "x", n=3)
    assert len({choice.message.content for choice in answer.choices}) == 3
    (conversation,) = server.conversations.take().values()
    assert len(conversation.threads()) == 3
    assert client.models.list().data[0].id == "run/sft"


def test_a_real_policys_tokens_are_kept_through_a_conversation(tmp_path):
    model, tokenizer = make_tiny(tmp_path / "model")
    policy = TransformersPolicy(model, tokenizer, "tiny")
    record = tmp_path / "calls.jsonl"
    params = SamplingParams(max_new_tokens=6)
    with append_to(record) as write, PolicyServer(policy, params, write=write) as server:
        for score in range(2):
            client = client_of(server, f"t/{score}")
            said = ask(client, WORDS[0]).choices[0].message.content
            ask(client, WORDS[0], said, WORDS[1])
        taken = server.conversations.take()
    asyncio.run(policy.close())
    for conversation in (taken["t/0"], taken["t/1"]):
        first, second = conversation.calls
        assert second.messages[1].token_ids == first.answer.token_ids
        assert len(first.logprobs) == len(first.answer.token_ids)
    rows = group_rows({"t": [(taken["t/0"], 0.0), (taken["t/1"], 1.0)]}, scale="none")
    assert [row.advantages for row in rows] == [(None, -0.5, None, -0.5), (None, 0.5, None, 0.5)]
    assert rows[1].logprobs[1] == taken["t/1"].calls[0].logprobs
    with record.open() as lines:
        again = read_recorded(lines)
    assert group_rows({"t": [(again["t/0"], 0.0), (again["t/1"], 1.0)]}, scale="none") == rows


def test_a_server_goes_on_with_the_record_of_one_that_was_killed(tmp_path):
    record, params = tmp_path / "calls.jsonl", SamplingParams(max_new_tokens=6)
    answers = []
    for session in range(2):
        drawn = count_calls(record)
        with (
            append_to(record) as write,
            PolicyServer(ScriptedPolicy(echo), params, drawn=drawn, write=write) as server,
        ):
            client = client_of(server, f"c/{session}")
            answers += [ask(client, "x").choices[0].message.content for _ in range(3)]
        if session == 0:
            record.write_bytes(record.read_bytes()[:-40])
    assert len({*answers}) == 6
    with record.open() as lines:
        assert {name: len(c.calls) for name, c in read_recorded(lines).items()} == {
            "c/0": 2,
            "c/1": 3,
        }
