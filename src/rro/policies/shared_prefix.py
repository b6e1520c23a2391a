"""Attention that reads a beginning shared by many rows once, not once per row.

Drawing tokens on a CPU is bound by memory: every step reads all keys and values of every row, and siblings and rollouts
are mostly the same history. Here each shared stretch of it is kept once, as a trunk, and multiplied with the queries
of all its rows together; what a row has for itself lies in its slot. Used where it was found to agree with the model's
own attention (see `make_generator`) and is long enough to pay; GPUs, which would wait for the many small kernels, do
without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from rro.policies.packed import Attend, Part, Pass, capped
from rro.policies.prefix_cache import BLOCK, Block
from rro.policies.sampling import Row


@dataclass(slots=True, eq=False)
class _Trunk:
    """Consecutive blocks in one tensor (2 x layers, heads, tokens, size), from token `start` of its rows' histories.
    A row uses a trunk from its beginning, up to where its own history branches off."""

    blocks: list[int]
    state: Tensor
    start: int
    users: int = 0


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Tokens start..end-1, which the rows first..last-1, in sorted order, have in common: (2 x layers, heads, tokens, size)."""

    first: int
    last: int
    start: int
    end: int
    state: Tensor


@dataclass(frozen=True, slots=True)
class _View:
    """One pass: its stretches by sorted token, and the tokens' order and its inverse."""

    work: Pass
    stretches: list[_Stretch]
    order: Tensor
    inverse: Tensor


