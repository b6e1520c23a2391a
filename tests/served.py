"""Scripted policies behind addresses, and a client's questions to them."""

import json

import openai

from rro.tool_calls import tool_calls
from rro.types import Message

QUESTION = {"messages": [{"role": "user", "content": "x"}]}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds.",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                "required": ["a", "b"],
            },
        },
    }
]


def echo(messages, rng):
    return f"{len(messages)} {messages[-1].content} {rng.random():.3f}"


def adder(messages, rng):
    """Calls the tool once, then says what came back."""
    if messages[-1].role == "tool":
        return f"it is {messages[-1].content}"
    assert json.loads(messages[0].tools) == TOOLS
    calls = tool_calls([("add", {"a": 2, "b": 3}, None)])
    return Message("assistant", "", tool_calls=calls)


def client_of(server, name=""):
    return openai.OpenAI(base_url=server.url(name), api_key="none", max_retries=0)


def ask(client, *turns, **options):
    messages = [{"role": "user", "content": turns[0]}]
    for number, turn in enumerate(turns[1:]):
        messages.append({"role": ("assistant", "user")[number % 2], "content": turn})
    return client.chat.completions.create(model="any", messages=messages, **options)
