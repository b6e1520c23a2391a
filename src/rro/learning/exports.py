"""What a credit gives, in files that other trainers read: each kind of rows in a form of TRL's,
with our own columns beside it (docs/data-formats.md).

Pairs have a module of their own, as they are also read back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rro.learning import pairs
from rro.learning.row_files import messages_type, tools_type, with_tools, write_rows
from rro.types import Message, StepLabel, WeightedEpisode


@dataclass(frozen=True)
class Form:
    """How rows of one kind are written: a row as plain values, and the columns' types."""

    row: Callable[[Any], dict[str, Any]]
    features: Callable[[bool], Any]

    def write(self, rows: Iterable[Any], lines: Path) -> int:
        """Write rows to `lines` (.jsonl) and the same name in .parquet; returns how many."""
        return write_rows((self.row(row) for row in rows), lines, self.features)


def export(kind: str, rows: Iterable[Any], lines: Path) -> int:
    """Write rows of a kind, one of FORMS, to `lines` (.jsonl) and the same name in .parquet;
    returns how many."""
    return FORMS[kind].write(rows, lines)


def label_row(label: StepLabel) -> dict[str, Any]:
    """A labelled step in TRL's form of stepwise supervision, one completion a row."""
    reward, before = label.reward, label.before
    row = {
        "prompt": [message.chat() for message in label.prompt],
        "completions": [label.action.text],
        "labels": [label.label],
        "task": label.task,
        "step": label.step,
        "reward": reward.mean,
        "outcomes": list(reward.outcomes),
        "n": reward.n,
        "low": None if label.interval is None else label.interval[0],
        "high": None if label.interval is None else label.interval[1],
        "exact": reward.exact,
        "before": None if before is None else before.mean,
        "source": label.action.source.value,
        "pricing_policy": reward.policy,
        "strategy": label.strategy,
        "iteration": label.iteration,
        "node": label.node,
        "in_rollout": label.in_rollout,
        "committed": label.committed,
    }
    return with_tools(row, label.prompt)


def conversation_row(conversation: Sequence[Message]) -> dict[str, Any]:
    """A conversation in TRL's conversational form of language modelling."""
    row = {"messages": _chat(conversation), "sources": [m.source.value for m in conversation]}
    return with_tools(row, conversation)


def episode_row(episode: WeightedEpisode) -> dict[str, Any]:
    """An episode with an advantage for each message; null where it carries no loss."""
    row = {
        "messages": _chat(episode.messages),
        "advantages": list(episode.advantages),
        "task": episode.task,
        "reward": episode.reward,
        "success": episode.success,
        "token_ids": [m.token_ids and list(m.token_ids) for m in episode.messages],
        "logprobs": [
            given and list(given) for given in episode.logprobs or (None,) * len(episode.messages)
        ],
    }
    return with_tools(row, episode.messages)


def _chat(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [message.chat() for message in messages]


def _label_features(tools: bool) -> Any:
    features, value, several = _types()
    text, number, count = value("string"), value("float64"), value("int64")
    columns = {
        "prompt": messages_type(tools),
        "completions": several(text),
        "labels": several(value("bool")),
        "task": text,
        "step": count,
        "reward": number,
        "outcomes": several(number),
        "n": count,
        "low": number,
        "high": number,
        "exact": value("bool"),
        "before": number,
    }
    columns |= dict.fromkeys(("source", "pricing_policy", "strategy", "node"), text)
    columns |= dict.fromkeys(("in_rollout", "committed"), value("bool"))
    columns |= {"iteration": count, **tools_type(tools)}
    return features(columns)


def _conversation_features(tools: bool) -> Any:
    features, value, several = _types()
    columns = {"messages": messages_type(tools), "sources": several(value("string"))}
    return features({**columns, **tools_type(tools)})


def _episode_features(tools: bool) -> Any:
    features, value, several = _types()
    text, number = value("string"), value("float64")
    columns = {"messages": messages_type(tools), "advantages": several(number)}
    columns |= {"task": text, "reward": number, "success": value("bool")}
    ids = several(several(value("int64")))
    columns |= {"token_ids": ids, "logprobs": several(several(number)), **tools_type(tools)}
    return features(columns)


def _types() -> tuple[Any, Any, Any]:
    from datasets import Features, List, Value

    return Features, Value, List


FORMS = {
    "pairs": Form(pairs.to_row, pairs.features),
    "labels": Form(label_row, _label_features),
    "conversations": Form(conversation_row, _conversation_features),
    "advantages": Form(episode_row, _episode_features),
}
"""By what a credit gives."""
