"""What SFT and DPO share before the first step: the model in float32, the adapter, and TRL's
arguments from our options.

Does not know losses; the training itself is in `loop`."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from torch.utils.data import DataLoader

from rro.config import ModelConfig, TrainingConfig
from rro.errors import UsageError
from rro.learning.base import RowCounts, TrainingContext
from rro.learning.rows import LengthOrder, Rows
from rro.learning.trl_internals import use_one_gpu
from rro.models.loading import computes_bf16, load_model, resolve_device
from rro.processes import world_size
from rro.runs.trackers import PROJECT
from rro.seeds import derive_seed

PAD_MULTIPLE = 16
"""Batches are padded to a multiple of this many tokens, so that shapes repeat: on a CPU the first
batch of a new shape is slow."""
NATIVE_BF16_PARAMETERS = 50_000_000
"""Below this size, converting the weights costs a CPU more than bf16 saves."""
TRL_ROWS = {"max_length": None, "pad_to_multiple_of": PAD_MULTIPLE}
"""What TRL's configurations know of rows: those that are too long are left out before."""
RECORDS = 100
"""Metrics records per training, about."""
_NEW = frozenset({"final_learning_rate", "later_beta", "later_rate", "reference", "sft_loss"})


def load_for_training(config: ModelConfig, checkpoint: Path | None) -> tuple[Any, Any]:
    """The model in float32, an adapter merged into it, and its tokenizer."""
    device = resolve_device(config.device)
    if device.type == "cuda":
        if device.index and "LOCAL_RANK" not in os.environ:
            raise UsageError(
                f"model.device {config.device}: training uses the first visible GPU; set "
                "CUDA_VISIBLE_DEVICES to choose one"
            )
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    model, tokenizer = load_model(config, checkpoint, train=True)
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    return model, tokenizer


def longest_row(options: TrainingConfig, model: Any) -> int:
    """The most tokens that a row may have: max_length, or the model's context, padding included."""
    context = getattr(model.config, "max_position_embeddings", None) or options.max_length
    return min(options.max_length, context - context % PAD_MULTIPLE)


def lora(model: ModelConfig) -> LoraConfig | None:
    """A fresh adapter as configured, or None for full fine-tuning."""
    if model.lora is None:
        return None
    return LoraConfig(
        r=model.lora.rank,
        lora_alpha=model.lora.alpha,
        lora_dropout=model.lora.dropout,
        target_modules=model.lora.targets,
        task_type="CAUSAL_LM",
    )


def uses_bf16(precision: str, device: torch.device, parameters: int) -> bool:
    """Whether to train under bf16 autocast. "auto" means: where the hardware computes in bf16, on a
    CPU only if the model is large enough to gain."""
    if precision != "auto":
        return precision == "bfloat16"
    gains = device.type != "cpu" or parameters >= NATIVE_BF16_PARAMETERS
    return gains and computes_bf16(device)


def training_arguments(
    kind: type,
    stage: str,
    options: TrainingConfig,
    context: TrainingContext,
    steps: int,
    model: Any,
    folder: Path,
    **extra: Any,
) -> Any:
    """The configuration of class `kind`, Transformers' or TRL's, for the learner `stage`: so many
    optimiser steps, checkpoints in `folder`; `extra` settings go before these. Raises UsageError
    if batch_size does not divide among the processes."""
    micro, accumulation = _split(options, world_size())
    device = resolve_device(context.model.device)
    on_cpu = device.type == "cpu"
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "seed": derive_seed(context.seed, stage) % 2**32,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": accumulation,
        "num_train_epochs": options.epochs,
        "learning_rate": options.learning_rate,
        "lr_scheduler_type": options.scheduler,
        "warmup_steps": round(options.warmup * steps),
        "weight_decay": options.weight_decay,
        "max_grad_norm": options.max_grad_norm,
        "gradient_checkpointing": options.gradient_checkpointing,
        "bf16": uses_bf16(options.precision, device, model.num_parameters()),
        "fp16": False,
        "use_cpu": on_cpu,
        "dataloader_pin_memory": not on_cpu,
        "ddp_find_unused_parameters": False,
        "remove_unused_columns": False,
        "save_strategy": "no" if options.save_steps is None else "steps",
        "save_steps": options.save_steps or 500,
        "save_total_limit": 1,
        "logging_steps": max(1, round(steps / RECORDS)),
        # A loss that is not finite must show.
        "logging_nan_inf_filter": False,
        "report_to": list(context.report_to) or "none",
        "run_name": f"{context.run}-{folder.name.removesuffix('.partial')}",
        "project": PROJECT,
        "disable_tqdm": True,
    }
    args = kind(**(settings | extra))
    use_one_gpu(args)
    return args


def optimiser_steps(options: TrainingConfig, rows: Rows) -> int:
    """Optimiser steps of a training; an incomplete batch at the end of an epoch is one too."""
    return math.ceil(options.epochs * math.ceil(len(rows.dataset) / options.batch_size))


def _split(options: TrainingConfig, world: int) -> tuple[int, int]:
    """(rows per forward pass, passes per step): their product times `world` is batch_size."""
    share, rest = divmod(options.batch_size, world)
    if rest or not share:
        raise UsageError(
            f"batch_size {options.batch_size} does not divide among {world} processes: choose a "
            "multiple"
        )
    limit = min(options.micro_batch, share)
    micro = next(size for size in range(limit, 0, -1) if share % size == 0)
    return micro, share // micro


def identity(
    options: TrainingConfig, context: TrainingContext, counts: RowCounts, digest: str
) -> str:
    """What a training must agree with to resume from the checkpoint of another: settings, and the
    rows by their counts and digest."""
    lora = context.model.lora
    training = options.model_dump()
    # Settings that version 0.1 did not have stand there where they are set.
    for name in _NEW & training.keys():
        if training[name] == type(options).model_fields[name].default:
            del training[name]
    settings = {"training": training, "lora": lora and lora.model_dump()}
    counted = asdict(counts)
    # The digest covers what version 0.1 did not count.
    for name in ("capped", "without_signal", "merged"):
        del counted[name]
    return json.dumps({**settings, "seed": context.seed, "rows": digest, **counted})


class OrderedRows:
    """Put before a TRL trainer: the order is that of `LengthOrder`; no model card is written."""

    args: Any
    train_dataset: Any
    data_collator: Any
    accelerator: Any

    @cached_property
    def row_order(self) -> LengthOrder:
        """The order of rows, the same on every process."""
        args = self.args
        step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        return LengthOrder(self.train_dataset["length"], step, args.seed)

    def get_train_dataloader(self) -> Any:
        """The batches of an epoch, without Transformers' own sampler."""
        loader = DataLoader(
            self.train_dataset,
            batch_size=self.args.train_batch_size,
            sampler=self.row_order,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return self.accelerator.prepare(loader)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        return
