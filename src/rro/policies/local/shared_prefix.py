"""Attention that reads a prefix shared by many rows once, not once per row ("cascade" attention).

Decoding on a CPU is bound by memory: each step reads all keys and values of every row, and siblings
and rollouts have most of their history in common. Here every shared prefix is stored once and
attended to by all its rows together; the rest of a row is in its slot, and the two attentions are
combined by the sums of their exponentials. Used where `make_generator` found it to agree with the
model's own attention and the prefix is long enough; not on GPUs, which would wait for the many
small kernels. Knows rows and blocks, neither tokens nor models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np
import torch
from torch import Tensor

from rro.policies.local.packed_pass import Attend, PackedPass
from rro.policies.local.prefix_cache import BLOCK, Block
from rro.policies.local.sampling import Row


@dataclass(slots=True, eq=False)
class _Segment:
    """Consecutive blocks in one tensor (2 x layers, heads, tokens, size). A row uses a segment from
    its beginning up to where its own history differs."""

    blocks: list[int]
    state: Tensor
    users: int = 0


@dataclass(frozen=True, slots=True)
class _Common:
    """Keys and values (2 x layers, heads, tokens, size) that the rows first..last-1, in sorted
    order, have in common."""

    first: int
    last: int
    state: Tensor


@dataclass(frozen=True, slots=True)
class _SortedPass:
    """A pass, its common parts by sorted token, and the tokens' order and its inverse."""

    work: PackedPass
    common: list[_Common]
    order: Tensor
    inverse: Tensor


class SharedPrefixes:
    """Which rows share which prefixes of `least` or more tokens. Call `enter` and `leave` for each
    row, `arrange` after the rows of a pass changed, `attention` for each pass."""

    def __init__(self, least: int) -> None:
        self._least = least
        # by their first block
        self._segments: dict[int, _Segment] = {}
        # that a row began with
        self._blocks: dict[Row, list[Block]] = {}
        # the segments of a row, and how many blocks of each it uses
        self._used: dict[Row, list[tuple[_Segment, int]]] = {}
        self._common: list[_Common] = []
        self._order = np.empty(0, dtype=np.int64)

    def enter(self, rows: Sequence[Row], blocks: list[Block]) -> int:
        """Add rows that begin with these blocks. Returns how many of the blocks they read from
        here: those that several rows in the batch had at the same time. (A history that merely
        grows step by step is not shared.)"""
        for block in blocks:
            block.rows += len(rows)
            block.shared = block.shared or block.rows > 1
        common = list(takewhile(lambda block: block.shared, blocks))
        if len(common) * BLOCK < self._least:
            common = []
        for row in rows:
            self._blocks[row] = blocks
            self._used[row] = self._use(common)
        return len(common)

    def follow(self, leader: Row, duplicates: Sequence[Row], blocks: list[Block]) -> int:
        """Add rows whose ids equal those of `leader`, now that its prompt is computed and stored as
        `blocks`. Returns how many of these all of them read from here from now on."""
        old, used = self._blocks[leader], self._used[leader]
        if blocks[: len(old)] == old:
            common = self.enter([leader, *duplicates], blocks)
            self._release(old, used)
            return common
        # meanwhile the cache has dropped what the leader began with
        for duplicate in duplicates:
            self._blocks[duplicate], self._used[duplicate] = old, used
            for block in old:
                block.rows += 1
            for segment, _ in used:
                segment.users += 1
        return sum(count for _, count in used)

    def _use(self, blocks: list[Block]) -> list[tuple[_Segment, int]]:
        """The segments that begin with these blocks, made where there are none."""
        used, at = [], 0
        while at < len(blocks):
            segment = self._segments.get(blocks[at].id)
            if segment is None:
                ids, states = zip(*((block.id, block.state) for block in blocks[at:]), strict=True)
                segment = self._segments[ids[0]] = _Segment(list(ids), torch.cat(states, 2))
            pairs = zip(segment.blocks, blocks[at:], strict=False)
            count = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1].id, pairs))
            segment.users += 1
            used.append((segment, count))
            at += count
        return used

    def leave(self, row: Row) -> None:
        """Remove a row."""
        self._release(self._blocks.pop(row), self._used.pop(row))

    def _release(self, blocks: list[Block], used: list[tuple[_Segment, int]]) -> None:
        for block in blocks:
            block.rows -= 1
        for segment, _ in used:
            segment.users -= 1
            if not segment.users:
                del self._segments[segment.blocks[0]]

    def arrange(self, rows: Sequence[Row]) -> None:
        """Sort the rows of a pass so that those with a common prefix are neighbours, and list what
        neighbours have in common. Needed whenever the rows or their order changed."""
        chains = [
            tuple(id_ for segment, count in self._used[row] for id_ in segment.blocks[:count])
            for row in rows
        ]
        self._order = np.array(sorted(range(len(rows)), key=lambda number: chains[number]))
        users: dict[_Segment, list[tuple[int, int]]] = {}
        for place, number in enumerate(self._order.tolist()):
            for segment, count in self._used[rows[number]]:
                users.setdefault(segment, []).append((place, count))
        self._common = []
        for segment, places in users.items():
            begin = 0
            for end in sorted({count for _, count in places}):
                inside = [place for place, count in places if count >= end]
                state = segment.state[:, :, begin * BLOCK : end * BLOCK]
                self._common.append(_Common(inside[0], inside[-1] + 1, state))
                begin = end

    def attention(self, work: PackedPass) -> Attend:
        """The attention of a pass over the arranged rows: to the shared prefixes and to the rows'
        slots."""
        if not self._common:
            return work.attend
        # the sorted place of each token's row
        place = np.argsort(self._order)[work.owner]
        order = np.argsort(place, kind="stable")
        ends = np.concatenate([[0], np.cumsum(np.bincount(place))])
        common = [
            replace(part, first=int(ends[part.first]), last=int(ends[part.last]))
            for part in self._common
        ]
        inverse = np.argsort(order)
        view = _SortedPass(work, common, torch.from_numpy(order), torch.from_numpy(inverse))

        def attend(query: Tensor, scale: float, softcap: float | None) -> Tensor:
            if softcap is not None:
                raise ValueError("attention to shared prefixes has no softcap")
            return _attend(view, query, scale)

        return attend


