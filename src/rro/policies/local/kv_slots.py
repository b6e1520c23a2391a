"""Preallocated keys and values of the sequences that are being generated, as a Transformers cache.

Token j of a sequence lies at position j of its slot, whatever the others do. A sequence joins at
the end of the shelf that is long enough for it, and leaves by having the last one of that shelf
moved into its place. Attention reads the slots of a shelf together, as far as the longest of them,
so sequences of about one length lie together. Only plain full attention can live here;
`plain_layout` finds out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import starmap, zip_longest
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

_SHORTEST = 128  # tokens of a slot on the first shelf; twice as many on each further one
_AT_ONCE = (
    2**31
    # bytes of slots that are all made at once on a CPU, where memory that is not written to costs
    # nothing
)


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
    """The layout of a cache that a model has just filled, if every layer keeps plain keys and
    values of one shape for all tokens (a sliding window at least as wide as `max_context` never
    slides); otherwise None."""
    if type(cache) is not DynamicCache or not cache.layers:
        return None
    shapes = set()
    for layer in cache.layers:
        sliding = type(layer) is DynamicSlidingWindowLayer and layer.sliding_window >= max_context
        if (
            not (sliding or type(layer) is DynamicLayer)
            or layer.keys is None
            or layer.keys.dim() != 4
        ):
            return None
        shapes |= {
            (tensor.shape[1], tensor.shape[3], tensor.dtype, tensor.device)
            for tensor in (layer.keys, layer.values)
        }
    if len(shapes) != 1:
        return None
    heads, size, dtype, device = shapes.pop()
    return Layout(len(cache.layers), heads, size, dtype, device)


class _SlotLayer(DynamicLayer):  # type: ignore[misc]
    """Hands one layer's keys and values to the slots. Claims length 0: positions and masks are
    given explicitly."""

    def __init__(self, slots: KeyValueSlots, index: int) -> None:
        super().__init__()
        self._slots, self._index = slots, index

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        self._slots.write(self._index, key_states, value_states)
        return key_states, value_states


class KeyValueSlots(Cache):  # type: ignore[misc]
    """Slots of keys and values, one for each sequence, on shelves of 128, 256, 512 ... tokens.
    `aim` says where the next forward pass writes; then pass this object to the model as
    `past_key_values`. `layer` is the one last written.

    `shelves[i]` is a view of `_pool`, of shape (2 x layers, slots, heads, 128 x 2^i, head size)."""

    def __init__(self, layout: Layout, max_rows: int, context: int) -> None:
        """`context`: tokens of the longest sequence there can be."""
        super().__init__(layers=[_SlotLayer(self, index) for index in range(layout.layers)])
        self.layout, self._max_rows = layout, max_rows
        self.shelves: list[Tensor] = []
        self._rows: list[int] = []
        whole = [max_rows] * (shelf_of(context) + 1)
        room = layout.bytes_per_token * sum(
            rows * (_SHORTEST << shelf) for shelf, rows in enumerate(whole)
        )
        self._whole = whole if layout.device.type == "cpu" and room <= _AT_ONCE else None
        self._pool = torch.empty(0)
        self._index = torch.empty(0, dtype=torch.long)
        self.layer = 0

    def reserve(self, rows: Sequence[int]) -> None:
        """Have room for rows[i] sequences on shelf i; what is stored in these stays."""
        before, had = self.shelves, self._rows
        if all(now <= room for room, now in zip_longest(had, rows, fillvalue=0)):
            return
        self._rows = self._whole or list(starmap(self._room, zip_longest(had, rows, fillvalue=0)))
        layout = self.layout
        sizes = [
            room * layout.heads * (_SHORTEST << shelf) for shelf, room in enumerate(self._rows)
        ]
        # Zeros, not garbage: a masked NaN would still be a NaN in the attention's sum.
        self._pool = _zeros((2 * layout.layers, sum(sizes), layout.size), layout)
        parts = zip(self._rows, torch.split(self._pool, sizes, 1), strict=True)
        self.shelves = [
            part.view(part.shape[0], room, layout.heads, -1, layout.size) if room else part
            for room, part in parts
        ]
        for old, new, used in zip(before, self.shelves, rows, strict=False):
            if old.numel():
                kept = min(used, len(old[0]))
                new[:, :kept] = old[:, :kept]

    def _room(self, had: int, rows: int) -> int:
        """For how many sequences a shelf is made that now has `rows`."""
        return had if rows <= had else max(rows, min(max(8, 2 * had), self._max_rows))

    def aim(self, shelves: Tensor, slots: Tensor, positions: Tensor) -> None:
        """Point at where the tokens of the next forward pass go: (T,) shelves, slots, and positions
        within them."""
        heads, device = self.layout.heads, self._pool.device
        starts = torch.tensor(
            [0, *(rows * heads * (_SHORTEST << number) for number, rows in enumerate(self._rows))]
        )
        capacity = _SHORTEST * 2**shelves
        head = torch.arange(heads)[:, None]
        index = starts.cumsum(0)[shelves] + (slots * heads + head) * capacity + positions
        self._index = index.flatten().to(device)

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Store (1, heads, T, size) where `aim` points."""
        self.layer, size = layer, self.layout.size
        self._pool[2 * layer].index_copy_(0, self._index, keys.reshape(-1, size))
        self._pool[2 * layer + 1].index_copy_(0, self._index, values.reshape(-1, size))

    def read(self, shelf: int, slots: slice | Tensor, width: int) -> tuple[Tensor, Tensor]:
        """The first `width` keys and values of some slots in the layer last written, each (slots,
        heads, width, size)."""
        keys, values = self.shelves[shelf][2 * self.layer], self.shelves[shelf][2 * self.layer + 1]
        return keys[slots, :, :width], values[slots, :, :width]

    def copy(self, source: tuple[int, int], length: int, target: tuple[int, int]) -> None:
        """Copy the first tokens of a slot to another, each given as (shelf, slot)."""
        self.shelves[target[0]][:, target[1], :, :length] = self.shelves[source[0]][
            :, source[1], :, :length
        ]

    def shift(self, place: tuple[int, int], start: int, end: int) -> None:
        """Move tokens start..end-1 of a slot to its beginning."""
        if start:
            slot = self.shelves[place[0]][:, place[1]]
            slot[:, :, : end - start] = slot[:, :, start:end].clone()

    def load(self, place: tuple[int, int], states: Sequence[Tensor]) -> None:
        """Fill a slot from its beginning with stretches of shape (2 x layers, heads, tokens,
        size)."""
        slot, at = self.shelves[place[0]][:, place[1]], 0
        for state in states:
            end = at + state.shape[2]
            slot[:, :, at:end] = state
            at = end

    def reader(self, place: tuple[int, int], first: int) -> Callable[[int, int], Tensor]:
        """Copies tokens start..end-1 of the history in a slot that begins with token `first` of it;
        the copies have the shape (2 x layers, heads, end - start, size)."""
        shelf, slot = place
        return lambda start, end: self.shelves[shelf][
            :, slot, :, start - first : end - first
        ].clone()


def _zeros(shape: tuple[int, int, int], layout: Layout) -> Tensor:
    if layout.device.type != "cpu":
        return torch.zeros(shape, dtype=layout.dtype, device=layout.device)
    # NumPy's zeros take memory only where they are written to; torch's cost a twelfth of all time
    # here.
    empty = np.zeros(shape[0] * shape[1] * shape[2] * layout.dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(empty).view(layout.dtype).view(shape)


def shelf_of(tokens: int) -> int:
    """The shelf whose slots hold so many."""
    return max(0, (tokens - 1) // _SHORTEST).bit_length()
