"""Preallocated keys and values of the sequences that are being generated, as a Transformers cache.

One tensor holds everything: (2 x layers, slots, capacity, heads, head size). Token j of a sequence lies at position j of
its slot, whatever the others do: sequences of different lengths need no padding, join at the end, and leave by
having the last one moved into their place. Only plain full attention can live here; `plain_layout` finds out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer


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
        self._slots.write(self._index, key_states, value_states)
        return key_states, value_states


class KeyValueSlots(Cache):  # type: ignore[misc]
    """Slots of keys and values, one for each sequence. `aim` says where the next forward pass writes; then pass this object
    to the model as `past_key_values`. `layer` is the one last written."""

    def __init__(self, layout: Layout, max_rows: int) -> None:
        super().__init__(layers=[_SlotLayer(self, index) for index in range(layout.layers)])
        self.layout, self._max_rows = layout, max_rows
        self.pool = self._empty(0, 0)
        self._index = torch.empty(0, dtype=torch.long)
        self.layer = 0

    def reserve(self, rows: int, capacity: int) -> None:
        """Have room for `rows` sequences of `capacity` tokens; what is stored stays."""
        _, have_rows, have_capacity, _, _ = self.pool.shape
        if rows <= have_rows and capacity <= have_capacity:
            return
        if rows > have_rows:
            rows = max(rows, min(2 * have_rows, self._max_rows))
        pool = self._empty(max(rows, have_rows), max(have_capacity, up(capacity, 128)))
        pool[:, :have_rows, :have_capacity] = self.pool
        self.pool = pool

    def _empty(self, rows: int, capacity: int) -> Tensor:
        # Zeros, not garbage: a masked NaN would still be a NaN in the attention's sum.
        layout = self.layout
        shape = (2 * layout.layers, rows, capacity, layout.heads, layout.size)
        return torch.zeros(shape, dtype=layout.dtype, device=layout.device)

    def aim(self, slots: Tensor, positions: Tensor) -> None:
        """Point at where the tokens of the next forward pass go: (T,) slots, and positions within them."""
        self._index = slots * self.pool.shape[2] + positions

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Store (1, heads, T, size) where `aim` points."""
        self.layer = layer
        for number, new in ((2 * layer, keys), (2 * layer + 1, values)):
            pool = self.pool[number].view(-1, self.layout.heads, self.layout.size)
            pool.index_copy_(0, self._index, new[0].transpose(0, 1))

    def read(self, width: int) -> tuple[Tensor, Tensor]:
        """All slots' first `width` keys and values of the layer last written, each (slots, heads, width, size)."""
        keys, values = self.pool[2 * self.layer], self.pool[2 * self.layer + 1]
        return keys[:, :width].transpose(1, 2), values[:, :width].transpose(1, 2)

    def copy(self, source: int, length: int, target: int) -> None:
        """Copy the first tokens of a slot to another."""
        self.pool[:, target, :length] = self.pool[:, source, :length]

    def shift(self, slot: int, start: int, end: int) -> None:
        """Move tokens start..end-1 of a slot to its beginning."""
        if start:
            self.pool[:, slot, : end - start] = self.pool[:, slot, start:end].clone()

    def load(self, slot: int, states: Sequence[Tensor]) -> None:
        """Fill a slot from its beginning with stretches of shape (2 x layers, tokens, heads, size)."""
        at = 0
        for state in states:
            end = at + state.shape[1]
            self.pool[:, slot, at:end] = state
            at = end

    def reader(self, slot: int, first: int) -> Callable[[int, int], Tensor]:
        """Copies tokens start..end-1 of the history in a slot that begins with token `first` of it; the copies have the
        shape (2 x layers, end - start, heads, size)."""
        return lambda start, end: self.pool[:, slot, start - first : end - first].clone()


def up(number: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-number // step) * step
