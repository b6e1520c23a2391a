"""Attention that reads a beginning shared by many rows once, not once per row.

Drawing tokens on a CPU is bound by memory: every step reads all keys and values of every row, and siblings and rollouts
are mostly the same history. Here each shared stretch of it is kept once, as a trunk, and multiplied with the queries
of all its rows together; what a row has for itself lies in its slot. Used where it was found to agree with the model's
own attention (see `make_generator`); GPUs, which would wait for the many small kernels, do without.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from rro.policies.kv_slots import KeyValueSlots
from rro.policies.prefix_cache import BLOCK, Block
from rro.policies.sampling import Row

_NAME = "rro_shared_prefix"
_now = threading.local()  # .attend: the attention of the forward pass that this thread is in


@dataclass(slots=True, eq=False)
class _Trunk:
    """Consecutive blocks in one tensor (2 x layers, heads, tokens, size), from token `start` of its rows' histories.
    A row uses a trunk from its beginning, up to where its own history branches off."""

    blocks: list[int]
    state: Tensor
    start: int
    users: int = 0


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Tokens that the rows first..last-1, in sorted order, have in common."""

    first: int
    last: int
    start: int
    end: int
    state: Tensor


class SharedPrefixes:
    """Which rows share which beginnings. Rows `enter` and `leave`; `arrange` before a step where they changed, and make
    its forward pass under `reading`."""

    def __init__(self) -> None:
        self._trunks: dict[int, _Trunk] = {}  # by their first block
        self._blocks: dict[Row, list[Block]] = {}  # that a row began with
        self._used: dict[Row, list[tuple[_Trunk, int]]] = {}  # the trunks a row reads, and how many blocks of each
        self._stretches: list[_Stretch] = []
        self._order = self._inverse = torch.empty(0, dtype=torch.long)
        self._width = 0

    def enter(self, rows: Sequence[Row], blocks: list[Block]) -> list[Block]:
        """Rows that begin with these blocks come in; returns the first of them, which the rows read from here: those that
        other rows had too at the same time. A history that merely grows step by step is not worth a trunk."""
        for block in blocks:
            block.rows += len(rows)
            block.popular = block.popular or block.rows > 1
        common = list(takewhile(lambda block: block.popular, blocks))
        for row in rows:
            self._blocks[row] = blocks
            self._used[row] = self._climb(common)
        return common

    def _climb(self, blocks: list[Block]) -> list[tuple[_Trunk, int]]:
        used, at = [], 0
        while at < len(blocks):
            trunk = self._trunks.get(blocks[at].id)
            if trunk is None:
                ids, states = zip(*((block.id, block.state) for block in blocks[at:]), strict=True)
                trunk = self._trunks[ids[0]] = _Trunk(list(ids), torch.cat(states, 2), at * BLOCK)
            pairs = zip(trunk.blocks, blocks[at:], strict=False)
            count = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1].id, pairs))
            trunk.users += 1
            used.append((trunk, count))
            at += count
        return used

    def leave(self, row: Row) -> None:
        for block in self._blocks.pop(row):
            block.rows -= 1
        for trunk, _ in self._used.pop(row):
            trunk.users -= 1
            if not trunk.users:
                del self._trunks[trunk.blocks[0]]

    def arrange(self, rows: Sequence[Row]) -> None:
        """Sort the rows such that those with a common beginning lie together, and list what each stretch of them has in
        common. Needed whenever the rows or their order changed."""
        chains = [tuple(id_ for trunk, count in self._used[row] for id_ in trunk.blocks[:count]) for row in rows]
        order = sorted(range(len(rows)), key=lambda number: chains[number])
        users: dict[_Trunk, list[tuple[int, int]]] = {}
        for place, number in enumerate(order):
            for trunk, count in self._used[rows[number]]:
                users.setdefault(trunk, []).append((place, count))
        self._stretches = []
        for trunk, places in users.items():
            begin = 0
            for end in sorted({count for _, count in places}):
                inside = [place for place, count in places if count >= end]
                start, stop = begin * BLOCK, end * BLOCK
                state = trunk.state[:, :, start:stop]
                self._stretches.append(
                    _Stretch(inside[0], inside[-1] + 1, trunk.start + start, trunk.start + stop, state)
                )
                begin = end
        self._order = torch.tensor(order)
        self._inverse = torch.argsort(self._order)
        self._width = max((stretch.end for stretch in self._stretches), default=0)

    @contextmanager
    def reading(self, model: Any, slots: KeyValueSlots) -> Iterator[None]:
        """Within it, `model` reads the shared beginnings from here and the rest from `slots`; one token per row."""
        if not self._stretches:
            yield
            return
        config = model.config.get_text_config()
        before = config._attn_implementation
        config._attn_implementation = _NAME
        _now.attend = lambda query, keys, values, mask, scale: self._attend(
            query, keys, values, mask, scale, slots.layer
        )
        try:
            yield
        finally:
            config._attn_implementation = before
            del _now.attend

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float, layer: int) -> Tensor:
        """Attention of one token per row: query (rows, query heads, 1, size), keys and values (rows, heads, own tokens,
        size); gives (rows, 1, query heads, size). In sorted order, heads come first: (heads, rows x group, ...)."""
        rows, heads, _, size = keys.shape
        group = query.shape[1] // heads
        own_query = (query * scale).view(rows, heads, group, size)
        shared_query = self._sorted(own_query)
        scores = shared_query.new_full((heads, rows * group, self._width), torch.finfo(query.dtype).min)
        for part in self._stretches:
            place = slice(part.first * group, part.last * group)
            scores[:, place, part.start : part.end] = torch.bmm(shared_query[:, place], part.state[2 * layer].mT)
        own_scores = torch.matmul(own_query, keys.mT).add_(mask)
        both = torch.cat([scores, self._sorted(own_scores)], -1)
        weights = torch.softmax(both, -1, dtype=torch.float32).to(query.dtype)
        output = shared_query.new_zeros(shared_query.shape)
        for part in self._stretches:
            place = slice(part.first * group, part.last * group)
            output[:, place] += torch.bmm(weights[:, place, part.start : part.end], part.state[2 * layer + 1])
        own_output = torch.matmul(self._unsorted(weights[..., self._width :], rows), values)
        return own_output.add_(self._unsorted(output, rows)).view(rows, 1, heads * group, size)

    def _sorted(self, tensor: Tensor) -> Tensor:
        """From (rows, heads, group, n) to (heads, rows x group, n), rows in sorted order."""
        return tensor[self._order].transpose(0, 1).flatten(1, 2)

    def _unsorted(self, tensor: Tensor, rows: int) -> Tensor:
        heads, _, size = tensor.shape
        return tensor.view(heads, rows, -1, size).transpose(0, 1)[self._inverse]


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What Transformers calls in place of its own attention. Refuses what it does not know how to do."""
    unknown = [name for name in ("softcap", "s_aux", "position_bias") if kwargs.get(name) is not None]
    if unknown:
        raise ValueError(f"shared-prefix attention has no {', '.join(unknown)}")
    return _now.attend(query, key, value, attention_mask, query.shape[-1] ** -0.5 if scaling is None else scaling), None


AttentionInterface.register(_NAME, _attention)
