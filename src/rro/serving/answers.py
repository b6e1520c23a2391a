"""Answers of OpenAI's chat API, whole or as a stream of events, from completions. Knows no HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

from rro.types import Completion, Message

_FINISH = {"stop": "stop", "length": "length", "context": "length", "thought": "length"}


def chat_answer(completions: Sequence[Completion], name: str, model: str) -> dict[str, Any]:
    """The body of an answer. `name` is the conversation's, which stands in it as `conversation`."""
    choices = [
        {
            "index": index,
            "message": _message(completion.message),
            "finish_reason": _finish(completion),
            "logprobs": None,
        }
        for index, completion in enumerate(completions)
    ]
    return {
        **_head(name, model, "chat.completion"),
        "choices": choices,
        "usage": _usage(completions),
    }


def chat_events(
    completions: Sequence[Completion], name: str, model: str, usage: bool
) -> Iterator[str]:
    """The same as server-sent events. The answer is drawn whole, then sent: the agent sees the form
    that it asked for, not the first words sooner."""
    head = _head(name, model, "chat.completion.chunk")
    for index, completion in enumerate(completions):
        message = _message(completion.message)
        for number, call in enumerate(message.get("tool_calls", ())):
            call["index"] = number
        yield _event({**head, "choices": [{"index": index, "delta": message}]})
        end = {"index": index, "delta": {}, "finish_reason": _finish(completion)}
        yield _event({**head, "choices": [end]})
    if usage:
        yield _event({**head, "choices": [], "usage": _usage(completions)})
    yield "data: [DONE]\n\n"


def error_body(sentence: str, kind: str) -> dict[str, Any]:
    """The body of an error."""
    return {"error": {"message": sentence, "type": kind, "param": None, "code": None}}


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body)}\n\n"


def _head(name: str, model: str, kind: str) -> dict[str, Any]:
    created = int(time.time())
    return {
        "id": f"chatcmpl-{time.time_ns():x}",
        "object": kind,
        "created": created,
        "model": model,
        "conversation": name,
    }


def _finish(completion: Completion) -> str:
    return "tool_calls" if completion.message.tool_calls else _FINISH[completion.finish]


def _message(message: Message) -> dict[str, Any]:
    said: dict[str, Any] = {"role": "assistant", "content": message.content}
    if message.tool_calls:
        said["content"] = message.content or None
        said["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    return said


def _usage(completions: Sequence[Completion]) -> dict[str, int]:
    prompt = max((completion.usage.prompt_tokens for completion in completions), default=0)
    drawn = sum(completion.usage.generated_tokens for completion in completions)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": drawn,
        "total_tokens": prompt + drawn,
    }
