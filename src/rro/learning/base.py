"""What a learner is: rows in, a checkpoint out, one training.

Knows neither TRL nor torch: a learner imports them inside `train`, so that it and its options can
be looked up without."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from rro.config import ModelConfig
from rro.errors import DataError

REPORT_FILE = "training.json"
"""Name of the file beside the weights that holds `TrainingReport.record()`."""

Metrics = Mapping[str, float | int | str]
Observe = Callable[[Metrics], None]


@dataclass(frozen=True, slots=True)
class TrainingContext:
    """What a training needs to know besides its own options."""

    model: ModelConfig
    """The model's adapter, device and chat template, and its name where no checkpoint is given."""
    seed: int = 0
    """The run's seed; all random draws of the training derive from it."""
    run: str = "run"
    """Name of the run, for trackers."""
    iteration: int = 0
    """Round of exploration and optimisation, counted from 1; 0 before the first."""
    progress: float = 0.0
    """How much of the run's rounds is behind it, 0 to 1."""
    temperature: float = 1.0
    """At which the policy samples. A policy gradient is that of the sampled distribution, so it
    divides the logits by it, as TRL and verl do."""
    report_to: Sequence[str] = ()
    """Trackers that receive the metrics: "tensorboard", "wandb", "trackio"."""
    observe: Observe | None = None
    """Called in the main process with every metrics record, a flat dict: "stage" (the learner's
    name), "step", "tokens_per_second", and what TRL logs under its own names ("loss",
    "learning_rate", "rewards/margins")."""


@dataclass(frozen=True, slots=True)
class RowCounts:
    """What became of the given rows.

    `used`; `too_long`: longer than the limit, for a pair on either side; `without_loss`: no
    assistant token; `capped`: pairs left out by the cap on terminal rejections; `without_signal`:
    episodes whose advantages are all 0. `tokens` and `loss_tokens` count the used rows, both sides
    of a pair. `merged`: how many used episodes are computed as part of an identical one."""

    used: int
    too_long: int
    without_loss: int
    tokens: int
    loss_tokens: int
    capped: int = 0
    without_signal: int = 0
    merged: int = 0


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What a training did.

    `seconds` and `tokens_per_second` cover this call only; `resumed_from` is the optimiser step it
    resumed from, 0 for a fresh start. `first_loss`, `last_loss` and `metrics` are those of the
    first and the last logged record."""

    stage: str
    checkpoint: Path
    rows: RowCounts
    steps: int
    resumed_from: int
    seconds: float
    tokens_per_second: float
    first_loss: float
    last_loss: float
    metrics: Mapping[str, float]

    def record(self) -> dict[str, Any]:
        """The report as plain values, as written to training.json beside the weights."""
        return {**asdict(self), "checkpoint": str(self.checkpoint)}


class NothingToTrain(DataError):
    """The rows are as they should be, but teach nothing, such as episodes whose advantages are all
    0. A round of several then leaves the weights unchanged."""


class Learner(Protocol):
    """Trains a model on rows. Built from its options: `Dpo(options)`.

    It may have more: `wants_logprobs`, true where the exploration is to keep the log-probabilities
    of sampled tokens; `check(temperature)`, which raises UsageError before any work where the
    policy's sampling temperature does not fit its options."""

    name: str
    """The name of its section in a recipe, and of its metrics."""
    takes: str
    """What `rows` are, as a credit gives them: "conversations" (sequences of `Message`), "pairs"
    (`PreferencePair`s) or "advantages" (`WeightedEpisode`s)."""

    def train(
        self,
        rows: Sequence[Any],
        start: Path | None,
        reference: Path | None,
        output: Path,
        context: TrainingContext,
    ) -> TrainingReport:
        """Train the model in folder `start` and write the result, a whole model and its tokenizer,
        to the folder `output`; it appears there only when it is complete.

        `start`, `reference`: checkpoints, or None for the model that `context.model` names. The
        same arguments again resume a training that was killed from its last checkpoint. Raises
        NothingToTrain if the rows teach nothing, DataError if no row can be trained on, UsageError
        for options that cannot be met, and RroError if the training itself fails."""
        ...
