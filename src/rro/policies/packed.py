"""One forward pass over new tokens of many sequences at once, without padding between them.

A sequence that is being drawn brings one token, one whose prompt is new brings many: all lie side by side as one row of
input, so what does not look at other tokens (nearly all of the work) is done once for all, and a prompt costs no pass of its
own. Only attention has to keep the sequences apart. The last new token of every sequence forms one `Part`, the tokens
before it form others, of sequences that bring about equally many.
"""

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

from rro.policies.kv_slots import KeyValueSlots, up

_NAME = "rro_packed"
_ALIGN = 16  # widths are multiples of it: fewer different shapes, and fast kernels on GPUs want it
_now = threading.local()  # .attend: the attention of the forward pass that this thread is in

Attend = Callable[[Tensor, float, float | None], Tensor]
_Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Part:
    """Tokens first..last-1 of a pass, as a grid: a line for each of the `slots`, n tokens a line. `pad` says which token
    stands where (None: n is 1), `unpad` where each token stands; mask (lines, 1, group x n, width)."""

    first: int
    last: int
    slots: slice | Tensor
    pad: Tensor | None
    unpad: Tensor | None
    mask: Tensor

    def gather(self, tokens: Tensor) -> Tensor:
        """From (T, heads, group, d) of the whole pass to (lines, heads, group x n, d)."""
        own = tokens[self.first : self.last]
        if self.pad is None:
            return own
        lines, heads, d = len(self.pad), own.shape[1], own.shape[3]
        return own[self.pad].permute(0, 2, 3, 1, 4).reshape(lines, heads, -1, d)

    def scatter(self, grid: Tensor, group: int) -> Tensor:
        """Back to (last - first, heads, group, d)."""
        if self.unpad is None:
            return grid
        lines, heads, _, d = grid.shape
        return grid.view(lines, heads, group, -1, d).permute(0, 3, 1, 2, 4).reshape(-1, heads, group, d)[self.unpad]


class Pass:
    """What a forward pass computes: of slot i, `counts[i]` new tokens from position `firsts[i]` of the slot on.

    The tokens lie in the order of `order`, pairs (slot, number of its new tokens); the last ones of all slots come last, in
    the order of the slots."""

    def __init__(self, slots: KeyValueSlots, firsts: Sequence[int], counts: Sequence[int], group: int) -> None:
        """`group`: query heads for each head of keys and values."""
        first, count = np.array(firsts), np.array(counts)
        rows, self.width = len(first), up(int((first + count).max()), _ALIGN)
        slots.reserve(rows, self.width)
        self.slots, self.group, self.parts = slots, group, list[Part]()
        owner, number = list[_Ints](), list[_Ints]()
        at = 0
        for lines in _alike(count - 1):
            earlier = count[lines] - 1
            owner.append(np.repeat(lines, earlier))
            number.append(np.concatenate([np.arange(n) for n in earlier]))
            self.parts.append(self._grid(at, lines, earlier, first[lines]))
            at = self.parts[-1].last
        owner.append(np.arange(rows))
        number.append(count - 1)
        mask = self._mask((first + count - 1)[:, None])
        self.parts.append(Part(at, at + rows, slice(0, rows), None, None, mask))
        self.owner, self.number = np.concatenate(owner), np.concatenate(number)
        self.positions = first[self.owner] + self.number
        slots.aim(self._tensor(self.owner), self._tensor(self.positions))

    def _tensor(self, array: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.slots.layout.device)

    def _grid(self, at: int, lines: _Ints, earlier: _Ints, first: _Ints) -> Part:
        across = np.minimum(np.arange(earlier.max()), earlier[:, None] - 1)  # padding repeats the line's last token
        pad = across + (np.cumsum(earlier) - earlier)[:, None]
        unpad = np.flatnonzero(np.arange(earlier.max()) < earlier[:, None])
        dense = int(lines[-1]) - int(lines[0]) == len(lines) - 1
        slots = slice(int(lines[0]), int(lines[-1]) + 1) if dense else self._tensor(lines)
        mask = self._mask(first[:, None] + across).repeat(1, 1, self.group, 1)
        return Part(at, at + int(earlier.sum()), slots, self._tensor(pad), self._tensor(unpad), mask)

    def _mask(self, positions: _Ints) -> Tensor:
        """(lines, 1, n, width) for tokens at these positions: each sees its slot up to itself."""
        dtype = self.slots.layout.dtype
        hidden = torch.arange(self.width, device=self.slots.layout.device) > self._tensor(positions)[:, :, None]
        mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
        return mask.masked_fill_(hidden, torch.finfo(dtype).min)[:, None]

    def mask(self) -> Tensor:
        """(T, 1, 1, width): which tokens of its slot each one sees."""
        return torch.cat([part.scatter(part.mask, self.group)[:, :, :1] for part in self.parts])

    def attend(self, query: Tensor, scale: float, softcap: float | None) -> Tensor:
        """Attention of (T, heads, group, size) to what the slots hold of the layer last written."""
        keys, values = self.slots.read(self.width)
        outputs = []
        for part in self.parts:
            own, mine, theirs = part.gather(query), keys[part.slots], values[part.slots]
            if softcap is None:
                grid = scaled_dot_product_attention(own, mine, theirs, attn_mask=part.mask, scale=scale)
            else:
                scores = capped(torch.matmul(own * scale, mine.mT), softcap) + part.mask
                grid = torch.matmul(torch.softmax(scores, -1, dtype=torch.float32).to(own.dtype), theirs)
            outputs.append(part.scatter(grid, self.group))
        return torch.cat(outputs)


def capped(scores: Tensor, softcap: float | None) -> Tensor:
    """Scores held within +-softcap, as Gemma 2 does."""
    return scores if softcap is None else torch.tanh(scores / softcap) * softcap


def _alike(earlier: _Ints) -> Iterator[_Ints]:
    """The rows that bring more than a last token, by how many, such that none is padded to more than about its double."""
    sizes = np.ceil(np.log2(earlier + 1)).astype(int)
    sizes[(earlier > 0) & (sizes < 4)] = 4
    for size in np.unique(sizes[earlier > 0]):
        yield np.flatnonzero(sizes == size)


@contextmanager
def attending(model: Any, attend: Attend, heads: int) -> Iterator[None]:
    """Within it, `model` attends by `attend(query (T, heads, group, size), scale, softcap)`, of the same shape."""
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
    """What Transformers calls in place of its own attention. Refuses what it does not know how to do."""
    unknown = [name for name in ("s_aux", "position_bias") if kwargs.get(name) is not None]
    if unknown:
        raise ValueError(f"packed attention has no {', '.join(unknown)}")
    _, query_heads, tokens, size = query.shape
    grouped = query[0].transpose(0, 1).unflatten(1, (_now.heads, query_heads // _now.heads))
    scale = size**-0.5 if scaling is None else scaling
    return _now.attend(grouped, scale, softcap).reshape(1, tokens, query_heads, size), None


AttentionInterface.register(_NAME, _attention)
