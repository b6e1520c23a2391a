"""One forward pass over the new tokens of many sequences, without padding between them.

A sequence that is being decoded has one new token, one with a new prompt has many. All are packed
into one row of input, so layers that do not mix tokens (nearly all of the work) run once for all,
and a prompt needs no pass of its own. Only attention has to keep the sequences apart: it computes
one `TokenGrid` for the last new token of all sequences of a bucket, and others for the tokens
before it, of sequences that have about equally many. Knows slots, neither text nor sampling."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from rro.policies.local.kv_slots import KeyValueSlots

_NAME = "rro_packed"
# widths are multiples of it: fewer different shapes, and fast kernels on GPUs need it
_ALIGN = 16
# .attend: the attention of the forward pass that this thread is in
_current = threading.local()

Attend = Callable[[Tensor, float, float | None], Tensor]
_Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TokenGrid:
    """Tokens first..last-1 of a pass as a padded grid: one line for each of the `slots` of a
    bucket, n tokens a line. `pad` holds the token at each place (None: n is 1), `unpad` the place
    of each token. mask: (lines, 1, group x n, width)."""

    first: int
    last: int
    bucket: int
    slots: slice | Tensor
    pad: Tensor | None
    unpad: Tensor | None
    mask: Tensor

    def gather(self, tokens: Tensor) -> Tensor:
        """From (T, heads, group, d) of the whole pass to (lines, heads, group x n, d)."""
        own = tokens[self.first : self.last]
        if self.pad is None:
            return own
        return own[self.pad].permute(0, 2, 3, 1, 4).flatten(2, 3)

    def scatter(self, grid: Tensor, group: int) -> Tensor:
        """Back to (last - first, heads, group, d)."""
        if self.unpad is None:
            return grid
        return (
            grid.view(*grid.shape[:2], group, -1, grid.shape[3])
            .permute(0, 3, 1, 2, 4)
            .flatten(0, 1)[self.unpad]
        )

    def read(self, slots: KeyValueSlots) -> tuple[Tensor, Tensor]:
        """Keys and values of the layer that was written last, each of shape (lines, heads, width,
        size)."""
        return slots.read(self.bucket, self.slots, self.mask.shape[-1])


class PackedPass:
    """The tokens of one forward pass: of row i, which is in `places[i]` (bucket and slot),
    `counts[i]` new tokens from position `firsts[i]` of that slot on. Rows are sorted by bucket.

    Token t of the pass is new token `number[t]` of row `owner[t]`, at `positions[t]` of its slot.
    The last tokens of all rows come last, in the order of the rows."""

    def __init__(
        self,
        slots: KeyValueSlots,
        places: Sequence[tuple[int, int]],
        firsts: Sequence[int],
        counts: Sequence[int],
        group: int,
    ) -> None:
        """`group`: query heads for each head of keys and values."""
        self._bucket, self._slot = np.array(places).T
        self._first, self._count = np.array(firsts), np.array(counts)
        self.slots, self.group, self.grids = slots, group, list[TokenGrid]()
        owner, number = list[_Ints](), list[_Ints]()
        for rows in self._similar_rows():
            earlier = self._count[rows] - 1
            self.grids.append(self._grid(sum(map(len, owner)), rows, earlier))
            owner.append(np.repeat(rows, earlier))
            number.append(np.concatenate([np.arange(n) for n in earlier]))
        self._add_last(sum(map(len, owner)))
        self.owner = np.concatenate([*owner, np.arange(len(places))])
        self.number = np.concatenate([*number, self._count - 1])
        self.positions = self._first[self.owner] + self.number
        targets = self._bucket[self.owner], self._slot[self.owner], self.positions
        slots.set_targets(*map(torch.from_numpy, targets))

    def _similar_rows(self) -> Iterator[_Ints]:
        """The rows with more than one new token, grouped by bucket and by number of tokens, so that
        padding at most about doubles a group."""
        earlier = self._count - 1
        sizes = np.maximum(4, np.ceil(np.log2(earlier + 1))).astype(int) + 100 * self._bucket
        for size in np.unique(sizes[earlier > 0]):
            yield np.flatnonzero((sizes == size) & (earlier > 0))

    def _grid(self, at: int, rows: _Ints, earlier: _Ints) -> TokenGrid:
        # padding repeats the last token of a line
        across = np.minimum(np.arange(earlier.max()), earlier[:, None] - 1)
        place = across + (np.cumsum(earlier) - earlier)[:, None]
        unpad = np.flatnonzero(np.arange(earlier.max()) < earlier[:, None])
        mask = self._mask(self._first[rows][:, None] + across).repeat(1, 1, self.group, 1)
        end, bucket = at + int(earlier.sum()), int(self._bucket[rows[0]])
        slots = self._slots_of(rows)
        return TokenGrid(at, end, bucket, slots, self._tensor(place), self._tensor(unpad), mask)

    def _slots_of(self, rows: _Ints) -> slice | Tensor:
        """The slots of some rows of one bucket, as a slice (which needs no copy) if they are
        consecutive."""
        slots = self._slot[rows]
        consecutive = slots[-1] - slots[0] == len(slots) - 1
        return slice(int(slots[0]), int(slots[-1]) + 1) if consecutive else self._tensor(slots)

    def _add_last(self, at: int) -> None:
        for bucket in np.unique(self._bucket):
            rows = np.flatnonzero(self._bucket == bucket)
            mask = self._mask((self._first + self._count - 1)[rows, None])
            slots = self._slots_of(rows)
            self.grids.append(TokenGrid(at, at + len(rows), int(bucket), slots, None, None, mask))
            at += len(rows)

    def _tensor(self, array: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.slots.layout.device)

    def _mask(self, positions: _Ints) -> Tensor:
        """(lines, 1, n, width) for tokens at these positions: each attends to its slot up to
        itself."""
        layout, width = self.slots.layout, -(-int(positions.max() + 1) // _ALIGN) * _ALIGN
        hidden = torch.arange(width, device=layout.device) > self._tensor(positions)[:, :, None]
        mask = torch.zeros(hidden.shape, dtype=layout.dtype, device=layout.device)
        return mask.masked_fill_(hidden, torch.finfo(layout.dtype).min)[:, None]

    def attend(self, query: Tensor, scale: float, softcap: float | None) -> Tensor:
        """Attention of (T, heads, group, size) to the slots, in the layer that was written last.
        `softcap` as in Gemma 2."""
        outputs = []
        for grid in self.grids:
            own, (keys, values) = grid.gather(query), grid.read(self.slots)
            if softcap is None:
                output = scaled_dot_product_attention(
                    own, keys, values, attn_mask=grid.mask, scale=scale
                )
            else:
                capped = torch.tanh(torch.matmul(own * scale, keys.mT) / softcap) * softcap
                weights = torch.softmax(capped + grid.mask, -1, dtype=torch.float32).to(own.dtype)
                output = torch.matmul(weights, values)
            outputs.append(grid.scatter(output, self.group))
        return torch.cat(outputs)


@contextmanager
def replaced_attention(model: Any, attend: Attend, heads: int) -> Iterator[None]:
    """Within it, `model` uses `attend(query, scale, softcap)` as its attention; the query and the
    result have the shape (T, heads, group, size)."""
    config = model.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation = _NAME
    _current.attend, _current.heads = attend, heads
    try:
        yield
    finally:
        config._attn_implementation = before
        del _current.attend, _current.heads


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What Transformers calls in place of its own attention. Raises ValueError for a kind of
    attention that it does not have."""
    unknown = [name for name in ("s_aux", "position_bias") if kwargs.get(name) is not None]
    if unknown:
        raise ValueError(f"packed attention has no {', '.join(unknown)}")
    _, query_heads, tokens, size = query.shape
    grouped = (
        query[0].transpose(0, 1).view(tokens, _current.heads, query_heads // _current.heads, size)
    )
    scale = size**-0.5 if scaling is None else scaling
    output: Tensor = _current.attend(grouped, scale, softcap)
    return output.reshape(1, tokens, query_heads, size), None


AttentionInterface.register(_NAME, _attention)
