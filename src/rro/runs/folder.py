"""Where a run lives: its configuration, journal, checkpoints and results. The only place that knows
the file names."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rro.config import Config, dump_toml, load_config
from rro.errors import UsageError
from rro.runs.journal import Journal, without_envelope

START = ("base", "sft")
"""Labels of the weights that the first exploration begins with: the model as its recipe names it,
or that after SFT. A run has figures of one of them alone."""


@dataclass(frozen=True)
class RunFolder:
    """A run folder and its configuration. Nothing in it is ever overwritten but the summaries that
    are made from the rest (pairs, results.json)."""

    path: Path
    config: Config

    @classmethod
    def create(cls, config: Config, path: Path) -> RunFolder:
        """Start a run. Raises UsageError where the folder holds one already."""
        ensure_free(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            write_atomically(path / "config.toml", dump_toml(config))
        except OSError as error:
            raise UsageError(f"{path}: cannot make the run folder: {error.strerror}") from None
        return cls(path, config)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run. Raises UsageError where there is none."""
        if not (path / "config.toml").is_file():
            raise UsageError(f"{path} is no run folder: it has no config.toml")
        return cls(path, load_config(path / "config.toml", check=False))

    @property
    def journal(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def experts(self) -> Path:
        return self.path / "experts.jsonl"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def logs(self) -> Path:
        """What processes that rro starts have to say."""
        return self.path / "logs"

    @property
    def results(self) -> Path:
        return self.path / "results.json"

    def pairs(self, iteration: int) -> Path:
        return self.path / f"pairs-{iteration}.jsonl"

    def pairs_so_far(self, iteration: int) -> Path:
        """The pairs of the tasks that an exploration under way has finished, as they finished."""
        return self.path / f"pairs-{iteration}.jsonl.so-far"

    def checkpoint(self, label: str) -> Path:
        """`label` is one of START, or the strategy and iteration, e.g. "rro-1"."""
        return self.path / "checkpoints" / label

    def trained(self, iteration: int) -> str:
        """The label of the policy after that iteration, from 1: the name of the method, or of the
        strategy without its module, and the number."""
        name = self.config.method or self.config.explore.strategy.rpartition(":")[2]
        return f"{name}-{iteration}"

    def write_metric(self, metric: dict[str, Any]) -> None:
        with self.metrics.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(metric) + "\n")

    def write_results(self, results: dict[str, Any]) -> None:
        write_atomically(self.results, json.dumps(results, indent=1) + "\n")


def ensure_free(path: Path) -> None:
    """Raises UsageError where a run cannot be started in this folder: it holds one already, is
    below a file, or cannot be written."""
    if (path / "config.toml").exists():
        raise UsageError(
            f"{path} holds a run already: continue it with --resume {path}, or choose another --out"
        )
    nearest = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise UsageError(f"{path}: cannot make the run folder: {nearest} is a file")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(f"{path}: cannot make the run folder: {nearest} is not writable")


def stage_records(journal: Journal) -> dict[str, dict[str, Any]]:
    """What the journal holds of each finished stage, by its name. Of an exploration that was
    extended it is the last record, with the seconds of all."""
    records: dict[str, dict[str, Any]] = {}
    for record in journal.records("stage"):
        name = record["key"].partition("-to-")[0]
        seconds = records.get(name, {}).get("seconds", 0.0) + record["seconds"]
        records[name] = {**without_envelope(record), "seconds": seconds}
    return records


def write_atomically(path: Path, text: str) -> None:
    """The whole file or none of it."""
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
