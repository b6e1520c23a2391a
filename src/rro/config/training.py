"""The sections of a recipe for trainings: supervised fine-tuning, direct preference optimisation,
the closing pass. Learners have options of their own that extend `TrainingConfig`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, WrapSerializer

from rro.config.tables import Section

Scheduler = Literal[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
]
"""Schedules of Transformers that need no setting of their own."""


class TrainingConfig(Section):
    """What all trainings share. The optimiser is AdamW."""

    epochs: float = Field(3, gt=0)
    """Passes over the rows. IPR: 3."""
    learning_rate: float = Field(2e-5, gt=0)
    """Peak learning rate of AdamW. IPR: 2e-5 for SFT."""
    batch_size: int = Field(48, ge=1)
    """Rows per optimiser step, over all processes; a multiple of their number. IPR: 48."""
    micro_batch: int = Field(4, ge=1)
    """Rows per forward pass and process at most; the largest divisor of the process's share of
    batch_size is used. Does not change the training."""
    max_length: int = Field(4096, ge=1)
    """Longest row in tokens; longer rows are left out and counted, never truncated."""
    scheduler: Scheduler = "cosine"
    """Learning-rate schedule, as Transformers names it."""
    warmup: float = Field(0.03, ge=0, le=1)
    """Share of the optimiser steps in which the learning rate rises."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's weight decay."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this norm."""
    gradient_checkpointing: bool = False
    """Whether activations are computed again in the backward pass: less memory, more time."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the forward pass; master weights are always float32. auto: bfloat16 autocast
    where the device has it, and on a CPU only above 50 million parameters."""
    save_steps: int | None = Field(None, ge=1)
    """Optimiser steps between the checkpoints that a killed training resumes from. Default: none,
    so it starts again."""


class SftConfig(TrainingConfig):
    """Supervised fine-tuning on experts' episodes, before the first round. Defaults are IPR's:
    learning rate 2e-5, 3 epochs, cosine, batch 48. `sft = "none"` at the top of a recipe, in place
    of this table, leaves it out: the rounds then start from the model itself, called `base`."""


def _table_or_none(value: Any) -> Any:
    """Recipes have no null: the text "none" stands for it."""
    if value is None or value == "none":
        return None
    if not isinstance(value, dict | SftConfig):
        raise ValueError(f'set it to a table, or to "none" for a run without SFT, not to {value!r}')
    return value


def _as_text(value: SftConfig | None, as_table: SerializerFunctionWrapHandler) -> Any:
    return "none" if value is None else as_table(value)


def _text_in_schema(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [*schema["anyOf"][:-1], {"const": "none"}]


OptionalSft = Annotated[
    SftConfig | None,
    BeforeValidator(_table_or_none),
    WrapSerializer(_as_text),
    Field(json_schema_extra=_text_in_schema),
]
"""The table `[sft]`, or `sft = "none"`."""


class DpoConfig(TrainingConfig):
    """Direct preference optimisation. Defaults are IPR's: learning rate 3e-6, beta 0.1, 3 epochs,
    batch 48, constant after a warm-up of 0.1."""

    learning_rate: float = Field(3e-6, gt=0)
    """Peak learning rate of AdamW. IPR: 3e-6."""
    scheduler: Scheduler = "constant_with_warmup"
    """Learning-rate schedule, as Transformers names it."""
    warmup: float = Field(0.1, ge=0, le=1)
    """Share of the optimiser steps in which the learning rate rises. IPR: 0.1."""
    beta: float = Field(0.1, gt=0)
    """How strongly the policy is held to the reference policy. Paper and IPR: 0.1."""
    later_beta: float | None = Field(None, gt=0)
    """`beta` from the second round on. Default: the same. ETO: 0.5."""
    later_rate: float = Field(1.0, gt=0)
    """Factor of `learning_rate` from the second round on. ETO: 0.5 (1e-6, then 5e-7)."""
    reference: Literal["sft", "previous"] = "sft"
    """The reference policy: the SFT policy (paper, IPR), or the policy at the start of the round
    (ETO)."""
    sft_weight: float = Field(0.0, ge=0)
    """Weight of the negative log-likelihood of the chosen side's assistant tokens, added to the
    loss. IPR: 1.0."""
    sft_loss: Literal["mean", "sum"] = "mean"
    """How that likelihood is taken: as the mean over the tokens of a step, or as the sum over the
    tokens of each pair, averaged over the pairs. IPR: sum."""
    endings: float | None = Field(None, ge=0, le=1)
    """Largest share of pairs in which only the rejected side ends the episode; the others are left
    out and counted (docs/exploration.md). Default: 1, or what the strategy recommends."""


class ClosingConfig(SftConfig):
    """A last pass of fine-tuning on the policy's own successes, whatever it learned from before."""

    successes: int = Field(0, ge=0)
    """Successful episodes of each task, the shortest first. 0: no closing pass."""
    epochs: float = Field(2, gt=0)
    """Passes over the rows."""
