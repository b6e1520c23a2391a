"""Where a training writes: `<output>.partial` while it runs, `output` when it is complete.

So `output` exists if and only if the training finished, and a killed one resumes from its last
complete checkpoint. Does not know what is trained."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

from rro import files
from rro.errors import UsageError
from rro.learning.base import REPORT_FILE, TrainingReport
from rro.models import adapters
from rro.processes import world_size


class Workspace:
    """The folders of one training. Raises UsageError if `output` is not empty, or
    `<output>.partial` belongs to a training with another `identity` (other rows or settings)."""

    def __init__(self, output: Path, identity: str) -> None:
        self.output = output
        self.partial = output.with_name(output.name + ".partial")
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise UsageError(f"{output} exists already: remove it, or train into another folder")
        self._claim(identity)

    def _claim(self, identity: str) -> None:
        try:
            self.partial.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{self.partial} cannot be created: {error.strerror}") from None
        file = self.partial / "identity.txt"
        existing = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
        if len(existing) <= len(identity) and all(map(_matches, existing, identity)):
            existing = ""  # none yet, or ours and torn by a power cut
        if existing:
            raise UsageError(
                f"{self.partial} holds an unfinished training with other rows or settings: remove "
                "it, or train into another folder"
            )
        # By rename, as several processes may claim at once and one may be killed.
        own = self.partial / f"identity.{os.getpid()}"
        own.write_text(identity, encoding="utf-8")
        files.replace(own, file)

    @property
    def beside(self) -> Path:
        """The folder whose files are kept beside the result's weights."""
        folder = self.partial / "beside"
        folder.mkdir(exist_ok=True)
        return folder

    @property
    def adapter(self) -> Path:
        """Where to save an adapter that is to be kept beside the result's weights."""
        return self.beside / adapters.FOLDER

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint with the trainer's state, which Transformers writes last."""
        steps = {
            int(path.name.rpartition("-")[2]): path for path in self.partial.glob("checkpoint-*")
        }
        for step in sorted(steps, reverse=True):
            try:
                json.loads((steps[step] / "trainer_state.json").read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if files.damaged_file(steps[step]) is None and _loads(steps[step]):
                return steps[step]
        return None

    def seal_checkpoint(self, step: int) -> None:
        """A checkpoint of the training is complete: bring it to the disk."""
        folder = self.partial / f"checkpoint-{step}"
        if folder.is_dir() and world_size() == 1:  # other processes may still write theirs
            files.seal(folder)

    def finish(self, model: Any, tokenizer: Any, report: TrainingReport) -> None:
        """Write weights, tokenizer and report, rename them to `output` at once, and remove the rest
        of what the training wrote."""
        final = self.partial / "final"
        shutil.rmtree(final, ignore_errors=True)
        model.save_pretrained(final)
        tokenizer.save_pretrained(final)
        for kept in self.beside.iterdir():
            os.replace(kept, final / kept.name)
        (final / REPORT_FILE).write_text(json.dumps(report.record(), indent=1), encoding="utf-8")
        files.publish(final, self.output)
        shutil.rmtree(self.partial, ignore_errors=True)


def _matches(character: str, wanted: str) -> bool:
    return character in (wanted, "\0")


def _loads(checkpoint: Path) -> bool:
    """Whether the files of a checkpoint are whole, as far as their ends tell: one that was not
    sealed yet may be torn."""
    from safetensors import SafetensorError, safe_open

    try:
        for weights in checkpoint.glob("*.safetensors"):
            with safe_open(weights, "pt"):
                pass
    except (SafetensorError, OSError):
        return False
    return all(zipfile.is_zipfile(file) for file in checkpoint.glob("*.pt*"))
