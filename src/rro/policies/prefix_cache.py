"""Keys and values of past prompts and answers, kept so that a longer history only computes what is new.

Sequences are cut into blocks of 16 tokens. A block hangs below the block before it, so equal beginnings are stored
once, however many histories share them. Least recently used blocks go first, ends before beginnings. The blocks belong
to one set of weights: a policy with other weights needs a cache of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

BLOCK = 16  # tokens; at most this many less one are computed again at the end of a known prefix

_Key = tuple[int, tuple[int, ...]]  # the block before (0: none), and the block's own tokens


@dataclass(slots=True)
class Block:
    """Sixteen tokens' keys and values, of shape (2 x layers, heads, 16, head size). `popular`: whether several rows that
    began with it were being drawn at the same time, ever; `rows`: how many are now."""

    id: int
    state: Tensor
    rows: int = 0
    popular: bool = False


class PrefixCache:
    """Blocks by token prefix, at most `max_tokens` tokens of them; 0 keeps none."""

    def __init__(self, max_tokens: int) -> None:
        self._max_blocks = max_tokens // BLOCK
        self._blocks: OrderedDict[_Key, Block] = OrderedDict()
        self._made = 0

    @property
    def tokens(self) -> int:
        """How many tokens are kept now."""
        return len(self._blocks) * BLOCK

    def match(self, ids: Sequence[int]) -> list[Block]:
        """The blocks of the longest known prefix that leaves at least one token to compute."""
        found, keys = self._walk(ids[: len(ids) - 1])
        self._touch(keys)
        return found

    def next_key(self, ids: Sequence[int], found: Sequence[Block]) -> _Key | None:
        """What identifies the first block of `ids` behind those `found`; None if there is none that would be kept."""
        start = len(found) * BLOCK
        tokens = tuple(ids[start : start + BLOCK])
        whole = len(tokens) == BLOCK and self._max_blocks
        return (found[-1].id if found else 0, tokens) if whole else None

    def store(self, ids: Sequence[int], read: Callable[[int, int], Tensor], readable: int = 0) -> list[Block]:
        """Keep all whole blocks of `ids`, and return them; `read(start, end)` copies the keys and values of those
        tokens, where start is not below `readable`."""
        blocks, keys = self._walk(ids)
        if not self._max_blocks or len(blocks) * BLOCK < readable:
            return blocks
        for start in range(len(blocks) * BLOCK, len(ids) - BLOCK + 1, BLOCK):
            keys.append((blocks[-1].id if blocks else 0, tuple(ids[start : start + BLOCK])))
            self._made += 1
            blocks.append(Block(self._made, read(start, start + BLOCK)))
            self._blocks[keys[-1]] = blocks[-1]
        self._touch(keys)
        while len(self._blocks) > self._max_blocks:
            self._blocks.popitem(last=False)
        return blocks

    def clear(self) -> None:
        self._blocks.clear()

    def halve(self) -> None:
        """Keep nothing, and from now on at most half as much: memory ran out."""
        self.clear()
        self._max_blocks //= 2

    def _walk(self, ids: Sequence[int]) -> tuple[list[Block], list[_Key]]:
        found: list[Block] = []
        keys: list[_Key] = []
        parent = 0
        for start in range(0, len(ids) - BLOCK + 1, BLOCK):
            key = (parent, tuple(ids[start : start + BLOCK]))
            block = self._blocks.get(key)
            if block is None:
                break
            found.append(block)
            keys.append(key)
            parent = block.id
        return found, keys

    def _touch(self, keys: Sequence[_Key]) -> None:
        """Mark as used; a beginning counts as used later than its end, so that it is dropped later."""
        for key in reversed(keys):
            self._blocks.move_to_end(key)
