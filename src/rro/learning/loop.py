"""One training from its first step, or its last checkpoint, to the finished folder: progress,
metrics, plain errors."""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PrinterCallback, TrainerCallback

from rro.errors import RroError
from rro.learning.base import Observe, TrainingReport
from rro.learning.rows import Rows
from rro.learning.workspace import Workspace
from rro.processes import rank
from rro.runs.progress import Progress


def fit(
    trainer: Any, stage: str, work: Workspace, rows: Rows, observe: Observe | None
) -> TrainingReport:
    """Train, from the last checkpoint where there is one, and put the result at the workspace's
    output.

    Raises RroError if the loss is no number any more, the disk is full, or the GPU's memory is."""
    checkpoint = work.last_checkpoint()
    resumed = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    with _plain_errors(stage, work), bar(stage, steps_of(trainer), "steps") as progress:
        watcher = Watcher(stage, observe, trainer, progress)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(watcher)
        if progress:
            progress.advance(resumed)
        start = time.perf_counter()
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        report = _report(trainer, stage, work.output, rows, resumed, time.perf_counter() - start)
        _save(trainer, work, report)
    return report


def bar(what: str, total: int, unit: str) -> AbstractContextManager[Progress | None]:
    """Progress in the main process; None in the others."""
    return nullcontext() if rank() else Progress(what, total, unit)


def steps_of(trainer: Any) -> int:
    """Optimiser steps of the whole training, as Transformers counts them."""
    epochs: float = trainer.args.num_train_epochs
    return math.ceil(epochs * steps_per_epoch(trainer))


def steps_per_epoch(trainer: Any) -> int:
    args = trainer.args
    rows: int = (
        args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    )
    return -(-len(trainer.train_dataset) // rows)


class Watcher(TrainerCallback):  # type: ignore[misc]
    """Passes metrics and progress on, and tells the order of rows which epoch it is (Accelerate
    forgets to, for a resumed run on several processes)."""

    def __init__(
        self, stage: str, observe: Observe | None, trainer: Any, progress: Progress | None
    ) -> None:
        self.stage, self.observe, self.trainer, self.progress = stage, observe, trainer, progress
        self._seen = (time.perf_counter(), 0.0)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer.row_order.set_epoch(state.global_step // steps_per_epoch(self.trainer))

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._seen = (time.perf_counter(), 0.0)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.progress:
            self.progress.advance()

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **_: Any
    ) -> None:
        if "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise RroError(
                f"{self.stage}: the loss is no finite number any more: lower {self.stage}.learning_rate"
            )
        now, tokens = time.perf_counter(), float(logs.get("num_tokens", 0))
        (then, before), self._seen = self._seen, (now, tokens)
        speed = (tokens - before) / max(now - then, 1e-9)
        if self.progress:
            self.progress.advance(0, f"loss {logs['loss']:.4f}, {speed:.0f} tokens/s")
        if self.observe and state.is_world_process_zero:
            self.observe(
                {"stage": self.stage, "step": state.global_step, **logs, "tokens_per_second": speed}
            )


def _report(
    trainer: Any, stage: str, output: Path, rows: Rows, resumed: int, seconds: float
) -> TrainingReport:
    history = [record for record in trainer.state.log_history if "loss" in record]
    return TrainingReport(
        stage=stage,
        checkpoint=output,
        rows=rows.counts,
        steps=trainer.state.global_step,
        resumed_from=resumed,
        seconds=seconds,
        tokens_per_second=trainer._total_train_tokens / max(seconds, 1e-9),
        first_loss=history[0]["loss"],
        last_loss=history[-1]["loss"],
        metrics=history[-1],
    )


def _save(trainer: Any, work: Workspace, report: TrainingReport) -> None:
    """Write the result, in the main process, and let no process go on before it is there. An
    adapter is merged into the weights that it was trained on, so a result is always a whole model;
    it lies beside them for serving engines."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(model, "merge_and_unload"):
        if trainer.accelerator.is_main_process:
            model.save_pretrained(work.adapter)
        model = model.merge_and_unload()
    if trainer.accelerator.is_main_process:
        work.finish(model, trainer.processing_class, report)
    trainer.accelerator.wait_for_everyone()


@contextmanager
def _plain_errors(stage: str, work: Workspace) -> Iterator[None]:
    """Say in a sentence what a user can mend. Writers of weights report a full disk each in a way
    of their own."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise RroError(
            f"{stage}: the GPU's memory is full: lower {stage}.micro_batch, or set {stage}.gradient_checkpointing"
        ) from None
    except (OSError, SafetensorError, RuntimeError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        torn = isinstance(error, RuntimeError) and (
            "inline_container" in str(error) or "PytorchStream" in str(error)
        )
        if not (full or torn or isinstance(error, SafetensorError)):
            raise
        raise RroError(
            f"{work.partial} cannot be written, the disk is probably full: make room and start again, it goes on from "
            "its last whole checkpoint"
        ) from error
