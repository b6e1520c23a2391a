"""One trial: a run that learns from an SFT policy which trials share, and whose last policy is
measured. Knows nothing of what it is tried for: sweeps and result files do."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from rro.config import Config, dump_toml
from rro.files import damaged_file
from rro.pipeline.check import new_run
from rro.pipeline.evaluation import evaluate_run
from rro.pipeline.rounds import labels_to_evaluate
from rro.pipeline.run import open_run
from rro.pipeline.stages import NothingToLearn, learn, sft
from rro.runs.folder import RunFolder
from rro.runs.journal import Journal

log = logging.getLogger(__name__)

# What decides the SFT policy: runs that agree in all of it can start from the same one.
_OF_SFT = ("seed", "threads", "modules", "environment", "model", "experts", "sft")


def start_folder(config: Config, folder: Path, seed: int | None = None) -> Path:
    """The run folder below `folder` of the SFT policy of a configuration, from `seed` (default: the
    configuration's). Configurations that agree in what decides it have the same."""
    own = _of_sft(config, seed)
    return folder / hashlib.sha256(dump_toml(own).encode()).hexdigest()[:12]


def shared_start(config: Config, folder: Path, seed: int | None = None) -> Path:
    """The SFT policy of a configuration, made in its `start_folder` unless it is there: a
    checkpoint's folder. Trials in other processes may use it meanwhile. Raises UsageError where one
    of them is making it."""
    path = start_folder(config, folder, seed)
    made = _made(path)
    if made is not None:
        return made
    with open_run(*_opened(_of_sft(config, seed), path, "sft")) as run:
        sft(run)
        return run.folder.checkpoint("sft").resolve()


def run_trial(
    config: Config, path: Path, starts: Path, split: str, *, start_seed: int | None = None
) -> dict[str, Any]:
    """Learn from the shared SFT policy in `starts`, then measure the policies on a split, every
    evaluated one on "test", the last one on "validation"; returns the results.

    The run folder `path` goes on where it was cut off. Where nothing was to be learned, the policy
    that the run started from is measured."""
    if not (path / "config.toml").exists():
        model = config.model.model_copy(
            update={"name": str(shared_start(config, starts, start_seed))}
        )
        config = config.model_copy(update={"model": model})
    with open_run(*_opened(config, path, "explore")) as run:
        try:
            learn(run)
        except NothingToLearn as error:
            log.warning("%s: measured as it started: %s", path.name, error)
        labels = labels_to_evaluate(run)
        measured = labels[1:] if split == "test" else labels[-1:]
        return evaluate_run(run, measured or labels, split)


def _made(path: Path) -> Path | None:
    """The finished and undamaged SFT policy of a run folder, without being its writer."""
    if not (path / "config.toml").exists() or not (path / "journal.jsonl").exists():
        return None
    checkpoint = RunFolder.open(path).checkpoint("sft").resolve()
    with Journal(path / "journal.jsonl", read_only=True) as journal:
        done = ("stage", "sft") in journal
    whole = done and checkpoint.is_dir() and damaged_file(checkpoint) is None
    return checkpoint if whole else None


def _of_sft(config: Config, seed: int | None) -> Config:
    own = Config(name="sft", **{name: getattr(config, name) for name in _OF_SFT})
    return own if seed is None else own.model_copy(update={"seed": seed})


def _opened(config: Config, path: Path, stage: str) -> tuple[RunFolder, Any]:
    if (path / "config.toml").exists():
        return RunFolder.open(path), None
    return new_run(config, path, stage)
