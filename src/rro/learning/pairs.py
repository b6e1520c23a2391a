"""Preference pairs to and from files.

Rows are TRL's conversational preference form, {"prompt": [messages], "chosen": [...], "rejected":
[...]}, plus columns that say where each came from. See docs/data-formats.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le

from rro.chat_rows import check_keys, messages
from rro.chat_rows import with_tools as read_tools
from rro.codec import first_problem, from_plain
from rro.errors import DataError
from rro.jsonl import read_rows
from rro.learning.row_files import messages_type, tools_type, with_tools, write_rows
from rro.types import Message, PairKind, PreferencePair, ProcessReward, Source

_SIDES = ("prompt", "chosen", "rejected")
_COLUMNS = ("task", "step", "kind", "strategy", "iteration", "credibility", "gap", "committed")
_REWARD = ("reward", "outcomes", "n", "exact", "pricing_policy", "predicted", "weight")
_KNOWN = frozenset(
    (
        *_SIDES,
        *_COLUMNS,
        "tools",
        *(f"{side}_{column}" for side in _SIDES for column in ("sources", "token_ids")),
        *(f"{side}_{column}" for side in _SIDES[1:] for column in _REWARD),
    )
)


def to_row(pair: PreferencePair) -> dict[str, Any]:
    """A pair as a JSON-ready row. `*_sources` and `*_token_ids` run parallel to the messages (null:
    not sampled)."""
    row: dict[str, Any] = {
        side: [message.chat() for message in getattr(pair, side)] for side in _SIDES
    }
    row |= {name: getattr(pair, name) for name in _COLUMNS}
    for side in _SIDES[1:]:
        reward: ProcessReward = getattr(pair, f"{side}_reward")
        row[f"{side}_reward"] = reward.mean
        row[f"{side}_outcomes"] = list(reward.outcomes)
        row[f"{side}_n"] = reward.n
        row[f"{side}_exact"] = reward.exact
        row[f"{side}_pricing_policy"] = reward.policy
        row[f"{side}_predicted"] = reward.predicted
        row[f"{side}_weight"] = reward.weight
    for side in _SIDES:
        turns: tuple[Message, ...] = getattr(pair, side)
        row[f"{side}_sources"] = [message.source.value for message in turns]
        row[f"{side}_token_ids"] = [
            list(m.token_ids) if m.token_ids is not None else None for m in turns
        ]
    return with_tools(row, (*pair.prompt, *pair.chosen, *pair.rejected))


@dataclass(frozen=True)
class _Columns:
    """The columns of a row that are one value each, as they are read."""

    task: str = ""
    step: Annotated[int, Ge(0)] = 0
    kind: PairKind = "step"
    strategy: str = ""
    iteration: Annotated[int, Ge(0)] = 0
    credibility: Annotated[float, Ge(0), Le(1)] | None = None
    gap: float | None = None
    committed: bool | None = None


def from_row(row: Any, place: str = "pair") -> PreferencePair:
    """The pair again. Our own columns may be absent (a plain TRL row). Raises DataError that names
    `place` and key, also for a side that is empty or equal to the other."""
    if not isinstance(row, Mapping) or any(not row.get(side) for side in _SIDES):
        raise DataError(
            f"{place}: not a preference row: {', '.join(_SIDES)} must each be a list of messages, "
            "and none of them empty"
        )
    check_keys(row, _KNOWN, place)
    prompt, chosen, rejected = (_messages(row, side, place) for side in _SIDES)
    prompt = read_tools(prompt, row, place)
    if differs := _same(chosen, rejected):
        raise DataError(f"{place}: chosen and rejected have the same {differs}: remove the row")
    try:
        given = {name: row[name] for name in _COLUMNS if row.get(name) is not None}
        kind = "step" if len(chosen) == 1 else "continuation"
        columns = from_plain(_Columns, {"kind": kind, **given})
        return PreferencePair(
            prompt=prompt,
            chosen=chosen,
            rejected=rejected,
            chosen_reward=_reward(row, "chosen", 1.0, place),
            rejected_reward=_reward(row, "rejected", 0.0, place),
            **vars(columns),
        )
    except ValueError as error:
        raise DataError(f"{place}: {first_problem(error)}") from None


def _same(chosen: Sequence[Message], rejected: Sequence[Message]) -> str:
    """What two sides have in common that leaves nothing to learn: "text", "tokens" or ""."""
    if [(m.role, m.text) for m in chosen] == [(m.role, m.text) for m in rejected]:
        return "text"
    tokens = [[message.token_ids for message in side] for side in (chosen, rejected)]
    return "tokens" if tokens[0] == tokens[1] and None not in tokens[0] else ""


def _reward(row: Mapping[str, Any], side: str, default: float, place: str) -> ProcessReward:
    """A side's process reward. Raises DataError where mean or number are not those of the
    outcomes."""
    mean = row.get(f"{side}_reward")
    outcomes = row.get(f"{side}_outcomes") or [default if mean is None else mean]
    policy, exact = row.get(f"{side}_pricing_policy"), row.get(f"{side}_exact")
    given = {"outcomes": outcomes, "policy": policy or "", "exact": exact or False}
    given |= {"predicted": row.get(f"{side}_predicted"), "weight": row.get(f"{side}_weight") or 0.0}
    reward = from_plain(ProcessReward, given)
    for name, value in (("reward", reward.mean), ("n", reward.n)):
        said = row.get(f"{side}_{name}")
        if said is not None and said != value:
            raise DataError(
                f"{place}: {side}_{name} is {said!r}, but {side}_outcomes say {value}: correct one"
            )
    return reward


def _messages(row: Mapping[str, Any], side: str, place: str) -> tuple[Message, ...]:
    where = f"{place}: {side}"
    found = messages(row[side], where, Source.POLICY, row.get(f"{side}_sources"))
    if side != "prompt" and found[0].role != "assistant":
        raise DataError(f"{where}: must begin with an assistant message")
    ids = row.get(f"{side}_token_ids") or [None] * len(found)
    if not isinstance(ids, list) or len(ids) != len(found) or not all(map(_token_ids, ids)):
        raise DataError(
            f"{where}_token_ids: must be a list of token ids, or null, for each message"
        )
    return tuple(
        message if sampled is None else replace(message, token_ids=tuple(sampled))
        for message, sampled in zip(found, ids, strict=True)
    )


def _token_ids(value: Any) -> bool:
    return value is None or (
        isinstance(value, list) and all(type(token) is int and token >= 0 for token in value)
    )


def write_pairs(rows: Iterable[dict[str, Any]], lines: Path) -> int:
    """Write rows to `lines` (.jsonl) and to the same name in .parquet, see `write_rows`."""
    return write_rows(rows, lines, features)


def features(tools: bool) -> Any:
    """The columns' types, as `datasets` names them; with `tools`, of rows that call them."""
    from datasets import Features, List, Value

    text, number, count = Value("string"), Value("float64"), Value("int64")
    kinds = (text, count, text, text, count, number, number, Value("bool"))
    columns: dict[str, Any] = dict(zip(_COLUMNS, kinds, strict=True))
    for side in _SIDES:
        columns[side] = messages_type(tools)
        columns[f"{side}_sources"] = List(text)
        columns[f"{side}_token_ids"] = List(List(count))
    for side in _SIDES[1:]:
        columns |= {f"{side}_reward": number, f"{side}_outcomes": List(number), f"{side}_n": count}
        columns |= {f"{side}_exact": Value("bool"), f"{side}_pricing_policy": text}
        columns |= {f"{side}_predicted": number, f"{side}_weight": number}
    return Features({**columns, **tools_type(tools)})


def read_pairs(path: Path) -> Iterator[PreferencePair]:
    """Pairs from a pairs.jsonl (ours, or plain TRL rows). Raises DataError that names the line."""
    if not path.exists():
        raise DataError(f"{path}: no pairs there; run rro explore first")
    return (from_row(row, place) for place, row in read_rows(path))
