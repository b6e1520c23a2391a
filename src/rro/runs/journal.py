"""The run's memory: append-only JSON lines, one writer, each record complete or absent.

A record has a kind and a key; the same key twice is an error. A line that a crash cut short is
dropped when the journal is opened again. The journal does not know what its records mean."""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from rro.errors import DataError, RroError, UsageError, printable
from rro.jsonl import strict_json
from rro.runs.journal_index import Index

log = logging.getLogger(__name__)

SCHEMA = 2
# Seconds of records that a power cut may cost.
_SYNC_EVERY = 5.0
_HEADER = {"kind": "journal", "key": "", "schema": SCHEMA}


class Journal:
    """Records by key. Only a hash and a place in the file are held in memory: some 32 bytes a
    record, whatever its key and size.

    >>> with Journal(Path("run/journal.jsonl")) as journal:
    ...     journal.append("rollout", "0/task-7/0.1/3", {"reward": 1.0})

    `create`: whether a new one may begin where none is. Raises UsageError if another process
    writes the same journal, DataError if the file is no journal of this schema, is not there, or
    was there once and is lost."""

    def __init__(self, path: Path, *, read_only: bool = False, create: bool = True) -> None:
        self.path = path
        self._index = Index(lambda start, length: _name(self._line(start, length)))
        self._end, self._lines, self._synced = 0, 0, time.monotonic()
        create = create and not read_only and not self._was_lost()
        flags = os.O_RDONLY if read_only else os.O_RDWR | os.O_APPEND
        flags |= os.O_CREAT if create else 0
        try:
            self._file = os.open(path, flags, 0o644)
        except FileNotFoundError:
            lost = "; it was written once: restore it, or start a new run" * self._was_lost()
            raise DataError(f"{path}: no journal there{lost}") from None
        if not read_only:
            self._lock()
        self.refresh()
        if read_only:
            return
        self._cut()
        if self._end == 0:
            self._write(_HEADER)

    def append(self, kind: str, key: str, record: dict[str, Any]) -> None:
        """Write one record. Once this returns, the record survives a crash of the process. Raises
        RroError for a key that exists, or if it cannot be written."""
        if (kind, key) in self:
            raise RroError(f"{self.path}: a {kind} record with key {key!r} exists already")
        self._index.put(kind, key, *self._write({"kind": kind, "key": key, **record}))

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        """The record, or None."""
        place = self._index.find(kind, key)
        return None if place is None else json.loads(self._line(*place))

    def place(self, kind: str, key: str) -> str:
        """The file and the line of a record, for an error."""
        start, _ = self._index.find(kind, key) or (0, 0)
        line = os.pread(self._file, start, 0).count(b"\n") + 1
        return f"{self.path}, line {line}"

    def __contains__(self, kind_and_key: tuple[str, str]) -> bool:
        return self._index.find(*kind_and_key) is not None

    def records(self, kind: str, prefix: str = "") -> Iterator[dict[str, Any]]:
        """The records of a kind whose keys start with `prefix`, in the order of writing."""
        for place in self._index.places(kind):
            line = self._line(*place)
            if not prefix or _name(line)[1].startswith(prefix):
                yield json.loads(line)

    def keys(self, start: int = 0) -> Iterator[tuple[str, str]]:
        """(kind, key) of every record from number `start` on, in the order of writing."""
        return (_name(self._line(*place)) for place in self._index.places(start=start))

    def refresh(self) -> None:
        """Read what another process has written since. Only for a read-only journal."""
        with open(self.path, "rb") as lines:
            lines.seek(self._end)
            for number, line in enumerate(lines, self._lines + 1):
                if b"\0" in line:
                    break  # a power cut: what was written last never came to the disk
                if not line.endswith(b"\n"):
                    if number == 1 and not _encoded(_HEADER).startswith(line):
                        raise DataError(f"{self.path}: not a journal")
                    break  # a crash cut this line short
                record = self._parse(line, number)
                if number > 1:
                    kind, key = record["kind"], record["key"]
                    if (kind, key) in self:
                        raise DataError(
                            f"{self.path}, line {number}: a second {kind} record with key {key!r}; "
                            "restore the file or start a new run"
                        )
                    self._index.put(kind, key, self._end, len(line))
                else:
                    self._check_header(record)
                self._end, self._lines = self._end + len(line), number

    def sync(self) -> None:
        """Wait until all records are on the disk, where they survive a power cut."""
        os.fsync(self._file)
        self._synced = time.monotonic()

    def close(self) -> None:
        """Close the file; nothing else may be called afterwards."""
        os.close(self._file)
        self._file = -1  # the number may be another file's soon

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def _writer(self) -> Path:
        """Who writes, or wrote last."""
        return self.path.with_name(f"{self.path.name}.writer")

    def _was_lost(self) -> bool:
        return self._writer.exists() and not self.path.exists()

    def _lock(self) -> None:
        """The lock ends with the process, however that ends. Who has it stands in a file beside."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            name = ""
            with suppress(OSError):
                who = self._writer.read_text(encoding="utf-8", errors="replace")
                name = f" ({printable(who)[:200]})"
            raise UsageError(
                f"{self.path}: another process is writing this run{name}; wait for it or stop it"
            ) from None
        except OSError as error:
            log.warning(
                "%s: the file system has no locks (%s): see to it that no other process works on "
                "this run",
                self.path,
                error.strerror,
            )
        with suppress(OSError):
            self._writer.write_text(
                f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8"
            )

    def _cut(self) -> None:
        """Drop what a crash left behind the last whole record. What a power cut damaged, and what
        follows it, is kept beside the journal."""
        size = os.fstat(self._file).st_size
        rest = self._line(self._end, size - self._end) if size > self._end else b""
        if b"\0" in rest and rest.strip(b"\0"):
            beside = self.path.with_name(f"{self.path.name}.damaged")
            with beside.open("ab") as file:
                file.write(rest)
            log.warning(
                "%s, line %d: damaged, as by a power cut; it and what follows is now in %s, and "
                "that work is done again",
                self.path,
                self._lines + 1,
                beside.name,
            )
        os.ftruncate(self._file, self._end)

    def _check_header(self, header: dict[str, Any]) -> None:
        schema = header.get("schema")
        if schema == 1:
            raise DataError(
                f"{self.path}: written by rro 0.1 (journal schema 1), and this version has schema "
                f"{SCHEMA}: finish or read the run with rro 0.1, or start a new one"
            )
        if schema != SCHEMA:
            raise DataError(
                f"{self.path}: not a journal of schema {SCHEMA}; use the version of rro that wrote "
                "it"
            )

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            record = strict_json(line)
            record["kind"], record["key"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(
                f"{self.path}, line {number}: damaged record ({error}); restore the file, or cut "
                "it before this line, so that what follows is done again"
            ) from None
        return record  # type: ignore[no-any-return]

    def _line(self, start: int, length: int) -> bytes:
        return os.pread(self._file, length, start)

    def _write(self, record: dict[str, Any]) -> tuple[int, int]:
        line = _encoded(record)
        try:
            written = os.write(self._file, line)
            if written < len(line):  # a disk that fills up takes a part
                raise OSError(28, "no space left")
        except OSError as error:
            os.ftruncate(self._file, self._end)
            raise RroError(
                f"{self.path}: cannot write ({error.strerror}); free some space, then resume the "
                "run"
            ) from error
        place = (self._end, len(line))
        self._end += len(line)
        if time.monotonic() > self._synced + _SYNC_EVERY:
            self.sync()
        return place


def without_envelope(record: dict[str, Any]) -> dict[str, Any]:
    """What was appended: the record without its kind and key."""
    return {name: value for name, value in record.items() if name not in ("kind", "key")}


_NAME = re.compile(
    rb'\{"kind":("(?:[^"\\]|\\.)*"),"key":("(?:[^"\\]|\\.)*")[,}]'
)  # how every line begins that we write


def _name(line: bytes) -> tuple[str, str]:
    """Kind and key of a record, without reading the rest of it."""
    if begins := _NAME.match(line):
        return json.loads(begins[1]), json.loads(begins[2])
    record = json.loads(line)
    return record["kind"], record["key"]


def _encoded(record: dict[str, Any]) -> bytes:
    try:
        text = json.dumps(record, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(record), separators=(",", ":"), allow_nan=False)
    return f"{text}\n".encode()


def _finite(value: Any) -> Any:
    """The value with None for numbers that JSON does not have: a training's metric may be NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
