"""Preallocated keys and values of the sequences that are being generated, as a Transformers cache.

One tensor holds everything: (2 x layers, rows, heads, capacity, head size). Token j of a sequence lies at position j of
its row, whatever the other rows do: sequences of different lengths need no padding, join at the end, and leave by
having the last row moved into their place. Only plain full attention can live here; `plain_layout` finds out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

_ALIGN = 16  # widths are multiples of it: fewer different shapes, and fast kernels on GPUs want it


@dataclass(frozen=True, slots=True)
class Layout:
    """What one token's keys and values look like: shape (2 x layers, heads, head size)."""

    layers: int
    heads: int
    size: int
    dtype: torch.dtype
    device: torch.device

    @property
    def bytes_per_token(self) -> int:
        return 2 * self.layers * self.heads * self.size * self.dtype.itemsize


def plain_layout(cache: Any, max_context: int) -> Layout | None:
    """The layout of a cache that a model has just filled, if every layer keeps plain keys and values of one shape for
    all tokens (a sliding window at least as wide as `max_context` never slides); otherwise None."""
    if type(cache) is not DynamicCache or not cache.layers:
        return None
    shapes = set()
    for layer in cache.layers:
        sliding = type(layer) is DynamicSlidingWindowLayer and layer.sliding_window >= max_context
        if not (sliding or type(layer) is DynamicLayer) or layer.keys is None or layer.keys.dim() != 4:
            return None
        shapes |= {
            (tensor.shape[1], tensor.shape[3], tensor.dtype, tensor.device) for tensor in (layer.keys, layer.values)
        }
    if len(shapes) != 1:
        return None
    heads, size, dtype, device = shapes.pop()
    return Layout(len(cache.layers), heads, size, dtype, device)


class _SlotLayer(DynamicLayer):  # type: ignore[misc]
    """Hands one layer's keys and values to the slots. Claims length 0: positions and masks are given explicitly."""

    def __init__(self, slots: KeyValueSlots, index: int) -> None:
        super().__init__()
        self._slots, self._index = slots, index

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        return self._slots.write(self._index, key_states, value_states)


class KeyValueSlots(Cache):  # type: ignore[misc]
    """Rows of keys and values. `aim` says where the next forward pass writes and reads; then pass this object to the
    model as `past_key_values`, with `mask` as its attention mask. `layer` is the one last written."""

    def __init__(self, layout: Layout, max_rows: int) -> None:
        super().__init__(layers=[_SlotLayer(self, index) for index in range(layout.layers)])
        self.layout, self._max_rows = layout, max_rows
        self.pool = self._empty(0, 0)
        self.mask = torch.empty(0)
        self._index = torch.empty(0, dtype=torch.long)
        self._rows = self._width = self.layer = 0

    def reserve(self, rows: int, capacity: int) -> None:
        """Have room for `rows` sequences of `capacity` tokens; what is stored stays."""
        _, have_rows, _, have_capacity, _ = self.pool.shape
        if rows <= have_rows and capacity <= have_capacity:
            return
        if rows > have_rows:
            rows = max(rows, min(2 * have_rows, self._max_rows))
        pool = self._empty(max(rows, have_rows), max(have_capacity, _up(capacity, 128)))
        pool[:, :have_rows, :, :have_capacity] = self.pool
        self.pool = pool

    def _empty(self, rows: int, capacity: int) -> Tensor:
        # Zeros, not garbage: a masked NaN would still be a NaN in the attention's sum.
        layout = self.layout
        shape = (2 * layout.layers, rows, layout.heads, capacity, layout.size)
        return torch.zeros(shape, dtype=layout.dtype, device=layout.device)

    def aim(self, positions: Tensor, longest: int) -> None:
        """Point at the first R rows for the tokens at `positions` (R, S), all below `longest`, and make room.

        A negative position stands for padding: it is written beyond every real token (from the end of the row) and
        sees nothing."""
        rows, heads = positions.shape[0], self.layout.heads
        self.reserve(rows, max(positions.shape[1], longest))
        capacity, device = self.pool.shape[3], positions.device
        self._rows, self._width = rows, min(capacity, _up(longest, _ALIGN))
        row_head = torch.arange(rows * heads, device=device).view(rows, heads, 1)
        self._index = (row_head * capacity + positions.remainder(capacity)[:, None]).flatten()
        hidden = torch.arange(self._width, device=device) > positions[:, :, None]
        mask = torch.zeros(hidden.shape, dtype=self.layout.dtype, device=device)
        self.mask = mask.masked_fill_(hidden, torch.finfo(self.layout.dtype).min)[:, None]

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store (R, heads, S, size) where `aim` points; returns all keys and values of those rows."""
        self.layer, size = layer, self.layout.size
        pool_keys, pool_values = self.pool[2 * layer], self.pool[2 * layer + 1]
        pool_keys.view(-1, size).index_copy_(0, self._index, keys.reshape(-1, size))
        pool_values.view(-1, size).index_copy_(0, self._index, values.reshape(-1, size))
        return pool_keys[: self._rows, :, : self._width], pool_values[: self._rows, :, : self._width]

    def copy_from(self, other: KeyValueSlots, source: int, start: int, end: int, target: int) -> None:
        """Copy tokens start..end-1 of a row of `other` to the beginning of row `target`."""
        self.pool[:, target, :, : end - start] = other.pool[:, source, :, start:end]

    def load(self, row: int, blocks: list[Tensor]) -> None:
        """Fill a row from its beginning with blocks of shape (2 x layers, heads, tokens, size)."""
        at = 0
        for block in blocks:
            end = at + block.shape[2]
            self.pool[:, row, :, at:end] = block
            at = end

    def reader(self, row: int, first: int) -> Callable[[int, int], Tensor]:
        """Copies tokens start..end-1 of the history in a row that begins with token `first` of it; the copies have the
        shape (2 x layers, heads, end - start, size)."""
        return lambda start, end: self.pool[:, row, :, start - first : end - first].clone()


def _up(number: int, step: int) -> int:
    return -(-number // step) * step
