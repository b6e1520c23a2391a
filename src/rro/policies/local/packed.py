"""One forward pass over new tokens of many sequences at once, without padding between them.

A sequence that is being drawn brings one token, one whose prompt is new brings many: all lie side
by side as one row of input, so what does not look at other tokens (nearly all of the work) is done
once for all, and a prompt costs no pass of its own. Only attention has to keep the sequences apart.
The last new token of every sequence forms one `Part`, the tokens before it form others, of
sequences that bring about equally many."""

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
_ALIGN = 16  # widths are multiples of it: fewer different shapes, and fast kernels on GPUs want it
_now = threading.local()  # .attend: the attention of the forward pass that this thread is in

Attend = Callable[[Tensor, float, float | None], Tensor]
_Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Part:
    """Tokens first..last-1 of a pass, as a grid: a line for each of the `slots` of a shelf, n
    tokens a line. `pad` says which token stands where (None: n is 1), `unpad` where each token
    stands; mask (lines, 1, group x n, width)."""

    first: int
    last: int
    shelf: int
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
        """Keys and values of the layer last written, each (lines, heads, width, size)."""
        return slots.read(self.shelf, self.slots, self.mask.shape[-1])


class Pass:
    """What a forward pass computes: of row i, which lies on shelf `shelves[i]` in that shelf's next
    slot, `counts[i]` new tokens from position `firsts[i]` of its slot on. Rows come sorted by
    shelf.

    Token t of the pass is new token `number[t]` of row `owner[t]`, at `positions[t]` of its slot.
    The last tokens of all rows come last, in the order of the rows."""

    def __init__(
        self,
        slots: KeyValueSlots,
        shelves: Sequence[int],
        firsts: Sequence[int],
        counts: Sequence[int],
        group: int,
    ) -> None:
        """`group`: query heads for each head of keys and values."""
        self._shelves, self._first, self._count = (
            np.array(shelves),
            np.array(firsts),
            np.array(counts),
        )
        self._slot = np.arange(len(shelves)) - np.searchsorted(self._shelves, self._shelves)
        self.slots, self.group, self.parts = slots, group, list[Part]()
        owner, number = list[_Ints](), list[_Ints]()
        for rows in self._alike():
            earlier = self._count[rows] - 1
            self.parts.append(self._grid(sum(map(len, owner)), rows, earlier))
            owner.append(np.repeat(rows, earlier))
            number.append(np.concatenate([np.arange(n) for n in earlier]))
        self._add_last(sum(map(len, owner)))
        self.owner = np.concatenate([*owner, np.arange(len(shelves))])
        self.number = np.concatenate([*number, self._count - 1])
        self.positions = self._first[self.owner] + self.number
        places = self._shelves[self.owner], self._slot[self.owner], self.positions
        slots.aim(*map(torch.from_numpy, places))

    def _alike(self) -> Iterator[_Ints]:
        """The rows that bring more than a last token, by shelf and by how many, such that none is
        padded to more than about its double."""
        earlier = self._count - 1
        sizes = np.maximum(4, np.ceil(np.log2(earlier + 1))).astype(int) + 100 * self._shelves
        for size in np.unique(sizes[earlier > 0]):
            yield np.flatnonzero((sizes == size) & (earlier > 0))

    def _grid(self, at: int, rows: _Ints, earlier: _Ints) -> Part:
        across = np.minimum(
            np.arange(earlier.max()), earlier[:, None] - 1
        )  # padding repeats the line's last token
        place = across + (np.cumsum(earlier) - earlier)[:, None]
        unpad = np.flatnonzero(np.arange(earlier.max()) < earlier[:, None])
        slot = self._slot[rows]
        dense = slot[-1] - slot[0] == len(slot) - 1
        slots = slice(int(slot[0]), int(slot[-1]) + 1) if dense else self._tensor(slot)
        mask = self._mask(self._first[rows][:, None] + across).repeat(1, 1, self.group, 1)
        end, shelf = at + int(earlier.sum()), int(self._shelves[rows[0]])
        return Part(at, end, shelf, slots, self._tensor(place), self._tensor(unpad), mask)

    def _add_last(self, at: int) -> None:
        for shelf in np.unique(self._shelves):
            rows = np.flatnonzero(self._shelves == shelf)
            mask = self._mask((self._first + self._count - 1)[rows, None])
            self.parts.append(
                Part(at, at + len(rows), int(shelf), slice(0, len(rows)), None, None, mask)
            )
            at += len(rows)

    def _tensor(self, array: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.slots.layout.device)

    def _mask(self, positions: _Ints) -> Tensor:
        """(lines, 1, n, width) for tokens at these positions: each sees its slot up to itself."""
        layout, width = self.slots.layout, -(-int(positions.max() + 1) // _ALIGN) * _ALIGN
        hidden = torch.arange(width, device=layout.device) > self._tensor(positions)[:, :, None]
        mask = torch.zeros(hidden.shape, dtype=layout.dtype, device=layout.device)
        return mask.masked_fill_(hidden, torch.finfo(layout.dtype).min)[:, None]

    def attend(self, query: Tensor, scale: float, softcap: float | None) -> Tensor:
        """Attention of (T, heads, group, size) to what the slots hold of the layer last written."""
        outputs = []
        for part in self.parts:
            own, (keys, values) = part.gather(query), part.read(self.slots)
            if softcap is None:
                grid = scaled_dot_product_attention(
                    own, keys, values, attn_mask=part.mask, scale=scale
                )
            else:
                held = (
                    torch.tanh(torch.matmul(own * scale, keys.mT) / softcap) * softcap
                )  # as Gemma 2 does
                scores = held + part.mask
                grid = torch.matmul(
                    torch.softmax(scores, -1, dtype=torch.float32).to(own.dtype), values
                )
            outputs.append(part.scatter(grid, self.group))
        return torch.cat(outputs)


@contextmanager
def attending(model: Any, attend: Attend, heads: int) -> Iterator[None]:
    """Within it, `model` attends by `attend(query (T, heads, group, size), scale, softcap)`, of the
    same shape."""
    config = model.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation = _NAME
    _now.attend, _now.heads = attend, heads
    try:
        yield
    finally:
        config._attn_implementation = before
        del _now.attend, _now.heads


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
    """What Transformers calls in place of its own attention. Refuses what it does not know how to
    do."""
    unknown = [name for name in ("s_aux", "position_bias") if kwargs.get(name) is not None]
    if unknown:
        raise ValueError(f"packed attention has no {', '.join(unknown)}")
    _, query_heads, tokens, size = query.shape
    grouped = query[0].transpose(0, 1).view(tokens, _now.heads, query_heads // _now.heads, size)
    scale = size**-0.5 if scaling is None else scaling
    output: Tensor = _now.attend(grouped, scale, softcap)
    return output.reshape(1, tokens, query_heads, size), None


AttentionInterface.register(_NAME, _attention)
