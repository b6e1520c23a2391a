"""Clipped policy gradient on Transformers' trainer: the loss, its metrics, and what a training
takes over from the round before it.

The loss of an optimiser step is a mean over all of its tokens or episodes, however they are split
into forward passes and processes. Tokens and their weights come from `weighted_rows`, the passes
from `packing`, the course of the training from `loop`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from peft import get_peft_model
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments
from trl.trainer import add_fused_lm_head

from rro.errors import DataError
from rro.learning import replay
from rro.learning.base import NothingToTrain, TrainingContext, TrainingReport
from rro.learning.loop import clear_errors, fit, progress_bar, quiet
from rro.learning.moments import CarriedMoments, moments_in
from rro.learning.packing import Batch, Pack, Plan, batch_of, in_passes, model_inputs
from rro.learning.policy_gradient import PolicyGradientConfig
from rro.learning.prefix_sharing import ATTENTION, PAYS_FROM, can_share
from rro.learning.setup import identity, load_for_training, longest_row, lora, training_arguments
from rro.learning.successes import Success
from rro.learning.trl_internals import adapted_trl
from rro.learning.weighted_rows import TokenRow, WeightedRows, success_rows, weighted_rows
from rro.learning.workspace import Workspace
from rro.models.chat import ChatFormat
from rro.processes import rank, world_size
from rro.seeds import derive_seed
from rro.types import WeightedEpisode

STAGE, SECTION = "policy_gradient", "optimise.policy_gradient"
_SUMS = ("weight", "clipped", "kl_old", "kl_reference", "entropy", "nll", "replayed", "tokens")


class PolicyGradientTrainer(Trainer):  # type: ignore[misc]
    """Transformers' trainer on the packs of a plan.

    Each metrics record has, for the steps since the last: `clipped`, the share of tokens whose
    gradient the clip range cuts off; `kl_old` and `kl_reference`, the divergences from the weights
    at the start and from the reference policy, estimated on the sampled tokens; `entropy`, the mean
    entropy of the distributions that they are drawn from, in nats; `imitation_loss`; and
    `constants`."""

    loss_is_scaled_for_ga = True
    """Tells Transformers that `compute_loss` returns a share of the step's loss."""

    def __init__(
        self,
        *args: Any,
        options: PolicyGradientConfig,
        plan: Plan,
        moments: Path | None = None,
        constants: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, train_dataset=plan.packs, **kwargs)
        self.options, self.row_order = options, plan
        self.moments, self.constants = moments, constants or {}
        self.sums = torch.zeros(len(_SUMS), device=self.args.device)
        self.tokens = 0.0
        # Old log-probabilities of rows by number, where the first epoch is one step and notes them.
        self.noted: dict[int, torch.Tensor] = {}

    def get_train_dataloader(self) -> Any:
        """The packs of an epoch, one a batch."""
        pad, shared = self.processing_class.pad_token_id, self.row_order.shared
        loader = DataLoader(
            self.train_dataset,
            batch_size=1,
            sampler=self.row_order,
            collate_fn=lambda packs: batch_of(packs[0], pad, shared),
            pin_memory=self.args.dataloader_pin_memory,
        )
        return self.accelerator.prepare(loader)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """The optimiser, with the moments of the training before."""
        optimizer = super().create_optimizer(*args, **kwargs)
        if self.moments:
            moments_in(self.moments, optimizer)
        return optimizer

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False, **_: Any
    ) -> Any:
        """A pass's share of its step's loss, times the number of processes, which average their
        gradients."""
        output = model(**model_inputs(inputs), fused_lm_head=True, use_cache=False)
        logps = output.log_probs.flatten()[inputs["node"]].float()
        weight, replayed, _ = inputs["totals"].clamp(min=1e-12).unbind()
        if notes_old(self.row_order, self.options):
            inputs = {**inputs, "old": self._old(logps.detach(), inputs)}
        losses = policy_losses(logps, inputs, self.options)
        loss = losses.sum() / weight
        imitation = -(logps * inputs["replayed"]).sum()
        if self.options.imitate:
            loss = loss + self.options.imitate * imitation / replayed
        entropy = output.entropy.flatten()[inputs["node"]].float()
        self._note(logps.detach(), entropy.detach(), imitation.detach(), inputs)
        loss = loss.float() * self.accelerator.num_processes
        return (loss, output) if return_outputs else loss

    def _old(self, logps: torch.Tensor, inputs: Batch) -> torch.Tensor:
        """The old log-probabilities of a pass: in the first epoch its own."""
        parts = torch.split(logps, inputs["lengths"].tolist())
        known = [
            part if number < 0 else self.noted.setdefault(number, part)
            for number, part in zip(inputs["numbers"].tolist(), parts, strict=True)
        ]
        return torch.cat([logps[:0], *known])

    @torch.no_grad()
    def _note(
        self, logps: torch.Tensor, entropy: torch.Tensor, nll: torch.Tensor, inputs: Batch
    ) -> None:
        """Add a pass to the sums that the next metrics record divides."""
        weight = inputs["weight"]
        change = logps - _known("old", logps, inputs)
        reference = _known("reference", logps, inputs) - logps
        columns = (_cut_off(change, inputs, self.options), _kl(change), _kl(reference), entropy)
        sums = [weight.sum(), *((weight * column).sum() for column in columns)]
        rest = [nll, inputs["replayed"].sum(), inputs["totals"][2]]
        self.sums += torch.stack([value.float() for value in (*sums, *rest)])

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add our metrics to a record of training."""
        if "loss" in logs:
            sums = self.accelerator.reduce(self.sums, "sum").tolist()
            logs.update(self._metrics(dict(zip(_SUMS, sums, strict=True))))
            self.sums.zero_()
        super().log(logs, *args, **kwargs)

    def _metrics(self, sums: dict[str, float]) -> dict[str, float]:
        names = ["clipped", "kl_old", *(["kl_reference"] if self.options.kl else []), "entropy"]
        weight = sums["weight"]  # 0 where only successes are imitated: nothing is known of these
        metrics = {name: sums[name] / weight for name in names} if weight else {}
        if self.options.imitate:
            metrics["imitation_loss"] = sums["nll"] / (sums["replayed"] or 1.0)
        self.tokens += sums["tokens"]
        return {**metrics, **self.constants, "num_tokens": self.tokens}


def notes_old(plan: Plan, options: PolicyGradientConfig) -> bool:
    """Whether the first step, made with the weights at the start, gives the old log-probabilities:
    where it holds all rows, in one process that is not going to be resumed."""
    alone = plan.steps == 1 and plan.processes == 1 and options.save_steps is None
    return alone and options.old_logprobs == "recomputed"


def policy_losses(logps: torch.Tensor, batch: Batch, options: PolicyGradientConfig) -> torch.Tensor:
    """The loss of each token, times its weight. Without `old` log-probabilities the policy is that
    which sampled.

    For advantages of one sign, min(r A, clip(r) A) is A times the ratio cut on one side; so the
    sums over the episodes of a row are exact for each sign apart."""
    ratio = (logps - _known("old", logps.detach(), batch)).exp()
    gain = batch["positive"] * ratio.clamp(max=1 + _high(options))
    losses: torch.Tensor = -(gain + batch["negative"] * ratio.clamp(min=1 - options.clip))
    if options.kl:
        divergence = _kl(_known("reference", logps.detach(), batch) - logps)
        losses = losses + options.kl * batch["weight"] * ratio * divergence
    return losses


def _known(name: str, logps: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The `old` or `reference` log-probabilities; `logps` for tokens that have none, such as those
    of replayed successes."""
    return torch.where(batch["weight"] > 0, batch[name], logps) if name in batch else logps


