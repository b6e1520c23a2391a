"""Keys and values of past prompts and answers, so that a longer history computes only its new
tokens.

Sequences are cut into blocks of 16 tokens (the last may be shorter), which form a tree: equal
beginnings are stored once, however many histories share them. A history that differs from a known
one inside a block uses the beginning of that block. Least recently used blocks are dropped first,
ends before beginnings. Knows no model; the blocks are of one set of weights, so a policy with other
weights needs a cache of its own."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor

# tokens
BLOCK = 16
# children of a block that are compared token by token: the newest ones
_COMPARED = 8
# blocks that memory is taken for at once
_TOGETHER = 64

_Ids = tuple[int, ...]


@dataclass(slots=True, eq=False)
class Block:
    """Keys and values of up to sixteen tokens, `state` of shape (2 x layers, heads, tokens, head
    size) in the memory of `place`. `rows`: how many rows in the batch begin with it; `shared`:
    whether there were ever several."""

    id: int
    ids: _Ids
    state: Tensor
    place: Tensor
    parent: Block | None
    children: dict[_Ids, Block] = field(default_factory=dict)
    rows: int = 0
    shared: bool = False


class _Memory:
    """Memory of blocks, taken for many at once and used again. Blocks that are allocated one by
    one, among the tensors that come and go in forward passes, leave gaps that nothing else fits: a
    process grew to seven times of what it had cached (docs/results.md)."""

    def __init__(self) -> None:
        self._free: list[Tensor] = []

    def take(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """A place, and a copy of a block's keys and values there."""
        if not self._free:
            layers, heads, _, size = state.shape
            shape = (_TOGETHER, layers, heads, BLOCK, size)
            self._free += torch.empty(shape, dtype=state.dtype, device=state.device).unbind()
        place = self._free.pop()
        copy = place[:, :, : state.shape[2]]
        return place, copy.copy_(state)

    def give_back(self, place: Tensor) -> None:
        """A place may be used again."""
        self._free.append(place)


@dataclass(frozen=True, slots=True)
class Known:
    """A known beginning: whole blocks, then `part` (the first tokens of another block, or None);
    `tokens` in total."""

    blocks: list[Block]
    part: Tensor | None
    tokens: int

    @property
    def states(self) -> list[Tensor]:
        """The keys and values of the beginning, in order."""
        return [
            *(block.state for block in self.blocks),
            *([] if self.part is None else [self.part]),
        ]


class PrefixCache:
    """Blocks by token prefix, of at most `max_tokens` tokens in total (0: none). `tokens` are
    stored now."""

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._root = Block(0, (), torch.empty(0), torch.empty(0), None)
        self._memory = _Memory()
        # the least recently used first
        self._used: OrderedDict[Block, None] = OrderedDict()
        self._made = 0
        self.tokens = 0

    def match(self, ids: _Ids) -> Known:
        """The longest known prefix that leaves at least one token to compute."""
        ids = ids[: len(ids) - 1]
        path = self._walk(ids)
        rest = ids[BLOCK * (len(path) - 1) :]
        common, part = 0, None
        for block in islice(reversed(path[-1].children.values()), _COMPARED):
            equal = _common_length(block.ids, rest)
            if equal > common:
                common, part = equal, block
        self._touch(path if part is None else [*path, part])
        return Known(
            path[1:],
            None if part is None else part.state[:, :, :common],
            BLOCK * (len(path) - 1) + common,
        )

    def next_key(self, ids: _Ids) -> tuple[int, _Ids] | None:
        """A key of the first unknown block of `ids`; None if that would not be a whole block, or
        nothing is stored."""
        path = self._walk(ids[: len(ids) - 1])
        tokens = ids[BLOCK * (len(path) - 1) : BLOCK * len(path)]
        return (path[-1].id, tokens) if len(tokens) == BLOCK and self._max_tokens else None

    def store(self, ids: _Ids, read: Callable[[int, int], Tensor], readable: int = 0) -> None:
        """Store `ids`. `read(start, end)` gives the keys and values of these tokens, which are
        copied; it is only called with start >= `readable`."""
        path = self._walk(ids)
        if self._max_tokens and BLOCK * (len(path) - 1) >= readable:
            for start in range(BLOCK * (len(path) - 1), len(ids), BLOCK):
                own = ids[start : start + BLOCK]
                path.append(
                    path[-1].children.get(own)
                    or self._make(own, path[-1], read(start, start + len(own)))
                )
        self._touch(path)
        while self.tokens > self._max_tokens:
            self._drop(next(iter(self._used)))

    def clear(self) -> None:
        """Drop everything."""
        self._used.clear()
        self._root.children.clear()
        self._memory, self.tokens = _Memory(), 0

    def halve(self) -> None:
        """Drop everything, and store at most half as much from now on: memory ran out."""
        self.clear()
        self._max_tokens //= 2

    def _walk(self, ids: _Ids) -> list[Block]:
        """The root, then the known whole blocks of `ids`."""
        path = [self._root]
        for start in range(0, len(ids) - BLOCK + 1, BLOCK):
            block = path[-1].children.get(ids[start : start + BLOCK])
            if block is None:
                break
            path.append(block)
        return path

    def _make(self, ids: _Ids, parent: Block, state: Tensor) -> Block:
        """Add a block, and drop a shorter one that it continues."""
        for other in list(islice(reversed(parent.children.values()), _COMPARED)):
            if len(other.ids) < len(ids) and ids[: len(other.ids)] == other.ids:
                self._drop(other)
        self._made += 1
        place, state = self._memory.take(state)
        block = parent.children[ids] = Block(self._made, ids, state, place, parent)
        self._used[block] = None
        self.tokens += len(ids)
        return block

    def _drop(self, block: Block) -> None:
        assert block.parent is not None
        del self._used[block], block.parent.children[block.ids]
        self._memory.give_back(block.place)
        block.state = block.place = torch.empty(0)  # whoever reads it now is not given another's
        self.tokens -= len(block.ids)

    def _touch(self, path: list[Block]) -> None:
        """Mark blocks as used, a beginning later than its end, so that it is dropped later."""
        for block in reversed(path[1:]):
            self._used.move_to_end(block)


def _common_length(one: _Ids, other: _Ids) -> int:
    """The length of the common beginning of two sequences."""
    length = min(len(one), len(other))
    return next((at for at in range(length) if one[at] != other[at]), length)
