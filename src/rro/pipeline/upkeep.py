"""Removes from a run folder what neither resuming nor reporting needs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from rro.pipeline.evaluation import WORDS, misses_episodes
from rro.pipeline.rounds import CLOSING, rounds_done, taught
from rro.pipeline.run import Run
from rro.pipeline.stage import finished_training


def removable(run: Run) -> Iterator[Path]:
    """What can go: what trainings that are done left behind, damaged files that were made again,
    pairs of an exploration under way that is done, and the checkpoints of rounds that are evaluated
    and that no later stage starts from. The first and the last weights stay."""
    folder, checkpoints = run.folder.path, run.folder.path / "checkpoints"
    for partial in checkpoints.glob("*.partial"):
        if finished_training(partial.with_name(partial.name.removesuffix(".partial"))):
            yield partial
    yield from checkpoints.glob("*.damaged")
    yield from checkpoints.glob("*/adapter-on-*")
    for number in range(1, run.config.rounds.count + 1):
        if run.is_done(f"explore-{number}") and run.folder.pairs_so_far(number).exists():
            yield run.folder.pairs_so_far(number)
    yield from (path for path in folder.glob("*.partial") if path.is_file())
    yield from _old_checkpoints(run)


def collect(run: Run, *, dry: bool = False) -> list[tuple[Path, int]]:
    """Remove it; returns what went, with its bytes. `dry`: only look."""
    found = [(path, _size(path)) for path in dict.fromkeys(removable(run))]
    for path, _ in found:
        if dry:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return found


def _old_checkpoints(run: Run) -> Iterator[Path]:
    """Those of rounds before the last one, in a run whose evaluations of them are done."""
    done = rounds_done(run)
    if not done or len(done) < run.config.rounds.count:
        return
    if run.config.closing.successes and not run.is_done(CLOSING):
        return
    for number in done:
        label = run.folder.trained(number)
        checkpoint = run.folder.checkpoint(label)
        if number < taught(run, done[-1]) and checkpoint.is_dir() and _is_measured(run, label):
            yield checkpoint


def _is_measured(run: Run, label: str) -> bool:
    splits = ("test", "validation") if run.config.evaluate.validation else ("test",)
    return all(
        run.is_done(f"{WORDS[split]}-{label}") and not misses_episodes(run, label, split)
        for split in splits
    )


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