def _high(options: PolicyGradientConfig) -> float:
    return options.clip if options.clip_high is None else options.clip_high


def _kl(log_ratio: torch.Tensor) -> torch.Tensor:
    """Estimate of a divergence from q/p at samples of p: q/p - log(q/p) - 1, never below 0
    (Schulman's k3)."""
    return log_ratio.exp() - log_ratio - 1


def _cut_off(log_ratio: torch.Tensor, batch: Batch, options: PolicyGradientConfig) -> torch.Tensor:
    """The share of each token's advantage whose gradient is cut off by the clip range."""
    ratio, positive, negative = log_ratio.exp(), batch["positive"], -batch["negative"]
    high, low = ratio > 1 + _high(options), ratio < 1 - options.clip
    cut: torch.Tensor = (positive * high + negative * low) / (positive + negative).clamp(min=1e-30)
    return cut


@quiet()
@adapted_trl()
def train_policy_gradient(
    options: PolicyGradientConfig,
    episodes: Sequence[WeightedEpisode],
    start: Path | None,
    reference: Path | None,
    output: Path,
    context: TrainingContext,
) -> TrainingReport:
    """Train the policy in folder `start` on episodes; see `Learner.train`."""
    model, tokenizer = load_for_training(context.model, start)
    chat, longest = ChatFormat(tokenizer), longest_row(options, model)
    data = weighted_rows(
        chat,
        episodes,
        longest,
        aggregation=options.aggregation,
        sampled=options.old_logprobs == "sampled",
        scale=options.scale == "batch",
        advantages=options.advantages,
    )
    pool = _successes(options, start, episodes)
    replayed = success_rows(chat, pool, longest)
    _check(data, replayed, longest, len(episodes))
    settings = identity(options, context, data.counts, data.digest)
    work = Workspace(output, f"{settings} {len(pool)} successes")
    if rank() == 0 and options.imitate:
        with clear_errors(SECTION, work):
            replay.write_successes(pool, work.beside)
    trainer = policy_gradient_trainer(
        options, context, data, replayed, model, tokenizer, work.partial, start, reference
    )
    if options.keep_moments and context.model.lora is None:
        trainer.add_callback(CarriedMoments(work.beside))
    with _attention(model, trainer.row_order.shared):
        return fit(trainer, STAGE, work, data.counts, context.observe, SECTION)