def _attend(view: _SortedPass, query: Tensor, scale: float) -> Tensor:
    """Attention of (tokens, heads, group, size): to the slots first, then to each common part."""
    work, layer, group = view.work, view.work.slots.layer, query.shape[2]
    own = [
        _flash(grid.gather(query), *grid.read(work.slots), scale, grid.mask) for grid in work.grids
    ]
    output, weight = (
        _sorted(
            torch.cat(
                [grid.scatter(own, group) for grid, own in zip(work.grids, outputs, strict=True)]
            ),
            view.order,
        )
        for outputs in zip(*own, strict=True)
    )
    output = output.float()
    queries = _sorted(query, view.order)
    for common in view.common:
        rows = slice(common.first * group, common.last * group)
        keys, values = common.state[2 * layer], common.state[2 * layer + 1]
        other, other_weight = _flash(queries[None, :, rows], keys[None], values[None], scale)
        _combine(output[:, rows], weight[:, rows], other[0], other_weight[0])
    return _unsorted(output, view.inverse).to(query.dtype)


def _flash(
    query: Tensor, keys: Tensor, values: Tensor, scale: float, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Attention, and the logarithm of the sum of its exponentials with a last dimension of 1, by
    which two attentions can be combined."""
    # the public scaled_dot_product_attention does not return the second
    output, weight = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, keys, values, attn_mask=mask, scale=scale
    )
    return output, weight[..., None]


def _combine(output: Tensor, weight: Tensor, other: Tensor, other_weight: Tensor) -> None:
    """Turn an attention and its weight, in place, into those to the keys of both."""
    both = torch.logaddexp(weight, other_weight)
    output.mul_(torch.exp(weight - both)).add_(other * torch.exp(other_weight - both))
    weight.copy_(both)


def _sorted(tensor: Tensor, order: Tensor) -> Tensor:
    """From (tokens, heads, group, n) to (heads, tokens x group, n), in sorted order."""
    return tensor[order].transpose(0, 1).flatten(1, 2)


def _unsorted(tensor: Tensor, inverse: Tensor) -> Tensor:
    """The inverse of `_sorted`."""
    heads, _, size = tensor.shape
    return tensor.view(heads, len(inverse), -1, size).transpose(0, 1)[inverse]
