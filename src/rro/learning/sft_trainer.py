"""Supervised fine-tuning on TRL. Knows conversations and their loss; the course of a training is
in `loop`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trl import SFTConfig, SFTTrainer

from rro.config import SftConfig
from rro.learning.base import TrainingContext, TrainingReport
from rro.learning.loop import fit, quiet
from rro.learning.rows import Rows, sft_rows
from rro.learning.setup import (
    TRL_ROWS,
    OrderedRows,
    identity,
    load_for_training,
    longest_row,
    lora,
    optimiser_steps,
    training_arguments,
)
from rro.learning.trl_internals import NoTelemetry, adapted_trl
from rro.learning.workspace import Workspace
from rro.models.chat import ChatFormat
from rro.types import Message


class SftTrainer(OrderedRows, NoTelemetry, SFTTrainer):  # type: ignore[misc]
    """TRL's trainer on rows that are tokenised and labelled already. The loss of an optimiser step
    is the mean over all of its loss tokens, however they are split into micro-batches and
    devices."""


@quiet()
@adapted_trl()
def train_sft(
    options: SftConfig,
    conversations: Sequence[Sequence[Message]],
    start: Path | None,
    output: Path,
    context: TrainingContext,
) -> TrainingReport:
    """Fine-tune the model in folder `start` on conversations; see `Learner.train`."""
    model, tokenizer = load_for_training(context.model, start)
    rows = sft_rows(ChatFormat(tokenizer), conversations, longest_row(options, model))
    work = Workspace(output, identity(options, context, rows.counts, rows.digest))
    trainer = sft_trainer(options, context, rows, model, tokenizer, work.partial)
    return fit(trainer, "sft", work, rows.counts, context.observe)


def sft_trainer(
    options: SftConfig,
    context: TrainingContext,
    rows: Rows,
    model: Any,
    tokenizer: Any,
    folder: Path,
) -> SftTrainer:
    """The trainer as configured; it writes its checkpoints to `folder`."""
    ready = {**TRL_ROWS, "dataset_kwargs": {"skip_prepare_dataset": True}}
    steps = optimiser_steps(options, rows)
    return SftTrainer(
        model=model,
        args=training_arguments(SFTConfig, "sft", options, context, steps, model, folder, **ready),
        train_dataset=rows.dataset,
        processing_class=tokenizer,
        peft_config=lora(context.model),
    )
