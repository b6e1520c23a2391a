"""Rows to files: JSON lines, and the same in Parquet with types that do not depend on the rows.

Knows no kind of row."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from rro import files
from rro.files import replacing
from rro.tool_calls import tools_of
from rro.types import Message

_ROWS = 512  # in memory while a table is written


def messages_type(tools: bool) -> Any:
    """The type of a column of messages: role and content; JSON where messages call tools."""
    from datasets import Json, List, Value

    text = Value("string")
    return List(Json()) if tools else List({"role": text, "content": text})


def tools_type(tools: bool) -> dict[str, Any]:
    """The column of the tools' schemas, where there are tools."""
    from datasets import Json, List

    return {"tools": List(Json())} if tools else {}


def with_tools(row: dict[str, Any], messages: Sequence[Message]) -> dict[str, Any]:
    """A row with the schemas that its conversation offers, in TRL's column `tools`; also where
    messages have thoughts, as both are columns of the type Json."""
    schemas = tools_of(messages)
    thinks = any(message.thought for message in messages)
    return {**row, "tools": schemas} if schemas or thinks else row


def write_rows(rows: Iterable[dict[str, Any]], lines: Path, features: Callable[[bool], Any]) -> int:
    """Write rows to `lines` (.jsonl) and to the same name in .parquet, each complete or absent;
    returns how many. Only some hundred rows are in memory at a time.

    `features` gives the columns' types (`datasets.Features`), so that a column without values (no
    token ids, say) has the same type in every file; with or without tools, as the rows are."""
    count, tools = 0, False
    with replacing(lines) as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
            count, tools = count + 1, tools or "tools" in row
    table = lines.with_suffix(".parquet")
    if count:
        _write_parquet(lines, Path(f"{table}.partial"), features(tools))
        files.replace(Path(f"{table}.partial"), table)
    else:
        table.unlink(missing_ok=True)
    return count


def _write_parquet(lines: Path, table: Path, features: Any) -> None:
    from pyarrow.parquet import ParquetWriter

    with lines.open("rb") as file, ParquetWriter(table, features.arrow_schema) as writer:
        while batch := list(islice(file, _ROWS)):
            writer.write_table(_table([json.loads(line) for line in batch], features))


def _table(rows: list[dict[str, Any]], features: Any) -> Any:
    import pyarrow

    if "tools" not in features:
        return pyarrow.Table.from_pylist(rows, features.arrow_schema)
    from datasets import Dataset

    # pyarrow cannot make lists of JSON from Python's values
    columns = {name: [row.get(name) for row in rows] for name in features}
    return Dataset.from_dict(columns, features=features).data.table.combine_chunks()
