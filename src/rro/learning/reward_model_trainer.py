"""Trains all weights of a process reward model, on Transformers' Trainer, instead of a head alone.

Knows neither where labels come from nor how a value's error is measured (`reward_model`)."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import PrinterCallback, Trainer, TrainingArguments

from rro.errors import RroError
from rro.learning.loop import quiet
from rro.learning.reward_model import (
    FOLDS,
    Action,
    Head,
    Labels,
    Learning,
    Text,
    Worth,
    calibrate,
    conversations,
    features_of,
)
from rro.models.process_rewards import ProcessRewardModel, Scale
from rro.seeds import derive_seed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FineTuning:
    """How all weights are trained; `batch_size` counts conversations."""

    epochs: float = 2.0
    learning_rate: float = 1e-4
    batch_size: int = 8


def train_all_weights(
    make: Callable[[], ProcessRewardModel], labels: Labels, options: FineTuning, seed: int = 0
) -> tuple[ProcessRewardModel, Scale, Worth]:
    """A model of `make` trained on all actions, each weighted by its outcomes; its calibration and
    its worth by models that left tasks out: as many trainings as there are folds, and one. Raises
    DataError for fewer tasks than folds."""
    measured = Learning(labels, held_out_scores(make, labels, options, seed))
    same, folds = Head(torch.ones(1), 0.0), measured.folds(FOLDS, seed)
    scale, worth = calibrate(measured, folds, dict.fromkeys(measured.tasks, same))
    model = make()
    fine_tune(model, labels.actions, labels.bounds, options, seed)
    return model, scale, worth


def held_out_scores(
    make: Callable[[], ProcessRewardModel], labels: Labels, options: FineTuning, seed: int = 0
) -> dict[Text, Tensor]:
    """The number of each action by a model that did not learn from its task: shape (1,)."""
    numbers = dict[Text, Tensor]()
    for fold in Learning(labels, {}).folds(FOLDS, seed):
        own = {text: action for text, action in labels.actions.items() if action.task in fold}
        others = {text: labels.actions[text] for text in labels.actions.keys() - own.keys()}
        model = make()
        fine_tune(model, others, labels.bounds, options, seed)
        numbers |= scores_of(model, own)
    return numbers


def scores_of(model: ProcessRewardModel, actions: Mapping[Text, Action]) -> dict[Text, Tensor]:
    """The head's number for each action: shape (1,)."""
    features = features_of(model, actions)
    with torch.inference_mode():
        return {
            text: model.head(row.to(model.model.device)).float().cpu()
            for text, row in features.items()
        }


@quiet()
def fine_tune(
    model: ProcessRewardModel,
    actions: Mapping[Text, Action],
    bounds: tuple[float, float],
    options: FineTuning,
    seed: int = 0,
) -> None:
    """Train all weights, in place: the sigmoid of the head's number at an action's last token is
    the share of its mean outcome within `bounds`. Raises RroError for a loss that is not
    finite."""
    rows, on_cpu = rows_of(model, actions, bounds), model.model.device.type == "cpu"
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=options.epochs,
            learning_rate=options.learning_rate,
            per_device_train_batch_size=options.batch_size,
            lr_scheduler_type="cosine",
            warmup_steps=0.1,
            seed=derive_seed(seed, "process reward model") % 2**32,
            use_cpu=on_cpu,
            dataloader_pin_memory=not on_cpu,
            remove_unused_columns=False,
            save_strategy="no",
            logging_nan_inf_filter=False,
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Trainer(
            model=model.model,
            args=arguments,
            train_dataset=rows,
            data_collator=_padded,
            compute_loss_func=_loss,
        )
        trainer.remove_callback(PrinterCallback)
        loss = trainer.train().training_loss
    if not math.isfinite(loss):
        raise RroError("the loss is no longer finite: lower --learning-rate")
    log.info("all weights on %d conversations: loss %.4f", len(rows), loss)
    model.model.eval()


def rows_of(
    model: ProcessRewardModel, actions: Mapping[Text, Action], bounds: tuple[float, float]
) -> list[dict[str, list[Any]]]:
    """One row for each conversation: token ids, and for each token a share and its weight, which is
    0 but at the last tokens of actions."""
    rows, (low, high) = list[dict[str, list[Any]]](), bounds
    for messages, texts in conversations(actions):
        ids, places = model.encode(messages)
        labels = [[0.0, 0.0] for _ in ids]
        for place, text in zip(places, texts, strict=True):
            if text is not None:
                share = (actions[text].mean - low) / (high - low)
                labels[place] = [min(max(share, 0.0), 1.0), float(len(actions[text].outcomes))]
        rows.append({"input_ids": list(ids), "labels": labels})
    # in an order that follows from the texts alone, whatever order they came in
    return sorted(rows, key=lambda row: row["input_ids"])


def _padded(rows: Sequence[Mapping[str, list[Any]]]) -> dict[str, Tensor]:
    longest = max(len(row["input_ids"]) for row in rows)
    spare = [longest - len(row["input_ids"]) for row in rows]
    together = list(zip(rows, spare, strict=True))
    return {
        "input_ids": torch.tensor([row["input_ids"] + [0] * n for row, n in together]),
        "attention_mask": torch.tensor([[1] * (longest - n) + [0] * n for n in spare]),
        "labels": torch.tensor([row["labels"] + [[0.0, 0.0]] * n for row, n in together]),
    }


def _loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    shares, weights = labels.unbind(-1)
    logits = outputs.logits[..., 0].float()
    each = binary_cross_entropy_with_logits(logits, shares, reduction="none")
    return (each * weights).sum() / weights.sum()
