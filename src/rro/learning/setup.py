"""What SFT and DPO share before the first step: the model in float32, Transformers' arguments from
ours, and what both of TRL's trainers are changed in. Does not know losses; the run itself is in
`loop`."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import trl.trainer.utils
from peft import LoraConfig
from transformers.utils import logging as transformers_logging

from rro.config import ModelConfig, TrainingConfig
from rro.errors import UsageError
from rro.learning.base import TrainingContext
from rro.learning.rows import LengthOrder, Rows
from rro.models.loading import load_model, resolve_device
from rro.processes import world_size
from rro.runs.trackers import PROJECT
from rro.seeds import derive_seed

PAD_MULTIPLE = 16  # few shapes: the first batch of a new one is slow on a CPU
NATIVE_BF16_PARAMETERS = 50_000_000  # below, conversion costs a CPU more than bf16 saves
LOGS = 100  # metric records per training, about


def load_for_training(config: ModelConfig, checkpoint: Path | None) -> tuple[Any, Any]:
    """The model in float32, with an adapter, if the checkpoint is one, merged into it; and its
    tokenizer."""
    device = resolve_device(config.device)
    if device.type == "cuda":
        if device.index and "LOCAL_RANK" not in os.environ:
            raise UsageError(
                f"model.device {config.device}: training takes the first GPU; set CUDA_VISIBLE_DEVICES"
            )
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    model, tokenizer = load_model(config, checkpoint, train=True)
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    return model, tokenizer


def longest(options: TrainingConfig, model: Any) -> int:
    """The most tokens that a row may have: max_length, or what the model can take, padding
    included."""
    context = getattr(model.config, "max_position_embeddings", None) or options.max_length
    return min(options.max_length, context - context % PAD_MULTIPLE)


def lora(model: ModelConfig) -> LoraConfig | None:
    """A fresh adapter as configured, or None for full fine-tuning."""
    wanted = model.lora
    if wanted is None:
        return None
    return LoraConfig(
        r=wanted.rank,
        lora_alpha=wanted.alpha,
        lora_dropout=wanted.dropout,
        target_modules=wanted.targets,
        task_type="CAUSAL_LM",
    )


def uses_bf16(precision: str, device: torch.device, parameters: int) -> bool:
    """Whether to train under bf16 autocast. "auto": on a GPU that has it; on a CPU with bf16
    instructions and a model large enough to gain (without the instructions torch emulates them,
    three times slower than float32)."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        native = torch.cpu.get_capabilities()
        return (
            bool(native.get("amx_bf16") or native.get("avx512_bf16"))
            and parameters >= NATIVE_BF16_PARAMETERS
        )
    return False


def optimiser_steps(options: TrainingConfig, rows: Rows) -> int:
    """How many optimiser steps a training has; an incomplete batch at the end of an epoch is a step
    too."""
    return math.ceil(options.epochs * math.ceil(len(rows.dataset) / options.batch_size))


def training_arguments(
    kind: type,
    stage: str,
    options: TrainingConfig,
    context: TrainingContext,
    rows: Rows,
    model: Any,
    folder: Path,
    **extra: Any,
) -> Any:
    """A TRL configuration of class `kind` for the stage `stage`. TRL's own defaults for gradient
    checkpointing, bf16 and length are all overridden. Raises UsageError if batch_size does not
    divide among the processes."""
    micro, accumulation = _split(options, world_size())
    steps = optimiser_steps(options, rows)
    device = resolve_device(context.model.device)
    on_cpu = device.type == "cpu"
    args = kind(
        output_dir=str(folder),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=accumulation,
        num_train_epochs=options.epochs,
        learning_rate=options.learning_rate,
        lr_scheduler_type=options.scheduler,
        warmup_steps=round(options.warmup * steps),
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        gradient_checkpointing=options.gradient_checkpointing,
        bf16=uses_bf16(options.precision, device, model.num_parameters()),
        fp16=False,
        use_cpu=on_cpu,
        max_length=None,  # longer rows are left out already
        pad_to_multiple_of=PAD_MULTIPLE,
        remove_unused_columns=False,
        dataloader_pin_memory=not on_cpu,
        ddp_find_unused_parameters=False,
        logging_steps=max(1, round(steps / LOGS)),
        logging_nan_inf_filter=False,  # a loss that is not finite must show
        save_strategy="no" if options.save_steps is None else "steps",
        save_steps=options.save_steps or 500,
        save_total_limit=1,
        seed=derive_seed(context.seed, stage) % 2**32,
        report_to=list(context.report_to) or "none",
        run_name=f"{context.run}-{folder.name.removesuffix('.partial')}",
        project=PROJECT,
        disable_tqdm=True,
        **extra,
    )
    if (
        args.n_gpu > 1
    ):  # several GPUs without a launcher: use one, rather than nn.DataParallel, which TRL refuses
        args._n_gpu = 1
    return args


def _split(options: TrainingConfig, world: int) -> tuple[int, int]:
    """(rows per forward pass, passes per step): their product times `world` is batch_size."""
    share, rest = divmod(options.batch_size, world)
    if rest or not share:
        raise UsageError(
            f"batch_size {options.batch_size} does not divide among {world} processes: choose a multiple"
        )
    micro = next(
        size for size in range(min(options.micro_batch, share), 0, -1) if share % size == 0
    )
    return micro, share // micro


def identity(options: TrainingConfig, context: TrainingContext, rows: Rows) -> str:
    """What a checkpoint must agree with to be resumed from."""
    settings = {
        "training": options.model_dump(),
        "lora": context.model.lora and context.model.lora.model_dump(),
    }
    counts = asdict(rows.counts)
    # Absent in version 0.1; the digest of the rows covers it.
    del counts["capped"]
    return json.dumps({**settings, "seed": context.seed, "rows": rows.digest, **counts})


def score_only_loss_positions() -> None:
    """Make TRL compute the vocabulary head only where there is loss, on a CPU too.

    TRL decides by whether the device runs Triton, as compiling back ends want fixed shapes; a CPU
    gains 1.1 to 1.7 times. Where a later TRL has no such switch this changes nothing."""
    if hasattr(trl.trainer.utils, "_use_triton"):
        trl.trainer.utils._use_triton = lambda device: device.type in ("cpu", "cuda", "xpu")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what Transformers and TRL say on the way: it is for their developers, and would tear
    our bar."""
    level, bars = (
        transformers_logging.get_verbosity(),
        transformers_logging.is_progress_bar_enabled(),
    )
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # such as the coming name of gradient_checkpointing
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


class TokenisedRowsMixin:
    """What both trainers change in TRL's: rows are tokenised already, their order is LengthOrder's,
    no telemetry, no model card. To be put before the TRL class."""

    row_order: LengthOrder

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthOrder:
        args: Any = self.args  # type: ignore[attr-defined]
        rows = self.train_dataset if train_dataset is None else train_dataset  # type: ignore[attr-defined]
        batch_size = (
            args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        )
        self.row_order = LengthOrder(rows["length"], batch_size, args.seed)
        return self.row_order

    def _send_telemetry(self) -> None:
        return

    def create_model_card(self, *_: Any, **__: Any) -> None:
        return
