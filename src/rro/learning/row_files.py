"""Rows to files: JSON lines, and the same in Parquet with types that do not depend on the rows.

Knows no kind of row."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from rro import files
from rro.files import replacing

_ROWS = 512  # in memory while a table is written


def write_rows(rows: Iterable[dict[str, Any]], lines: Path, features: Callable[[], Any]) -> int:
    """Write rows to `lines` (.jsonl) and to the same name in .parquet, each complete or absent;
    returns how many. Only some hundred rows are in memory at a time.

    `features` gives the columns' types (`datasets.Features`), so that a column without values (no
    token ids, say) has the same type in every file."""
    count = 0
    with replacing(lines) as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
            count += 1
    table = lines.with_suffix(".parquet")
    if count:
        _write_parquet(lines, Path(f"{table}.partial"), features().arrow_schema)
        files.replace(Path(f"{table}.partial"), table)
    else:
        table.unlink(missing_ok=True)
    return count


def _write_parquet(lines: Path, table: Path, schema: Any) -> None:
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    with lines.open("rb") as file, ParquetWriter(table, schema) as writer:
        while batch := list(islice(file, _ROWS)):
            writer.write_table(
                pyarrow.Table.from_pylist([json.loads(line) for line in batch], schema)
            )
