"""Direct preference optimisation on TRL: single messages, continuations and whole trajectories
alike.

Differs from TRL's trainer in three ways. Only the assistant tokens of a completion count, not the
observations between them. A step's loss does not depend on how its pairs are split into
micro-batches. The reference's log-probabilities are computed here, once, from whatever model is
the reference, in batches of similar length; then that model leaves memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from trl import DPOConfig, DPOTrainer
from trl.trainer import add_fused_lm_head

from rro.config import DpoConfig
from rro.learning.base import TrainingContext, TrainingReport
from rro.learning.loop import fit, progress_bar, quiet
from rro.learning.rows import IGNORED, PreferenceCollator, Rows, preference_rows
from rro.learning.setup import (
    PAD_MULTIPLE,
    TRL_ROWS,
    OrderedRows,
    identity,
    load_for_training,
    longest_row,
    lora,
    optimiser_steps,
    training_arguments,
)
from rro.learning.trl_internals import GivenReference, NoTelemetry, TokenisedPairs, adapted_trl
from rro.learning.workspace import Workspace
from rro.models.chat import ChatFormat
from rro.types import PreferencePair


class DpoTrainer(
    OrderedRows,
    TokenisedPairs,
    GivenReference,
    NoTelemetry,
    DPOTrainer,  # type: ignore[misc]
):
    """TRL's trainer on tokenised pairs with given reference log-probabilities.

    The loss of an optimiser step is the mean over its pairs of -log sigmoid(beta * (chosen -
    rejected log-ratio)), plus `sft_weight` times the negative log-likelihood of its chosen
    assistant tokens: their mean, or with `sft_sum` the mean over its pairs of their sum."""

    loss_is_scaled_for_ga = True
    """Tells Transformers that `compute_loss` returns a share of the step's loss."""

    def __init__(self, *args: Any, sft_weight: float, sft_sum: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sft_weight, self.sft_sum = sft_weight, sft_sum
        # Pairs and chosen loss tokens of the current step, over all processes.
        self.step_totals = torch.ones(2)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """The micro-batches of the next step; notes its totals, which weight them."""
        batches, items = super().get_batch_samples(*args, **kwargs)
        if batches:
            here = torch.stack([_counts(batch) for batch in batches]).sum(0).to(self.args.device)
            self.step_totals = self.accelerator.gather(here).view(-1, 2).sum(0)
        return batches, items

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        """A micro-batch's share of the step's loss.

        TRL takes means over the micro-batch, so they are weighted by its part of the step's pairs
        and tokens; and multiplied by the number of processes, which average their gradients. Its
        SFT term is a mean over tokens: times their number it is a sum."""
        counts, totals = _counts(inputs).tolist(), self.step_totals.tolist()
        tokens = counts[1] / totals[0 if self.sft_sum else 1]
        weights = [counts[0] / totals[0], self.sft_weight * tokens][: len(self.loss_types)]
        self.loss_weights = [weight * self.accelerator.num_processes for weight in weights]
        return super().compute_loss(model, inputs, return_outputs)


def _counts(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Pairs, and tokens with loss on the chosen side; the first token of a sequence has no
    prediction."""
    chosen, _ = batch["completion_mask"][:, 1:].chunk(2)
    return torch.tensor([len(chosen), int(chosen.sum())], dtype=torch.long)


@quiet()
@adapted_trl()
def train_dpo(
    options: DpoConfig,
    pairs: Sequence[PreferencePair],
    start: Path | None,
    reference_from: Path | None,
    output: Path,
    context: TrainingContext,
    capped: int = 0,
) -> TrainingReport:
    """Optimise the policy in folder `start` on pairs, against the reference policy in
    `reference_from`; see `Learner.train`. `capped`: pairs that were left out before, for the
    report."""
    reference, tokenizer = load_for_training(context.model, reference_from)
    rows = preference_rows(ChatFormat(tokenizer), pairs, longest_row(options, reference))
    work = Workspace(output, identity(options, context, rows.counts, rows.digest))
    rows = replace(rows, counts=replace(rows.counts, capped=capped))
    args = dpo_arguments(options, context, rows, reference, work.partial)
    rows = with_reference(rows, reference, tokenizer, args)
    if start == reference_from:
        policy = reference
    else:
        del reference
        policy, _ = load_for_training(context.model, start)
    trainer = dpo_trainer(options, context, rows, policy, tokenizer, args)
    return fit(trainer, "dpo", work, rows.counts, context.observe)


def dpo_arguments(
    options: DpoConfig, context: TrainingContext, rows: Rows, model: Any, folder: Path
) -> Any:
    """TRL's settings: the sigmoid loss, and the SFT term where it has a weight."""
    losses = ["sigmoid", "sft"] if options.sft_weight else ["sigmoid"]
    extra = {"beta": options.beta, "loss_type": losses, "loss_weights": [1.0] * len(losses)}
    # Keeps the reference model out of memory.
    extra["precompute_ref_log_probs"] = True
    steps, extra = optimiser_steps(options, rows), {**TRL_ROWS, **extra}
    return training_arguments(DPOConfig, "dpo", options, context, steps, model, folder, **extra)


def dpo_trainer(
    options: DpoConfig, context: TrainingContext, rows: Rows, policy: Any, tokenizer: Any, args: Any
) -> DpoTrainer:
    """The trainer as configured. `rows` have the columns of `with_reference`; `args` are those of
    `dpo_arguments`."""
    return DpoTrainer(
        model=policy.train(),
        args=args,
        train_dataset=rows.dataset,
        data_collator=_collator(tokenizer),
        processing_class=tokenizer,
        peft_config=lora(context.model),
        sft_weight=options.sft_weight,
        sft_sum=options.sft_loss == "sum",
    )


def _collator(tokenizer: Any) -> PreferenceCollator:
    return PreferenceCollator(pad_token_id=tokenizer.pad_token_id, pad_to_multiple_of=PAD_MULTIPLE)


def with_reference(rows: Rows, model: Any, tokenizer: Any, args: Any) -> Rows:
    """`rows` with the columns `ref_chosen_logps` and `ref_rejected_logps`: the log-probability
    under the reference `model` of the assistant tokens of each side, in nats, in the precision of
    the training. Each process computes its share."""
    add_fused_lm_head(model)
    model.to(args.device).eval()
    collator, results = _collator(tokenizer), list[tuple[int, float, float]]()
    batches = list(_batches_by_length(rows, args))
    with progress_bar("reference", len(batches), "batches") as progress:
        for numbers in batches:
            batch = collator([rows.dataset[number] for number in numbers])
            chosen, rejected = sequence_logps(model, batch, args).chunk(2)
            results.extend(zip(numbers, chosen.tolist(), rejected.tolist(), strict=True))
            if progress:
                progress.advance()
    _, chosen_logps, rejected_logps = zip(*sorted(gather_object(results)), strict=True)
    dataset = rows.dataset.add_column("ref_chosen_logps", list(chosen_logps))
    dataset = dataset.add_column("ref_rejected_logps", list(rejected_logps))
    return replace(rows, dataset=dataset)


def _batches_by_length(rows: Rows, args: Any) -> Iterator[list[int]]:
    """Row numbers of each forward pass of this process; rows of similar length share one."""
    lengths = list(rows.dataset["length"])
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    size = args.per_device_train_batch_size
    starts = range(0, len(order), size)[args.process_index :: args.world_size]
    return (order[start : start + size] for start in starts)


@torch.no_grad()
def sequence_logps(model: Any, batch: dict[str, torch.Tensor], args: Any) -> torch.Tensor:
    """Summed log-probability, in nats, of the tokens under `completion_mask`: one number per
    sequence, shape (2 x pairs,), chosen sides first."""
    batch = {key: value.to(args.device) for key, value in batch.items()}
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, IGNORED)
    with torch.autocast(args.device.type, dtype=torch.bfloat16, enabled=args.bf16):
        output = model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            labels=labels,
            fused_lm_head=True,
            use_cache=False,
        )
    sums: torch.Tensor = output.log_probs.sum(dim=1)
    return sums