def policy_gradient_trainer(
    options: PolicyGradientConfig,
    context: TrainingContext,
    data: WeightedRows,
    replayed: Sequence[TokenRow],
    model: Any,
    tokenizer: Any,
    folder: Path,
    start: Path | None = None,
    reference: Path | None = None,
) -> PolicyGradientTrainer:
    """The trainer as configured; it writes its checkpoints to `folder`. Old and reference
    log-probabilities are computed here."""
    plan = _plan(options, context, data, replayed, model)
    args = training_arguments(
        TrainingArguments,
        STAGE,
        options,
        context,
        math.ceil(options.epochs * plan.steps),
        model,
        folder,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=plan.passes // plan.processes,
        gradient_checkpointing_kwargs={"use_reentrant": False},
    )
    plan = _with_logprobs(plan, options, context, model, tokenizer, args, start, reference)
    add_fused_lm_head(model, context.temperature, outputs=("log_probs", "entropy"))
    adapter = lora(context.model)
    return PolicyGradientTrainer(
        model=(get_peft_model(model, adapter) if adapter else model).train(),
        args=args,
        processing_class=tokenizer,
        options=options,
        plan=plan,
        moments=start if options.keep_moments and not adapter else None,
        constants={
            "without_signal": data.counts.without_signal / max(1, data.given),
            **({"groups_without_signal": data.silent} if options.advantages else {}),
            "positive_advantage": data.positive,
            "negative_advantage": data.negative,
        },
    )


def _successes(
    options: PolicyGradientConfig, start: Path | None, episodes: Sequence[WeightedEpisode]
) -> list[Success]:
    if not options.imitate:
        return []
    return replay.pooled(replay.read_successes(start), episodes, options.imitate_per_task)


