"""Lines of play as rows: trajectories to train on, token by token, and conversations that trace
viewers read (docs/exports.md).

Every row says where it comes from in columns of its own. Knows no files."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rro.learning.lines_of_play import Line
from rro.learning.row_files import messages_type, tools_type, with_tools
from rro.models.chat import ChatFormat
from rro.tool_calls import tools_of
from rro.types import Message, StopReason, WeightedEpisode

USAGE = ("policy_calls", "prompt_tokens", "generated_tokens", "environment_steps")


class Advantages:
    """The advantages that a credit gave, found again by the messages of a line. Rows with the same
    messages are used up in their order."""

    def __init__(self, rows: Iterable[WeightedEpisode]) -> None:
        self._rows = defaultdict[tuple[Message, ...], list[WeightedEpisode]](list)
        for row in rows:
            self._rows[row.messages].append(row)

    def of(self, line: Line) -> tuple[float | None, ...]:
        """One for each message; None where the credit says nothing."""
        rows = self._rows[line.messages]
        found = (rows.pop(0) if len(rows) > 1 else rows[0]).advantages if rows else ()
        return found or (None,) * len(line.messages)


def provenance(line: Line, run: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that say where a line comes from; `run` has those of the run: strategy, iteration
    and the reward that is a success."""
    estimate = line.estimate
    return {
        "id": f"{run['iteration']}/{line.task}/{line.id}",
        "task": line.task,
        "strategy": run["strategy"],
        "iteration": run["iteration"],
        "kind": line.kind,
        "node": line.node,
        "number": line.number,
        "committed": line.committed,
        "rose": line.rose,
        "policy": line.policy,
        "seed": None if line.seed is None else str(line.seed),
        "reward": line.reward,
        "success": None if line.reward is None else line.reward >= run["success_reward"],
        "stop": None if line.stop is None else line.stop.value,
        "error": line.error,
        "process_reward": None if estimate is None else estimate.mean,
        "n": None if estimate is None else estimate.n,
        **{name: getattr(line.usage, name) for name in USAGE},
        "seconds": line.usage.seconds,
        "cost": line.usage.cost,
    }


def trajectory_rows(
    line: Line, run: Mapping[str, Any], advantages: Advantages, chat: ChatFormat | None
) -> Iterator[dict[str, Any]]:
    """A line with its messages and, where the policy's tokenizer is at hand, its tokens:
    `input_ids`, `mask` (1: drawn for this line), and `logprobs` and `advantages` of the tokens
    (null elsewhere, and where they are not known).

    One row; where the template writes earlier answers anew, one for each drawn answer, `answer`
    says which, as each was sampled after another history."""
    given = advantages.of(line)
    if chat is None or line.stop is StopReason.FAILED:
        yield _trajectory_row(line, run, given, {})
    elif chat.keeps:
        yield _trajectory_row(line, run, given, _tokens(line, given, chat))
    else:
        for number in _drawn(line):
            part = replace(line, messages=line.messages[: number + 1], start=number)
            row = _trajectory_row(part, run, given[: number + 1], _tokens(part, given, chat))
            yield row | {"answer": number}


def _drawn(line: Line) -> list[int]:
    """The answers that were drawn for a line, by their numbers among its messages."""
    roles = [message.role for message in line.messages]
    return [number for number in range(line.start, len(roles)) if roles[number] == "assistant"]


def _trajectory_row(
    line: Line, run: Mapping[str, Any], given: Sequence[float | None], tokens: Mapping[str, Any]
) -> dict[str, Any]:
    row = {
        **provenance(line, run),
        "messages": [message.chat() for message in line.messages],
        "sources": [message.source.value for message in line.messages],
        "answer": None,
        "message_advantages": list(given),
        **dict.fromkeys(("input_ids", "mask", "logprobs", "advantages")),
        **tokens,
    }
    return with_tools(row, line.messages)


def _tokens(
    line: Line, advantages: Sequence[float | None], chat: ChatFormat
) -> dict[str, list[Any]]:
    ids = chat.encode(line.messages, add_generation_prompt=False).ids
    mask = [0] * len(ids)
    logprobs: list[float | None] = [None] * len(ids)
    values: list[float | None] = [None] * len(ids)
    for number in _drawn(line):
        begins = len(chat.encode(line.messages[:number], True).ids)
        with_loss = chat.encode(line.messages[: number + 1], False).mask
        places = [place for place in range(begins, len(with_loss)) if with_loss[place]]
        sampled = line.logprobs[number] or ()
        for index, place in enumerate(places):
            mask[place], values[place] = 1, advantages[number]
            if len(sampled) == len(places):
                logprobs[place] = sampled[index]
    return {"input_ids": ids, "mask": mask, "logprobs": logprobs, "advantages": values}


def trace_row(line: Line, run: Mapping[str, Any]) -> dict[str, Any]:
    """A line as the chat API of OpenAI has it: arguments of tool calls are JSON text. That is what
    trace viewers and observability tools take."""
    row = {
        **provenance(line, run),
        "messages": [_as_api(message) for message in line.messages],
        "sources": [message.source.value for message in line.messages],
    }
    return with_tools(row, line.messages)


def _as_api(message: Message) -> dict[str, Any]:
    row = message.chat()
    if message.tool_calls:
        row["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    return row


def session_lines(line: Line, run: Mapping[str, Any]) -> Iterator[str]:
    """A line as a session of the Hub's trace viewer (Session Trace Simple Format): a header, then a
    message a line, as JSON."""
    header = {**provenance(line, run), "tools": tools_of(line.messages)}
    yield json.dumps({"type": "session", "harness": "rro", "name": f"task {line.task}", **header})
    for message in line.messages:
        said: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.thought:
            said["reasoningContent"] = message.thought
        if message.tool_calls:
            calls = _as_api(message)["tool_calls"]
            said["toolCalls"] = [{"id": one["id"], "function": one["function"]} for one in calls]
        if message.tool_call_id:
            said["toolCallId"] = message.tool_call_id
        if message.role == "assistant":
            said["model"] = line.policy
        yield json.dumps({"type": "message", "message": said})


def trajectory_features(tools: bool) -> Any:
    """The types of `trajectory_rows`."""
    from datasets import Features, List, Value

    number, count = Value("float64"), Value("int64")
    columns = {"message_advantages": List(number), "input_ids": List(count), "mask": List(count)}
    columns |= {"answer": count, "logprobs": List(number), "advantages": List(number)}
    return Features({**_features(tools), **columns})


def trace_features(tools: bool) -> Any:
    """The types of `trace_row`."""
    from datasets import Features

    return Features(_features(tools))


def _features(tools: bool) -> dict[str, Any]:
    from datasets import List, Value

    text, truth, number, count = (Value(n) for n in ("string", "bool", "float64", "int64"))
    columns = dict.fromkeys(("id", "task", "strategy", "kind", "node", "policy", "seed"), text)
    columns |= dict.fromkeys(("stop", "error"), text)
    columns |= dict.fromkeys(("iteration", "number", "n", *USAGE), count)
    columns |= dict.fromkeys(("committed", "rose", "success"), truth)
    columns |= dict.fromkeys(("reward", "process_reward", "seconds", "cost"), number)
    return {
        **columns,
        "messages": messages_type(tools),
        "sources": List(text),
        **tools_type(tools),
    }
