"""How a run stands: what its process says while it works, and what its journal says of the stages
that are done. Reads and writes files; knows no stage."""

from __future__ import annotations

import fcntl
import json
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rro.errors import counted
from rro.runs import progress
from rro.runs.folder import RunFolder, stage_records
from rro.runs.journal import Journal

# Seconds between two writings of the status.
_EVERY = 2.0


@contextmanager
def published(folder: RunFolder) -> Iterator[None]:
    """While this is open, the progress of this process's work stands in the run folder."""
    last = 0.0

    def write(now: progress.Progress) -> None:
        nonlocal last
        if time.monotonic() < last + _EVERY and not now.ended:
            return
        last = time.monotonic()
        where = {"process": os.getpid(), "host": socket.gethostname(), "time": time.time()}
        temporary = folder.status.with_suffix(".partial")
        # the run's work is worth more than a word on it: a full disk does not end it here
        with suppress(OSError):
            temporary.write_text(json.dumps(where | now.figures()), encoding="utf-8")
            os.replace(temporary, folder.status)

    with progress.observed(write):
        yield


def read_status(folder: RunFolder) -> dict[str, Any]:
    """What `rro status --json` prints: `state` ("running", "stopped" or "finished"), the stages
    that are `done` with their seconds, what is `now` under way with its figures, and the `usage` of
    all explorations so far, with the `expected_cost` of the one under way."""
    with Journal(folder.journal, read_only=True) as journal:
        done = stage_records(journal)
    now = _now(folder.status)
    running = _is_locked(folder.journal)
    finished = folder.results.exists() and not running
    usage = _total(record.get("usage") or {} for record in done.values())
    if running and now.get("usage"):
        usage = _total([usage, now["usage"]])
    return {
        "run": str(folder.path),
        "state": "running" if running else "finished" if finished else "stopped",
        "done": {name: round(record["seconds"], 1) for name, record in done.items()},
        "failures": _total([*(record.get("failures") or {} for record in done.values())]),
        "now": now if running or not finished else None,
        "usage": usage,
    }


def _now(file: Path) -> dict[str, Any]:
    """What the run's process last wrote; empty where that is nothing, or damaged."""
    try:
        told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        _check(told)
    except (OSError, TypeError, ValueError, LookupError, AttributeError, RecursionError):
        return {}
    return told


def _check(told: dict[str, Any]) -> None:
    """Raises where it does not have what is read of it."""
    for key in ("text", "host"):
        str.strip(told[key])
    numbers = [told["time"], told["process"], told.get("cost_left") or 0]
    for part in ("usage", "failures"):
        numbers += (told.get(part) or {}).values()
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError("a number is not finite")


def _total(parts: Any) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, 0) + value
    return total


def _is_locked(journal: Path) -> bool:
    """Whether a process writes the journal."""
    with journal.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return False


def as_lines(status: Mapping[str, Any]) -> Iterator[str]:
    """What a person reads."""
    now, usage = status["now"] or {}, status["usage"]
    yield f"{status['run']}: {status['state']}"
    if now:
        yield f"now       {now['text']}"
        age = time.time() - now["time"]
        yield f"told      {age:.0f} s ago by process {now['process']} on {now['host']}"
    calls, tokens = usage.get("policy_calls", 0), usage.get("generated_tokens", 0)
    yield f"cost      {counted(calls, 'calls')}, {tokens:,} tokens, {usage.get('cost', 0.0):.2f}"
    if now.get("cost_left") is not None:
        yield f"expected  {usage.get('cost', 0.0) + now['cost_left']:.2f} at the end of this stage"
    failures = _total([status["failures"], now.get("failures") or {}])
    if failures:
        yield "failures  " + ", ".join(f"{kind} {count}" for kind, count in failures.items())
    for name, seconds in status["done"].items():
        yield f"done      {name} ({seconds:,.0f} s)"
