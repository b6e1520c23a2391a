"""JSON and JSON lines, read strictly: what Python's reader would take without a word (a key twice,
NaN, a line separator inside a text that looks like the end of a line) is carried out or refused.

`read_rows` reads every file of rows that a user gives: experts, pairs, recordings. Knows nothing of
what a row holds."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from rro.errors import DataError, reason_of

_GZIP, _BOM = b"\x1f\x8b", b"\xef\xbb\xbf"


def strict_json(text: bytes | str) -> Any:
    """The value of one JSON text. Raises ValueError with the reason in a clause, also for an object
    with the same key twice, for numbers that are not finite, and for text that is not UTF-8."""
    try:
        return json.loads(
            text.decode("utf-8") if isinstance(text, bytes) else text,
            object_pairs_hook=_distinct,
            parse_constant=_refuse,
            parse_float=_finite,
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"text that is not UTF-8: {error.reason} at byte {error.start}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def storable(text: str) -> str:
    """`text` with lone surrogates replaced. A server's JSON may hold them; UTF-8 files, Parquet and
    tokenisers cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return row


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits[:20]} is too large")
    return number


def read_rows(file: Path, *, array: bool = False) -> Iterator[tuple[str, Any]]:
    """(place, row) of each row of a file, one in memory at a time: JSON lines, plain or gzipped,
    with or without a byte order mark; with `array`, also one JSON array. The place, "FILE, line N"
    or "FILE, row N", is for errors. Lines without text are skipped.

    Raises DataError that names the file, and the line where it is to blame."""
    with _opened(file) as lines:
        for number, line in enumerate(lines, 1):
            text = line.removeprefix(_BOM) if number == 1 else line
            if not text.strip():
                continue
            if array and text.lstrip().startswith(b"["):
                for position, row in enumerate(_parsed(text + lines.read(), str(file)), 1):
                    yield f"{file}, row {position}", row
                return
            array, place = False, f"{file}, line {number}"
            yield place, _parsed(text, place)


def read_bytes(file: Path) -> bytes:
    """The content of a file, plain or gzipped. Raises DataError if it cannot be read."""
    with _opened(file) as content:
        return content.read()


def _parsed(text: bytes, place: str) -> Any:
    try:
        return strict_json(text)
    except ValueError as error:
        raise DataError(f"{place}: not JSON: {error}") from None


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    """A file to read, unpacked. Raises DataError for what goes wrong with it meanwhile."""
    try:
        with file.open("rb") as plain:
            packed = plain.read(2) == _GZIP
            plain.seek(0)
            # Iterating over binary lines splits at "\n" alone: U+2028 and others are text.
            yield cast(BinaryIO, gzip.GzipFile(fileobj=plain)) if packed else plain
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} cannot be read: {reason_of(error)}") from None
