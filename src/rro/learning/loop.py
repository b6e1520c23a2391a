"""The course of a training from its first step, or its last checkpoint, to the finished folder:
progress, metrics, clear errors. Does not know losses."""

from __future__ import annotations

import errno
import math
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from accelerate import DistributedType
from safetensors import SafetensorError
from transformers import PrinterCallback, TrainerCallback
from transformers.utils import logging as transformers_logging

from rro.errors import RroError, UsageError
from rro.learning.base import Observe, RowCounts, TrainingReport
from rro.learning.workspace import Workspace
from rro.models.loading import no_progress_bars
from rro.processes import any_requests, rank
from rro.runs.progress import Progress
from rro.stopping import Stopped, at_clean_points


def fit(
    trainer: Any,
    stage: str,
    work: Workspace,
    counts: RowCounts,
    observe: Observe | None,
    section: str = "",
) -> TrainingReport:
    """Train, from the last checkpoint if there is one, and put the result at the workspace's
    output. `section` is that of the learner's settings in a recipe (default: `stage`).

    Raises RroError if the loss is no longer finite, or the disk or the GPU's memory is full, and
    UsageError if no process has the whole weights (see `refuse_sharded`)."""
    refuse_sharded(trainer.accelerator)
    checkpoint, section = work.last_checkpoint(), section or stage
    resumed = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    steps = math.ceil(trainer.args.num_train_epochs * trainer.row_order.steps)
    with clear_errors(section, work), progress_bar(stage, steps, "steps") as progress:
        watcher = Watcher(stage, section, observe, trainer.row_order, progress, work)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(watcher)
        if progress:
            progress.advance(resumed)
        start = time.perf_counter()
        with at_clean_points():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if watcher.stopped:
            raise Stopped(f"{stage} stopped after step {trainer.state.global_step} of {steps}")
        seconds = time.perf_counter() - start
        history = [record for record in trainer.state.log_history if "loss" in record]
        report = TrainingReport(
            stage=stage,
            checkpoint=work.output,
            rows=counts,
            steps=trainer.state.global_step,
            resumed_from=resumed,
            seconds=seconds,
            tokens_per_second=watcher.tokens / max(seconds, 1e-9),
            first_loss=history[0]["loss"],
            last_loss=history[-1]["loss"],
            metrics=history[-1],
        )
        _save(trainer, work, report)
    return report


def refuse_sharded(accelerator: Any) -> None:
    """Raise UsageError where the launcher has divided the weights among the processes, because the
    main process writes those that it has."""
    plugin = accelerator.state.deepspeed_plugin
    fsdp = accelerator.distributed_type == DistributedType.FSDP
    if fsdp or (plugin is not None and plugin.zero_stage == 3):
        raise UsageError(
            f"{'FSDP' if fsdp else 'ZeRO stage 3'} divides the weights among the processes, and "
            "rro writes whole ones: launch with ZeRO stage 2, or without a plug-in"
        )


def progress_bar(name: str, total: int, unit: str) -> AbstractContextManager[Progress | None]:
    """Progress in the main process; None in the others."""
    return nullcontext() if rank() else Progress(name, total, unit)


class Watcher(TrainerCallback):  # type: ignore[misc]
    """Passes metrics and progress on. Also sets the epoch of the order of rows, which Accelerate
    does not for a resumed training on several processes.

    `tokens`: how many this call has trained on, padding not counted. `stopped`: a scheduler wanted
    the training to end, and its last step was stored."""

    def __init__(
        self,
        stage: str,
        section: str,
        observe: Observe | None,
        row_order: Any,
        progress: Progress | None,
        work: Workspace,
    ) -> None:
        self.stage, self.section = stage, section
        self.observe, self.work = observe, work
        self.row_order, self.progress = row_order, progress
        self.tokens, self.stopped = 0.0, False
        self._last_record = (time.perf_counter(), 0.0)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.row_order.set_epoch(state.global_step // self.row_order.steps)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._last_record = (time.perf_counter(), 0.0)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.work.seal_checkpoint(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.progress:
            self.progress.advance()
        if any_requests() and state.global_step < state.max_steps:
            self.stopped = control.should_save = control.should_training_stop = True

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **_: Any
    ) -> None:
        self.tokens = float(logs.get("num_tokens", self.tokens))
        if "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise RroError(
                f"{self.stage}: the loss is no longer finite: lower {self.section}.learning_rate"
            )
        now = time.perf_counter()
        (then, tokens), self._last_record = self._last_record, (now, self.tokens)
        speed = (self.tokens - tokens) / max(now - then, 1e-9)
        if self.progress:
            self.progress.advance(0, f"loss {logs['loss']:.4f}, {speed:.0f} tokens/s")
        if self.observe and state.is_world_process_zero:
            self.observe(
                {"stage": self.stage, "step": state.global_step, **logs, "tokens_per_second": speed}
            )


def _save(trainer: Any, work: Workspace, report: TrainingReport) -> None:
    """Write the result in the main process; all processes return when it is there. An adapter is
    merged, so a result is always a whole model, and kept beside it for serving engines."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(model, "merge_and_unload"):
        if trainer.accelerator.is_main_process:
            model.save_pretrained(work.adapter)
        model = model.merge_and_unload()
    if trainer.accelerator.is_main_process:
        work.finish(model, trainer.processing_class, report)
    trainer.accelerator.wait_for_everyone()


@contextmanager
def clear_errors(section: str, work: Workspace) -> Iterator[None]:
    """Raise RroError with the fix in place of what torch and the writers of weights, each in its
    own way, raise for a full GPU or a full disk."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise RroError(
            f"the GPU's memory is full: lower {section}.micro_batch, or set "
            f"{section}.gradient_checkpointing"
        ) from None
    except (OSError, SafetensorError, RuntimeError) as error:
        if not _is_full_disk(error):
            raise
        raise RroError(
            f"{work.partial} cannot be written, the disk is probably full: free some space and "
            "start again; the training resumes from its last complete checkpoint"
        ) from error


def _is_full_disk(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, RuntimeError):
        return "inline_container" in str(error) or "PytorchStream" in str(error)
    return isinstance(error, SafetensorError)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Transformers and TRL, which would break our progress bar."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with no_progress_bars(), warnings.catch_warnings():
            # For example of the coming name of gradient_checkpointing.
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        transformers_logging.set_verbosity(level)