def _check(data: WeightedRows, replayed: Sequence[TokenRow], longest: int, given: int) -> None:
    """Raise NothingToTrain where what fits has no advantage, DataError where nothing fits."""
    if not data.rows and not replayed:
        counts = data.counts
        advice = " (raise max_length)" if counts.too_long else ""
        raise (NothingToTrain if counts.without_signal else DataError)(
            f"no episodes to train on: {given} given, {counts.too_long} longer than {longest} "
            f"tokens{advice}, {counts.without_loss} without a sampled token, "
            f"{counts.without_signal} without an advantage other than 0"
        )


def _plan(
    options: PolicyGradientConfig,
    context: TrainingContext,
    data: WeightedRows,
    replayed: Sequence[TokenRow],
    model: Any,
) -> Plan:
    shared = options.share_prefixes
    if shared == "auto":
        shared = model.num_parameters() >= PAYS_FROM
    return Plan(
        data.rows,
        replayed,
        options.batch_size,
        options.micro_batch,
        math.ceil(options.epochs),
        options.imitate_batch,
        derive_seed(context.seed, STAGE, context.iteration),
        world_size(),
        shared and can_share(model),
        data.given,
    )


def _with_logprobs(
    plan: Plan,
    options: PolicyGradientConfig,
    context: TrainingContext,
    model: Any,
    tokenizer: Any,
    args: Any,
    start: Path | None,
    reference_from: Path | None,
) -> Plan:
    """The plan whose rows know their old log-probabilities, unless its first step gives
    them, and with `kl` those under the reference policy."""
    rows, pad = list(plan.rows), tokenizer.pad_token_id
    rows = [replace(row, number=number) for number, row in enumerate(rows)]
    known = math.ceil(options.epochs * plan.steps) == 1 or notes_old(plan, options)
    if not rows:
        return plan
    if options.old_logprobs == "recomputed" and not known:
        old = token_logps(model, rows, plan, pad, args, "log-probabilities", context.temperature)
        rows = [replace(row, old=values) for row, values in zip(rows, old, strict=True)]
    if options.kl:
        policy = model
        if reference_from != start:
            policy, _ = load_for_training(context.model, reference_from)
        given = token_logps(policy, rows, plan, pad, args, "reference", context.temperature)
        rows = [replace(row, reference=values) for row, values in zip(rows, given, strict=True)]
    return replace(plan, rows=rows)


@torch.no_grad()
def token_logps(
    model: Any,
    rows: Sequence[TokenRow],
    plan: Plan,
    pad: int,
    args: Any,
    title: str,
    temperature: float = 1.0,
) -> list[Any]:
    """The log-probabilities of each row's targets under a model at a temperature, in nats, in the
    precision of the training. Each process computes its share."""
    add_fused_lm_head(model, temperature)
    model.to(args.device).eval()
    passes = list(in_passes(rows, math.ceil(len(rows) / plan.micro_batch), plan.shared))
    mine, results = passes[args.process_index :: args.world_size], list[tuple[int, Any]]()
    with _attention(model, plan.shared), progress_bar(title, len(mine), "passes") as progress:
        for numbers in mine:
            part = tuple(rows[number] for number in numbers)
            batch = batch_of(Pack(part, 1.0, 1.0), pad, plan.shared)
            batch = {name: value.to(args.device) for name, value in batch.items()}
            with torch.autocast(args.device.type, dtype=torch.bfloat16, enabled=args.bf16):
                output = model(**model_inputs(batch), fused_lm_head=True, use_cache=False)
            logps = output.log_probs.flatten()[batch["node"]].double().cpu().numpy()
            borders = np.cumsum([len(row.targets) for row in part])[:-1]
            results += zip(numbers, np.split(logps, borders), strict=True)
            if progress:
                progress.advance()
    return [values for _, values in sorted(gather_object(results), key=lambda item: item[0])]


@contextmanager
def _attention(model: Any, shared: bool) -> Iterator[None]:
    """The attention of `prefix_sharing` inside this context, where rows share prefixes."""
    own = model.config._attn_implementation
    if shared:
        model.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        if shared:
            model.set_attn_implementation(own)
