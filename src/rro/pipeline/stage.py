"""What every stage of a run does: it is done once, tracked and journalled. Knows no stage."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rro.concurrency import contained
from rro.errors import RroError, UsageError, counted
from rro.files import is_full_disk
from rro.learning.base import REPORT_FILE
from rro.pipeline.run import Run
from rro.pipeline.weights import set_aside_if_damaged
from rro.processes import rank, world_size
from rro.runs.trackers import tracked_training

log = logging.getLogger(__name__)


def run_stage(
    run: Run, name: str, work: Callable[[], dict[str, Any]], output: Path | None = None
) -> None:
    """Do a stage, unless the journal calls it done, and journal what `work` returns. If the
    checkpoint `output` of one that is done was damaged, it is made again."""
    done = run.is_done(name)
    damaged = output is not None and set_aside_if_damaged(output)
    if done and not damaged:
        missing = (run.journal.get("stage", name) or {}).get("failed_tasks")
        said = f"; {counted(missing, 'tasks')} failed then, counted as missing" if missing else ""
        log.info("%s: done before%s", name, said)
        return
    begun = time.perf_counter()
    tracked = tracked_training(run.config.report_to, run.folder.path, tracked_name(run, name))
    try:
        with tracked, contained():
            record = work()
    except Exception as error:
        if isinstance(error, RroError) or not is_full_disk(error):
            raise
        raise RroError(
            f"{run.folder.path}: the disk is full; free some space, then resume the run"
        ) from error
    if rank() == 0 and not done:
        run.journal.append("stage", name, {"seconds": time.perf_counter() - begun, **record})
        run.journal.sync()


def tracked_name(run: Run, stage: str) -> str:
    """What trackers call a stage of a run."""
    return f"{run.config.name}-{stage}"


def single_process(stage: str) -> None:
    """Raises UsageError where several processes run a stage that cannot be shared."""
    if world_size() > 1:
        raise UsageError(
            f"{stage} runs in one process: use accelerate launch for rro sft and rro optimise alone"
        )


def finished_training(output: Path) -> dict[str, Any] | None:
    """The report of a training that finished just before a crash kept its stage from being
    journalled."""
    report = output / REPORT_FILE
    return json.loads(report.read_text(encoding="utf-8")) if report.is_file() else None


def by_kind(kinds: Iterable[str]) -> str:
    """Failures, counted: "TimeoutError 3, SystemExit 1"."""
    return ", ".join(f"{kind} {count}" for kind, count in Counter(kinds).most_common())
