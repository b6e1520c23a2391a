"""Where a run lives: its configuration, journal, checkpoints and results. The only place that knows
the file names."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rro.config import Config, dump_toml, load_config
from rro.config.names import folder_name
from rro.errors import UsageError
from rro.files import write_file
from rro.plugins import STRATEGIES
from rro.runs.journal import Journal, without_envelope
from rro.runs.trust import code_named, is_signed, signature

log = logging.getLogger(__name__)

SIGNED = "config.signed.json"
"""The copy of a run's configuration, with its maker's signature (rro.runs.trust)."""

START = ("base", "sft")
"""Labels of the weights that the first exploration begins with: the model as its recipe names it,
or that after SFT. A run has figures of one of them alone."""


@dataclass(frozen=True)
class RunFolder:
    """A run folder and its configuration. Nothing in it is ever overwritten but the summaries that
    are made from the rest (pairs, results.json, validation.json)."""

    path: Path
    config: Config
    trusted: bool = False
    """Whether the code that the configuration names may run: the run was made by this user on this
    machine, or the user said so."""

    @classmethod
    def create(cls, config: Config, path: Path) -> RunFolder:
        """Start a run. Raises UsageError where the folder holds one already, or the strategy's own
        name can be no folder's."""
        ensure_free(path)
        config = _labelled(config)
        try:
            path.mkdir(parents=True, exist_ok=True)
            text = dump_toml(config)
            with _alone(path):
                ensure_free(path)
                _sign(path, text)
                write_file(path / "config.toml", text)
        except OSError as error:
            raise UsageError(f"{path}: cannot make the run folder: {error.strerror}") from None
        return cls(path, config, trusted=True)

    @classmethod
    def open(cls, path: Path, *, trust: bool = False) -> RunFolder:
        """An existing run. `trust`: it is treated as made by this user from now on. Raises
        UsageError where there is none."""
        file = path / "config.toml"
        if not file.is_file():
            raise UsageError(f"{path} is no run folder: it has no config.toml")
        signed = _signed(path)
        if not file.read_bytes().strip(b"\0 \r\n\t") and signed.get("config"):
            log.warning("%s was empty, as after a power cut; restored", file)
            write_file(file, str(signed["config"]))
        config = load_config(file, check=False)
        text = file.read_text(encoding="utf-8-sig")
        if trust:
            _sign(path, text)
        return cls(path, config, trust or is_signed(text, signed.get("signature")))

    def check_trust(self) -> None:
        """Raises UsageError where the run was not made here, and names code that would run."""
        if not self.trusted and (named := code_named(self.config)):
            raise UsageError(
                f"{self.path / 'config.toml'} runs code ({named}) and was not made by you on this "
                "machine: read that code, then say --trust-run-folder"
            )

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
    def status(self) -> Path:
        """How far the work under way has come (rro.runs.status)."""
        return self.path / "status.json"

    @property
    def results(self) -> Path:
        return self.path / "results.json"

    @property
    def validation(self) -> Path:
        """Results on the validation tasks, in the form of `results`."""
        return self.path / "validation.json"

    def pairs(self, iteration: int) -> Path:
        return self.path / f"pairs-{iteration}.jsonl"

    def pairs_so_far(self, iteration: int) -> Path:
        """The pairs of the tasks that an exploration under way has finished, as they finished."""
        return self.path / f"pairs-{iteration}.jsonl.so-far"

    def checkpoint(self, label: str) -> Path:
        """`label` is one of START, or the strategy and iteration, e.g. "rro-1"."""
        return self.path / "checkpoints" / label

    def trained(self, iteration: int) -> str:
        """The label of the policy after that iteration, from 1: the name of the method or the
        strategy, and the number. It imports no strategy."""
        return f"{self.config.explore.label or _default_label(self.config)}-{iteration}"

    def write_metric(self, metric: dict[str, Any]) -> None:
        with self.metrics.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(metric) + "\n")

    def write_results(self, results: dict[str, Any]) -> None:
        file = self.results if results["split"] == "test" else self.validation
        write_file(file, json.dumps(results, indent=1) + "\n")


def _default_label(config: Config) -> str:
    """The name of the method, or of the strategy without its module. Raises UsageError where no
    folder can have it: a run folder of somebody else may name anything."""
    what = "method" if config.method else "strategy"
    try:
        return folder_name(config.method or config.explore.strategy.rpartition(":")[2])
    except ValueError as error:
        raise UsageError(f"the name of the {what}: {error}") from None


def _labelled(config: Config) -> Config:
    """With the label of its trained policies: the strategy's own name, if it has one, unless the
    recipe names a method."""
    name, own = config.explore.strategy, None
    if config.method is None:
        own = getattr(STRATEGIES.find(name).factory, "name", None)
    if not isinstance(own, str) or own == _default_label(config):
        own = None
    try:
        label = None if own is None else folder_name(own)
    except ValueError as error:
        raise UsageError(f"the name of strategy {name}: {error}") from None
    explore = config.explore.model_copy(update={"label": label})
    return config.model_copy(update={"explore": explore})


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process is here; where the file system has locks."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


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


def _sign(path: Path, text: str) -> None:
    """Write the copy of the configuration, with this user's signature."""
    record = {"config": text, "signature": signature(text)}
    write_file(path / SIGNED, json.dumps(record, indent=1) + "\n")


def _signed(path: Path) -> dict[str, Any]:
    """The copy of the configuration, and its signature; empty where there is none."""
    try:
        record = json.loads((path / SIGNED).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