class SharedPrefixes:
    """Which rows share which beginnings, of `least` tokens or more. Rows `enter` and `leave`; `arrange` where they changed;
    `attention` serves one forward pass."""

    def __init__(self, least: int) -> None:
        self._least = least
        self._trunks: dict[int, _Trunk] = {}  # by their first block
        self._blocks: dict[Row, list[Block]] = {}  # that a row began with
        self._used: dict[Row, list[tuple[_Trunk, int]]] = {}  # the trunks a row reads, and how many blocks of each
        self._stretches: list[_Stretch] = []
        self._order = np.empty(0, dtype=np.int64)
        self._width = 0

    def enter(self, rows: Sequence[Row], blocks: list[Block]) -> int:
        """Rows that begin with these blocks come in; returns how many of the blocks the rows read from here: those that other
        rows had too at the same time. A history that merely grows step by step is not worth a trunk."""
        for block in blocks:
            block.rows += len(rows)
            block.popular = block.popular or block.rows > 1
        common = list(takewhile(lambda block: block.popular, blocks))
        if len(common) * BLOCK < self._least:
            common = []
        for row in rows:
            self._blocks[row] = blocks
            self._used[row] = self._climb(common)
        return len(common)

    def follow(self, leader: Row, twins: Sequence[Row], blocks: list[Block]) -> int:
        """Rows equal to one that is here come in, now that `blocks` are known of them; returns how many of those they and the
        leader read from here from now on."""
        old, used = self._blocks[leader], self._used[leader]
        if blocks[: len(old)] == old:
            common = self.enter([leader, *twins], blocks)
            self._release(old, used)
            return common
        for twin in twins:  # the cache has dropped what the leader began with meanwhile
            self._blocks[twin], self._used[twin] = old, used
            for block in old:
                block.rows += 1
            for trunk, _ in used:
                trunk.users += 1
        return sum(count for _, count in used)

    def _climb(self, blocks: list[Block]) -> list[tuple[_Trunk, int]]:
        used, at = [], 0
        while at < len(blocks):
            trunk = self._trunks.get(blocks[at].id)
            if trunk is None:
                ids, states = zip(*((block.id, block.state) for block in blocks[at:]), strict=True)
                trunk = self._trunks[ids[0]] = _Trunk(list(ids), torch.cat(states, 2), at * BLOCK)
            pairs = zip(trunk.blocks, blocks[at:], strict=False)
            count = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1].id, pairs))
            trunk.users += 1
            used.append((trunk, count))
            at += count
        return used

    def leave(self, row: Row) -> None:
        self._release(self._blocks.pop(row), self._used.pop(row))

    def _release(self, blocks: list[Block], used: list[tuple[_Trunk, int]]) -> None:
        for block in blocks:
            block.rows -= 1
        for trunk, _ in used:
            trunk.users -= 1
            if not trunk.users:
                del self._trunks[trunk.blocks[0]]

    def arrange(self, rows: Sequence[Row]) -> None:
        """Sort the rows such that those with a common beginning lie together, and list what each stretch of them has in
        common. Needed whenever the rows or their order changed."""
        chains = [tuple(id_ for trunk, count in self._used[row] for id_ in trunk.blocks[:count]) for row in rows]
        self._order = np.array(sorted(range(len(rows)), key=lambda number: chains[number]))
        users: dict[_Trunk, list[tuple[int, int]]] = {}
        for place, number in enumerate(self._order.tolist()):
            for trunk, count in self._used[rows[number]]:
                users.setdefault(trunk, []).append((place, count))
        self._stretches = []
        for trunk, places in users.items():
            begin = 0
            for end in sorted({count for _, count in places}):
                inside = [place for place, count in places if count >= end]
                start, stop = begin * BLOCK, end * BLOCK
                state = trunk.state[:, :, start:stop]
                self._stretches.append(
                    _Stretch(inside[0], inside[-1] + 1, trunk.start + start, trunk.start + stop, state)
                )
                begin = end
        self._width = max((stretch.end for stretch in self._stretches), default=0)

    def attention(self, work: Pass) -> Attend:
        """How the tokens of a pass over the arranged rows attend: to the stretches here and to their rows' slots."""
        if not self._stretches:
            return work.attend
        place = np.argsort(self._order)  # of each row
        order = np.argsort(place[work.owner], kind="stable")  # of the tokens, by their rows' places
        ends = np.concatenate([[0], np.cumsum(np.bincount(place[work.owner]))])
        stretches = [replace(part, first=int(ends[part.first]), last=int(ends[part.last])) for part in self._stretches]
        view = _View(work, stretches, torch.from_numpy(order), torch.from_numpy(np.argsort(order)))
        return lambda query, scale, softcap: self._attend(view, query * scale, softcap)

    def _attend(self, view: _View, query: Tensor, softcap: float | None) -> Tensor:
        """Attention of (tokens, heads, group, size). In sorted order, heads come first: (heads, tokens x group, ...)."""
        work, stretches, order, inverse = view.work, view.stretches, view.order, view.inverse
        tokens, heads, group, _ = query.shape
        layer, least = work.slots.layer, torch.finfo(query.dtype).min
        shared_query = _sorted(query, order)
        scores = shared_query.new_full((heads, tokens * group, self._width), least)
        for stretch in stretches:
            place = slice(stretch.first * group, stretch.last * group)
            scores[:, place, stretch.start : stretch.end] = torch.bmm(
                shared_query[:, place], stretch.state[2 * layer].mT
            )
        grids = [(part, *part.read(work.slots)) for part in work.parts]
        width = max(keys.shape[2] for _, keys, _ in grids)
        own = [
            pad(part.scatter(_own_scores(part, query, keys, softcap), group), (0, width - keys.shape[2]), value=least)
            for part, keys, _ in grids
        ]
        both = torch.cat([capped(scores, softcap), _sorted(torch.cat(own), order)], -1)
        weights = torch.softmax(both, -1, dtype=torch.float32).to(query.dtype)
        output = shared_query.new_zeros(shared_query.shape)
        for stretch in stretches:
            place = slice(stretch.first * group, stretch.last * group)
            output[:, place] += torch.bmm(weights[:, place, stretch.start : stretch.end], stretch.state[2 * layer + 1])
        mine = _unsorted(weights[..., self._width :], inverse)
        own = [
            part.scatter(torch.matmul(part.gather(mine[..., : keys.shape[2]]), values), group)
            for part, keys, values in grids
        ]
        return torch.cat(own).add_(_unsorted(output, inverse))


def _own_scores(part: Part, query: Tensor, keys: Tensor, softcap: float | None) -> Tensor:
    """Of a part's tokens toward their own slots: (lines, heads, group x n, width)."""
    return capped(torch.matmul(part.gather(query), keys.mT), softcap) + part.mask


def _sorted(tensor: Tensor, order: Tensor) -> Tensor:
    """From (tokens, heads, group, n) to (heads, tokens x group, n), in sorted order."""
    return tensor[order].transpose(0, 1).flatten(1, 2)


def _unsorted(tensor: Tensor, inverse: Tensor) -> Tensor:
    heads, _, size = tensor.shape
    return tensor.view(heads, len(inverse), -1, size).transpose(0, 1)[inverse]
