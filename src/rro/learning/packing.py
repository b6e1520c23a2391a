"""Which rows make up which optimiser step and forward pass of a policy gradient, and their tensors.

A plan is a function of the rows and the seed only: neither resuming nor the number of processes
changes it. Knows nothing of the loss."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

from rro.learning.prefix_sharing import TokenTree
from rro.learning.rows import IGNORED
from rro.learning.setup import PAD_MULTIPLE
from rro.learning.weighted_rows import TokenRow
from rro.seeds import derive_seed

Batch = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pack:
    """The rows of one forward pass, and the totals of its optimiser step, which make losses means:
    `weight`, of the tokens of the step's episodes (of its episodes, where their tokens weigh one
    together), and `replayed`, the tokens of its replayed successes."""

    rows: tuple[TokenRow, ...]
    weight: float
    replayed: float


@dataclass
class Plan(Sampler[int]):
    """The packs of all epochs, and their order: `passes` packs make a step, `steps` steps an epoch.

    Steps hold whole tasks where they can, in a random order, divided evenly; a step also replays up
    to `replay` of the `successes`. Inside a step, rows of similar length share a pass, or with
    `shared` those that begin alike."""

    rows: Sequence[TokenRow]
    successes: Sequence[TokenRow]
    batch_size: int
    micro_batch: int
    epochs: int
    replay: int
    seed: int
    processes: int = 1
    shared: bool = False
    given: int = 0
    """How many episodes there are in all, for the number of steps where none teaches anything but
    successes are replayed."""
    packs: list[Pack] = field(init=False)
    steps: int = field(init=False)
    passes: int = field(init=False)
    epoch: int = 0

    def __post_init__(self) -> None:
        episodes = sum(row.episodes for row in self.rows) or self.given
        self.steps = max(1, round(episodes / self.batch_size))
        if self.rows:
            self.steps = min(self.steps, len(self.rows))
        steps = [step for epoch in range(self.epochs) for step in self._steps_of(epoch)]
        passes = math.ceil(max(map(len, steps)) / self.micro_batch)
        self.passes = math.ceil(passes / self.processes) * self.processes
        self.packs = [pack for step in steps for pack in self._packs_of(step)]

    def set_epoch(self, epoch: int) -> None:
        """The next iteration gives the packs of this epoch, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps * self.passes

    def __iter__(self) -> Iterator[int]:
        start = self.epoch % self.epochs * len(self)
        return iter(range(start, start + len(self)))

    def _steps_of(self, epoch: int) -> Iterator[list[TokenRow]]:
        """The rows of each step of an epoch."""
        draw = random.Random(derive_seed(self.seed, "order", epoch))
        tasks = sorted({row.task for row in self.rows})
        draw.shuffle(tasks)
        place = {task: number for number, task in enumerate(tasks)}
        order = sorted(self.rows, key=lambda row: place[row.task])
        for part in np.array_split(np.arange(len(order)), self.steps):
            replayed = draw.sample(self.successes, min(self.replay, len(self.successes)))
            yield [*(order[i] for i in part), *replayed]

    def _packs_of(self, step: Sequence[TokenRow]) -> Iterator[Pack]:
        weight = sum(float(row.weight.sum()) for row in step if row.episodes)
        replayed = sum(len(row.targets) for row in step if not row.episodes)
        for numbers in in_passes(step, self.passes, self.shared):
            yield Pack(tuple(step[number] for number in numbers), weight, replayed)


def in_passes(rows: Sequence[TokenRow], passes: int, shared: bool) -> Iterator[list[int]]:
    """The numbers of rows divided evenly into `passes`: those of similar length together, or with
    `shared` those that begin alike."""

    def place(number: int) -> Any:
        ids = rows[number].ids
        return ids.tolist() if shared else len(ids)

    order = np.array(sorted(range(len(rows)), key=place), dtype=np.int64)
    return (part.tolist() for part in np.array_split(order, passes))


def batch_of(pack: Pack, pad: int, shared: bool) -> Batch:
    """The tensors of a forward pass.

    What the model takes, as `model_inputs` selects it, and for each token with loss (all rows one
    after the other): `node`, the place of its prediction in the flattened output, `weight`,
    `positive` and `negative` as in `TokenRow`, `replayed` (1 for a token of a replayed success) and
    `old` and `reference` log-probabilities where the rows have them; the rows' numbers and how many
    such tokens each has; and the step's totals."""
    inputs, nodes = _tree_inputs(pack.rows, pad) if shared else _padded_inputs(pack.rows, pad)
    labels = torch.full(inputs["input_ids"].shape, IGNORED)
    node = torch.tensor(_joined(nodes, np.int64))
    targets = _joined([row.ids[row.targets] for row in pack.rows], np.int64)
    labels.view(-1)[node] = torch.tensor(targets)
    columns: Batch = {"node": node}
    for name in ("weight", "positive", "negative"):
        values = [getattr(row, name) * bool(row.episodes) for row in pack.rows]
        columns[name] = torch.tensor(_joined(values, np.float32))
    replayed = [np.full(len(row.targets), not row.episodes) for row in pack.rows]
    columns["replayed"] = torch.tensor(_joined(replayed, np.float32))
    for name in ("old", "reference"):
        known = [getattr(row, name) for row in pack.rows]
        if any(values is not None for values in known):
            filled = [
                np.zeros(len(row.targets)) if values is None else values
                for row, values in zip(pack.rows, known, strict=True)
            ]
            columns[name] = torch.tensor(_joined(filled, np.float32))
    tokens = sum(len(row.ids) * max(1, row.episodes) for row in pack.rows)
    columns["numbers"] = torch.tensor([row.number for row in pack.rows], dtype=torch.long)
    columns["lengths"] = torch.tensor([len(row.targets) for row in pack.rows], dtype=torch.long)
    totals = {"totals": torch.tensor([pack.weight, pack.replayed, tokens], dtype=torch.float32)}
    return {**inputs, "shift_labels": labels, **columns, **totals}


def model_inputs(batch: Batch) -> Batch:
    """The part of a batch that the model takes."""
    names = ("input_ids", "attention_mask", "position_ids", "shift_labels", "paths", "owners")
    return {name: batch[name] for name in names if name in batch}


def _padded_inputs(rows: Sequence[TokenRow], pad: int) -> tuple[Batch, list[NDArray[np.int64]]]:
    """One row of the batch for each, padded at the end; and where targets are predicted."""
    longest = max((len(row.ids) for row in rows), default=1)
    width = math.ceil(longest / PAD_MULTIPLE) * PAD_MULTIPLE
    ids = np.full((max(1, len(rows)), width), pad)
    mask = np.zeros_like(ids)
    # A pass without rows still runs, on one token, as the other processes wait for it.
    mask[:, 0] = 1
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = row.ids
        mask[number, : len(row.ids)] = 1
    nodes = [number * width + row.targets - 1 for number, row in enumerate(rows)]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}, nodes


def _tree_inputs(rows: Sequence[TokenRow], pad: int) -> tuple[Batch, list[NDArray[np.int64]]]:
    """All rows in one, each common beginning once; and where targets are predicted."""
    tree = TokenTree([row.ids for row in rows], pad, PAD_MULTIPLE)
    paths = tree.paths
    nodes = [paths[number, row.targets - 1] for number, row in enumerate(rows)]
    inputs = {
        "input_ids": tree.ids[None],
        "position_ids": tree.positions[None],
        "paths": tree.paths,
        "owners": tree.owners,
    }
    return {name: torch.tensor(values) for name, values in inputs.items()}, nodes


def _joined(arrays: Sequence[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype), *arrays]).astype(dtype)
