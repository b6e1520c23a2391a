"""Supervised fine-tuning, as a learner: cross-entropy on the assistant's tokens only.

Knows nothing of TRL; `sft_trainer` does the training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rro.config import SftConfig
from rro.learning.base import TrainingContext, TrainingReport
from rro.types import Message


class Sft:
    """Fine-tunes a model on conversations; needs no reference policy."""

    name: str = "sft"
    takes: str = "conversations"

    def __init__(self, options: SftConfig) -> None:
        self.options = options

    def train(
        self,
        rows: Sequence[Sequence[Message]],
        start: Path | None,
        reference: Path | None,
        output: Path,
        context: TrainingContext,
    ) -> TrainingReport:
        """See `Learner.train`."""
        # TRL takes seconds to import.
        from rro.learning.sft_trainer import train_sft

        return train_sft(self.options, rows, start, output, context)
