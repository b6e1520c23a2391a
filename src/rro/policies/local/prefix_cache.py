"""Keys and values of past prompts and answers, kept so that a longer history only computes what is
new.

Sequences are cut into blocks of 16 tokens, the last of a sequence may be shorter. A block hangs
below the block before it, so equal beginnings are stored once, however many histories share them; a
history that parts from a known one within a block uses the beginning of that block. Least recently
used blocks go first, ends before beginnings. The blocks belong to one set of weights: a policy with
other weights needs a cache of its own."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor

BLOCK = 16  # tokens
_COMPARED = 8  # blocks below one that are compared token by token, the last made ones

_Ids = tuple[int, ...]


@dataclass(slots=True, eq=False)
class Block:
    """Up to sixteen tokens' keys and values, of shape (2 x layers, heads, tokens, head size).
    `popular`: whether several rows that began with it were being drawn at the same time, ever;
    `rows`: how many are now."""

    id: int
    ids: _Ids
    state: Tensor
    before: Block | None
    next: dict[_Ids, Block] = field(default_factory=dict)
    rows: int = 0
    popular: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """A known beginning: whole blocks, then `part`, the first tokens of another block; `tokens` in
    all."""

    blocks: list[Block]
    part: Tensor | None
    tokens: int

    @property
    def states(self) -> list[Tensor]:
        return [
            *(block.state for block in self.blocks),
            *([] if self.part is None else [self.part]),
        ]


class PrefixCache:
    """Blocks by token prefix, at most `max_tokens` tokens of them; 0 keeps none."""

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._root = Block(0, (), torch.empty(0), None)
        self._used: OrderedDict[Block, None] = OrderedDict()  # the least recently used first
        self._made = 0
        self.tokens = 0  # kept now

    def match(self, ids: _Ids) -> Known:
        """The longest known prefix that leaves at least one token to compute."""
        ids = ids[: len(ids) - 1]
        path = self._walk(ids)
        rest = ids[BLOCK * (len(path) - 1) :]
        common, part = 0, None
        for block in islice(reversed(path[-1].next.values()), _COMPARED):
            equal = _common(block.ids, rest)
            if equal > common:
                common, part = equal, block
        self._touch(path if part is None else [*path, part])
        return Known(
            path[1:],
            None if part is None else part.state[:, :, :common],
            BLOCK * (len(path) - 1) + common,
        )

    def next_key(self, ids: _Ids) -> tuple[int, _Ids] | None:
        """What identifies the first unknown block of `ids`; None if there is none that is whole and
        would be kept."""
        path = self._walk(ids[: len(ids) - 1])
        tokens = ids[BLOCK * (len(path) - 1) : BLOCK * len(path)]
        return (path[-1].id, tokens) if len(tokens) == BLOCK and self._max_tokens else None

    def store(self, ids: _Ids, read: Callable[[int, int], Tensor], readable: int = 0) -> None:
        """Keep `ids`; `read(start, end)` copies the keys and values of those tokens, where start is
        not below `readable`."""
        path = self._walk(ids)
        if self._max_tokens and BLOCK * (len(path) - 1) >= readable:
            for start in range(BLOCK * (len(path) - 1), len(ids), BLOCK):
                own = ids[start : start + BLOCK]
                path.append(
                    path[-1].next.get(own)
                    or self._make(own, path[-1], read(start, start + len(own)))
                )
        self._touch(path)
        while self.tokens > self._max_tokens:
            self._drop(next(iter(self._used)))

    def clear(self) -> None:
        self._used.clear()
        self._root.next.clear()
        self.tokens = 0

    def halve(self) -> None:
        """Keep nothing, and from now on at most half as much: memory ran out."""
        self.clear()
        self._max_tokens //= 2

    def _walk(self, ids: _Ids) -> list[Block]:
        """The root, then the whole blocks known of `ids`."""
        path = [self._root]
        for start in range(0, len(ids) - BLOCK + 1, BLOCK):
            block = path[-1].next.get(ids[start : start + BLOCK])
            if block is None:
                break
            path.append(block)
        return path

    def _make(self, ids: _Ids, before: Block, state: Tensor) -> Block:
        """A new block; a shorter one of which it is the continuation has had its use."""
        for other in list(islice(reversed(before.next.values()), _COMPARED)):
            if len(other.ids) < len(ids) and ids[: len(other.ids)] == other.ids:
                self._drop(other)
        self._made += 1
        block = before.next[ids] = Block(self._made, ids, state, before)
        self._used[block] = None
        self.tokens += len(ids)
        return block

    def _drop(self, block: Block) -> None:
        assert block.before is not None
        del self._used[block], block.before.next[block.ids]
        self.tokens -= len(block.ids)

    def _touch(self, path: list[Block]) -> None:
        """Mark as used; a beginning counts as used later than its end, so that it is dropped
        later."""
        for block in reversed(path[1:]):
            self._used.move_to_end(block)


def _common(one: _Ids, other: _Ids) -> int:
    """How many tokens two sequences begin with alike."""
    length = min(len(one), len(other))
    return next((at for at in range(length) if one[at] != other[at]), length)
