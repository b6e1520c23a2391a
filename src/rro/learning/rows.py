"""From conversations and preference pairs to tokenised rows, with a mask of the tokens that carry
loss; and the order and batches in which they are trained on.

Rows are tokenised once, by the policy's own chat format, and TRL never sees text: tokens that the
policy sampled are trained on as they were sampled. Nothing is truncated: a row that is too long is
left out and counted. Does not know losses or optimisers."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import Sampler
from trl.trainer.dpo_trainer import DataCollatorForPreference

from rro.errors import DataError
from rro.learning.base import RowCounts
from rro.models.chat import ChatFormat
from rro.seeds import derive_seed
from rro.types import Message, PreferencePair

IGNORED = -100
"""The label of a token that carries no loss, as in torch.nn.functional.cross_entropy."""
POOL = 8
"""Optimiser steps whose rows are sorted by length together."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A tokenised training set with a column `length`, the counts of what was left out, and a
    digest of its content."""

    dataset: Dataset
    counts: RowCounts
    digest: str


def sft_rows(chat: ChatFormat, conversations: Sequence[Sequence[Message]], max_length: int) -> Rows:
    """Tokenise conversations, each in the rows of `ChatFormat.steps`: columns `input_ids`, and
    `labels` with IGNORED at every token without loss. Raises DataError if no row is left."""
    encoded = [row for conversation in conversations for row in chat.steps(conversation)]
    rows = [
        {
            "input_ids": row.ids,
            "labels": [
                token if loss else IGNORED for token, loss in zip(row.ids, row.mask, strict=True)
            ],
            "length": len(row.ids),
        }
        for row in encoded
    ]
    masks = [[row.mask] for row in encoded]
    return _select(rows, masks, max_length, "conversations")


def preference_rows(chat: ChatFormat, pairs: Sequence[PreferencePair], max_length: int) -> Rows:
    """Tokenise pairs for TRL: columns `prompt_ids`, `chosen_ids`, `rejected_ids`, and
    `chosen_mask`, `rejected_mask`, which mark the assistant tokens of a side (one message or a
    whole trajectory). Raises DataError if no row is left, or if a side does not continue its prompt
    token by token."""
    rows: list[dict[str, Any]] = []
    masks = []
    for pair in pairs:
        prompt = chat.encode(pair.prompt, add_generation_prompt=True).ids
        chosen, chosen_mask = _side(chat, prompt, pair.prompt, pair.chosen)
        rejected, rejected_mask = _side(chat, prompt, pair.prompt, pair.rejected)
        if chosen == rejected:
            raise DataError(
                f"a pair of task {pair.task!r} has the same tokens on both sides: "
                f"{pair.chosen[-1].text[:60]!r}"
            )
        rows.append(
            {
                "prompt_ids": prompt,
                "chosen_ids": chosen,
                "rejected_ids": rejected,
                "chosen_mask": [int(loss) for loss in chosen_mask],
                "rejected_mask": [int(loss) for loss in rejected_mask],
                "length": len(prompt) + max(len(chosen), len(rejected)),
            }
        )
        masks.append([chosen_mask, rejected_mask])
    return _select(rows, masks, max_length, "pairs")


def _side(
    chat: ChatFormat, prompt: list[int], before: Sequence[Message], after: Sequence[Message]
) -> tuple[list[int], list[bool]]:
    """The tokens of `after` that follow those of the prompt, and which of them carry loss. Raises
    DataError for several answers where each has a prompt of its own."""
    if not chat.keeps and len(after) > 1:
        raise DataError(
            "a pair of several steps has no one prompt where histories drop thoughts: take a "
            'credit of single steps, or set model.thoughts = "keep"'
        )
    encoded = chat.encode([*before, *after], add_generation_prompt=False)
    if encoded.ids[: len(prompt)] != prompt:
        raise DataError(
            "a completion does not continue its prompt token by token: the chat template rewrites "
            "earlier turns; use a template that does not (model.chat_template)"
        )
    return encoded.ids[len(prompt) :], encoded.mask[len(prompt) :]


def _select(
    rows: list[dict[str, Any]], masks: list[list[list[bool]]], max_length: int, kind: str
) -> Rows:
    """Keep the rows that fit and that have loss on every side."""
    fits = [row["length"] <= max_length for row in rows]
    has_loss = [all(any(side) for side in sides) for sides in masks]
    kept = [i for i in range(len(rows)) if fits[i] and has_loss[i]]
    counts = RowCounts(
        used=len(kept),
        too_long=fits.count(False),
        without_loss=sum(fit and not loss for fit, loss in zip(fits, has_loss, strict=True)),
        tokens=sum(_tokens(rows[i]) for i in kept),
        loss_tokens=sum(sum(side) for i in kept for side in masks[i]),
    )
    if not kept:
        raise DataError(
            f"no {kind} to train on: {len(rows)} given, {counts.too_long} longer than {max_length} "
            f"tokens (raise max_length), {counts.without_loss} without an assistant token"
        )
    used = [rows[i] for i in kept]
    return Rows(Dataset.from_list(used), counts, _digest(used))


def _tokens(row: dict[str, Any]) -> int:
    if "input_ids" in row:
        return len(row["input_ids"])
    return 2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"])


def _digest(rows: list[dict[str, Any]]) -> str:
    digest = blake2b(digest_size=16)
    for row in rows:
        digest.update(repr(row).encode())
    return digest.hexdigest()


@dataclass
class PreferenceCollator(DataCollatorForPreference):  # type: ignore[misc]
    """TRL's batches of pairs, without the observations inside a completion.

    TRL marks every token after the prompt in `completion_mask`, shape (2 x pairs, tokens), chosen
    sides first; here only the assistant's tokens stay marked."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super().torch_call(examples)
        sides = [(example, side) for side in ("chosen", "rejected") for example in examples]
        for marked, (example, side) in zip(batch["completion_mask"], sides, strict=True):
            start, mask = len(example["prompt_ids"]), torch.tensor(example[f"{side}_mask"])
            marked[start : start + len(mask)] *= mask
        return batch


class LengthOrder(Sampler[int]):
    """The order of rows in an epoch: random, but rows of similar length share an optimiser step.

    A function of `seed` and the epoch only: neither resuming, nor the split of `batch_size` into
    micro-batches and devices, changes which rows make up which step. There is little padding, and
    shapes repeat (see PAD_MULTIPLE). The bias of sorting is limited to pools of POOL steps."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = list(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The next iteration gives the order of this epoch, counted from 0."""
        self.epoch = epoch

    @property
    def steps(self) -> int:
        """Optimiser steps of an epoch; an incomplete one at its end counts."""
        return math.ceil(len(self.lengths) / self.batch_size)

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        draw = random.Random(derive_seed(self.seed, "order", self.epoch))
        order = list(range(len(self.lengths)))
        draw.shuffle(order)
        for pool in range(0, len(order), POOL * self.batch_size):
            inside = slice(pool, pool + POOL * self.batch_size)
            order[inside] = sorted(order[inside], key=self.lengths.__getitem__)
        steps = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        # An incomplete step stays last: elsewhere it would shift the borders of all steps that
        # follow it.
        last = steps.pop() if len(order) % self.batch_size else []
        draw.shuffle(steps)
        return iter([row for step in (*steps, last) for row in step])
