"""Preallocated keys and values of the sequences in a batch, as a Transformers cache.

Every sequence has a slot; its token j is at position j of that slot, whatever the others do. Slots
are grouped into buckets by length, because attention reads the slots of a bucket together, up to
the longest sequence in it. A sequence joins at the end of the bucket that is long enough for it;
when it leaves, the last one of the bucket moves into its slot. Only for models with plain full
attention, which `plain_layout` finds out. Knows neither tokens nor prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import starmap, zip_longest
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

# tokens of a slot in the first bucket; each further bucket has twice as many
_SHORTEST = 128
# up to so many bytes, a CPU's slots are all allocated at once: memory that is never written to
# costs nothing there
_AT_ONCE = 2**31


@dataclass(frozen=True, slots=True)
class Layout:
    """The shape of one token's keys and values, (2 x layers, heads, head size), their dtype and
    device."""

    layers: int
    heads: int
    size: int
    dtype: torch.dtype
    device: torch.device

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token's keys and values in all layers."""
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
    """One layer of the cache, which stores its keys and values in the slots. It reports a length of
    0, because positions and masks are passed explicitly."""

    def __init__(self, slots: KeyValueSlots, index: int) -> None:
        super().__init__()
        self._slots, self._index = slots, index

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Store new keys and values, and return them: attention reads the slots itself."""
        self._slots.write(self._index, key_states, value_states)
        return key_states, value_states


class KeyValueSlots(Cache):  # type: ignore[misc]
    """Slots of keys and values, one for each sequence, in buckets of 128, 256, 512 ... tokens.
    `set_targets` says where the next forward pass writes; then pass this object to the model as
    `past_key_values`. `layer` is the one that was written last.

    `buckets[i]` has the shape (2 x layers, slots, heads, 128 x 2^i, head size). All buckets are
    views of one tensor."""

    def __init__(self, layout: Layout, max_rows: int, context: int) -> None:
        """`max_rows`: sequences at once; `context`: tokens of the longest possible sequence."""
        super().__init__(layers=[_SlotLayer(self, index) for index in range(layout.layers)])
        self.layout, self._max_rows = layout, max_rows
        self.buckets: list[Tensor] = []
        self._rows: list[int] = []
        all_rows = [max_rows] * (bucket_of(context) + 1)
        room = layout.bytes_per_token * sum(
            rows * (_SHORTEST << bucket) for bucket, rows in enumerate(all_rows)
        )
        self._all_rows = all_rows if layout.device.type == "cpu" and room <= _AT_ONCE else None
        self._pool = torch.empty(0)
        self._index = torch.empty(0, dtype=torch.long)
        self.layer = 0

    def reserve(self, rows: Sequence[int]) -> None:
        """Make room for rows[i] sequences in bucket i. The sequences in these buckets are kept."""
        before, capacity = self.buckets, self._rows
        needed = list(zip_longest(capacity, rows, fillvalue=0))
        if all(count <= room for room, count in needed):
            return
        self._rows = self._all_rows or list(starmap(self._new_capacity, needed))
        layout = self.layout
        sizes = [
            room * layout.heads * (_SHORTEST << bucket) for bucket, room in enumerate(self._rows)
        ]
        # Zeros, not garbage: a masked NaN would still be a NaN in the attention's sum.
        self._pool = _zeros((2 * layout.layers, sum(sizes), layout.size), layout)
        parts = zip(self._rows, torch.split(self._pool, sizes, 1), strict=True)
        self.buckets = [
            part.view(part.shape[0], room, layout.heads, -1, layout.size) if room else part
            for room, part in parts
        ]
        for old, new, used in zip(before, self.buckets, rows, strict=False):
            if old.numel():
                kept = min(used, len(old[0]))
                new[:, :kept] = old[:, :kept]

    def _new_capacity(self, capacity: int, rows: int) -> int:
        """Slots of a bucket that must hold `rows`: it doubles when it is too small."""
        if rows <= capacity:
            return capacity
        return max(rows, min(max(8, 2 * capacity), self._max_rows))

    def set_targets(self, buckets: Tensor, slots: Tensor, positions: Tensor) -> None:
        """Say where the next forward pass writes its tokens: the bucket, the slot in it and the
        position in that, each of shape (T,)."""
        heads, device = self.layout.heads, self._pool.device
        starts = torch.tensor(
            [0, *(rows * heads * (_SHORTEST << bucket) for bucket, rows in enumerate(self._rows))]
        )
        capacity = _SHORTEST * 2**buckets
        head = torch.arange(heads)[:, None]
        index = starts.cumsum(0)[buckets] + (slots * heads + head) * capacity + positions
        self._index = index.flatten().to(device)

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Store (1, heads, T, size) at the targets."""
        self.layer, size = layer, self.layout.size
        self._pool[2 * layer].index_copy_(0, self._index, keys.reshape(-1, size))
        self._pool[2 * layer + 1].index_copy_(0, self._index, values.reshape(-1, size))

    def read(self, bucket: int, slots: slice | Tensor, width: int) -> tuple[Tensor, Tensor]:
        """The first `width` keys and values of some slots of a bucket, in the layer that was
        written last, each of shape (slots, heads, width, size)."""
        states = self.buckets[bucket]
        keys, values = states[2 * self.layer], states[2 * self.layer + 1]
        return keys[slots, :, :width], values[slots, :, :width]

    def copy(self, source: tuple[int, int], length: int, target: tuple[int, int]) -> None:
        """Copy the first `length` tokens of a slot to another; a slot is (bucket, number)."""
        states = self.buckets[source[0]][:, source[1], :, :length]
        self.buckets[target[0]][:, target[1], :, :length] = states

    def shift(self, place: tuple[int, int], start: int, end: int) -> None:
        """Move tokens start..end-1 of a slot to its beginning."""
        if start:
            slot = self.buckets[place[0]][:, place[1]]
            slot[:, :, : end - start] = slot[:, :, start:end].clone()

    def load(self, place: tuple[int, int], states: Sequence[Tensor]) -> None:
        """Fill a slot from its beginning with consecutive pieces of shape (2 x layers, heads,
        tokens, size)."""
        slot, at = self.buckets[place[0]][:, place[1]], 0
        for state in states:
            end = at + state.shape[2]
            slot[:, :, at:end] = state
            at = end

    def reader(self, place: tuple[int, int], first: int) -> Callable[[int, int], Tensor]:
        """A function that gives the keys and values of tokens start..end-1 of the history whose
        tokens from number `first` on are in a slot, as views of the shape (2 x layers, heads,
        end - start, size)."""
        states = self.buckets[place[0]][:, place[1]]
        return lambda start, end: states[:, :, start - first : end - first]


def _zeros(shape: tuple[int, int, int], layout: Layout) -> Tensor:
    if layout.device.type != "cpu":
        return torch.zeros(shape, dtype=layout.dtype, device=layout.device)
    # NumPy's zeros take memory only where they are written to; torch's took a twelfth of all time
    empty = np.zeros(shape[0] * shape[1] * shape[2] * layout.dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(empty).view(layout.dtype).view(shape)


def bucket_of(tokens: int) -> int:
    """The first bucket whose slots hold so many tokens."""
    return max(0, (tokens - 1) // _SHORTEST).bit_length()
