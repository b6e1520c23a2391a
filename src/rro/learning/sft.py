"""Supervised fine-tuning on TRL: cross-entropy on the assistant's tokens alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trl import SFTConfig, SFTTrainer

from rro.config import Config
from rro.learning.common import (
    Hooks,
    TokenisedRowsMixin,
    identity,
    load_for_training,
    longest,
    lora,
    quiet,
    score_only_loss_positions,
    training_arguments,
)
from rro.learning.data import Rows, sft_rows
from rro.learning.loop import fit
from rro.learning.workspace import TrainingReport, Workspace
from rro.models.chat import ChatFormat
from rro.types import Message


class SftTrainer(TokenisedRowsMixin, SFTTrainer):  # type: ignore[misc]
    """TRL's trainer on rows that are tokenised and labelled already. The loss of an optimiser step
    is the mean over all of its loss tokens, however they are split into micro-batches and
    devices."""


@quiet()
def train_sft(
    config: Config,
    rows: Sequence[Sequence[Message]],
    model_from: Path | None,
    output: Path,
    hooks: Hooks | None = None,
) -> TrainingReport:
    """Fine-tune the model in folder `model_from` (None: the one that config.model names) on
    conversations; write the result, model and tokenizer, to the folder `output`.

    Goes on from the last checkpoint of an earlier call that was killed (config.sft.save_steps).
    Raises DataError if no row can be trained on, UsageError for settings that cannot be met,
    RroError if the loss becomes infinite."""
    model, tokenizer = load_for_training(config.model, model_from)
    data = sft_rows(ChatFormat(tokenizer), rows, longest(config.sft, model))
    work = Workspace(output, identity(config, config.sft, data))
    return fit(
        sft_trainer(config, data, model, tokenizer, work.partial),
        "sft",
        work,
        data,
        hooks or Hooks(),
    )


def sft_trainer(config: Config, data: Rows, model: Any, tokenizer: Any, folder: Path) -> SftTrainer:
    """The trainer as configured, writing its checkpoints to `folder`."""
    skip = {"skip_prepare_dataset": True}
    args = training_arguments(
        SFTConfig, "sft", config, config.sft, data, model, folder, dataset_kwargs=skip
    )
    score_only_loss_positions()
    return SftTrainer(
        model=model,
        args=args,
        train_dataset=data.dataset,
        processing_class=tokenizer,
        peft_config=lora(config),
    )
