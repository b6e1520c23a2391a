"""Preference pairs to and from files.

Rows are TRL's conversational preference form, {"prompt": [messages], "chosen": [...], "rejected":
[...]}, plus columns that say where each came from. See docs/data-formats.md."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from rro.codec import from_chat
from rro.errors import DataError
from rro.types import Message, PreferencePair, ProcessReward

_SIDES = ("prompt", "chosen", "rejected")
_COLUMNS = ("task", "step", "kind", "strategy", "iteration", "credibility")
_ROWS = 512  # of pairs in memory while a table is written


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
    for side in _SIDES:
        messages: tuple[Message, ...] = getattr(pair, side)
        row[f"{side}_sources"] = [message.source.value for message in messages]
        row[f"{side}_token_ids"] = [
            list(m.token_ids) if m.token_ids is not None else None for m in messages
        ]
    return row


def from_row(row: dict[str, Any], where: str = "pair") -> PreferencePair:
    """The pair again. Our own columns may be absent (a plain TRL row). Raises DataError that names
    `where`."""
    try:
        prompt, chosen, rejected = (_messages(row, side) for side in _SIDES)
        rewards = [
            ProcessReward(
                tuple(row.get(f"{side}_outcomes") or [float(row.get(f"{side}_reward", default))]),
                row.get(f"{side}_pricing_policy", ""),
                bool(row.get(f"{side}_exact", False)),
            )
            for side, default in (("chosen", 1.0), ("rejected", 0.0))
        ]
        return PreferencePair(
            prompt=prompt,
            chosen=chosen,
            rejected=rejected,
            task=row.get("task", ""),
            step=row.get("step", 0),
            chosen_reward=rewards[0],
            rejected_reward=rewards[1],
            strategy=row.get("strategy", ""),
            kind=row.get("kind", "step" if len(chosen) == 1 else "continuation"),
            iteration=row.get("iteration", 0),
            credibility=row.get("credibility"),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{where}: not a preference row (prompt, chosen and rejected message lists): {error!r}"
        ) from None


def _messages(row: dict[str, Any], side: str) -> tuple[Message, ...]:
    texts = row[side]
    sources = row.get(f"{side}_sources") or [None] * len(texts)
    tokens = row.get(f"{side}_token_ids") or [None] * len(texts)
    return tuple(
        from_chat(text, source, ids)
        for text, source, ids in zip(texts, sources, tokens, strict=True)
    )


def write_pairs(rows: Iterable[dict[str, Any]], lines: Path) -> int:
    """Write rows to `lines` (.jsonl) and to the same name in .parquet, each complete or absent;
    returns how many. Only some hundred rows are in memory at a time."""
    count, temporary = 0, lines.with_suffix(".jsonl.partial")
    with temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
            count += 1
    os.replace(temporary, lines)
    table = lines.with_suffix(".parquet")
    if count:
        _write_parquet(lines, Path(f"{table}.partial"))
        os.replace(f"{table}.partial", table)
    else:
        table.unlink(missing_ok=True)
    return count


def _write_parquet(lines: Path, table: Path) -> None:
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    schema = _features().arrow_schema
    with lines.open("rb") as file, ParquetWriter(table, schema) as writer:
        while batch := list(islice(file, _ROWS)):
            writer.write_table(
                pyarrow.Table.from_pylist([json.loads(line) for line in batch], schema)
            )


def _features() -> Any:
    """Column types, given so that a column without values (no token ids, say) has the same type in
    every file."""
    from datasets import Features, List, Value

    text, number, count = Value("string"), Value("float64"), Value("int64")
    kinds = (text, count, text, text, count, number)
    columns: dict[str, Any] = dict(zip(_COLUMNS, kinds, strict=True))
    for side in _SIDES:
        columns[side] = List({"role": text, "content": text})
        columns[f"{side}_sources"] = List(text)
        columns[f"{side}_token_ids"] = List(List(count))
    for side in _SIDES[1:]:
        columns |= {f"{side}_reward": number, f"{side}_outcomes": List(number), f"{side}_n": count}
        columns |= {f"{side}_exact": Value("bool"), f"{side}_pricing_policy": text}
    return Features(columns)


def read_pairs(path: Path) -> Iterator[PreferencePair]:
    """Pairs from a pairs.jsonl (ours, or plain TRL rows). Raises DataError that names the line."""
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                where = f"{path}, line {number}"
                if line.isspace():
                    continue
                try:
                    row = json.loads(line)
                except ValueError:
                    raise DataError(f"{where}: not JSON") from None
                yield from_row(row, where)
    except FileNotFoundError:
        raise DataError(f"{path}: no pairs there; run rro explore first") from None
