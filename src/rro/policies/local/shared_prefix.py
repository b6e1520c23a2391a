"""Attention that reads a beginning shared by many rows once, not once per row.

Drawing tokens on a CPU is bound by memory: every step reads all keys and values of every row, and
siblings and rollouts are mostly the same history. Here each shared stretch of it is kept once, as a
trunk, and multiplied with the queries of all its rows together; what a row has for itself lies in
its slot, and both are joined by the sums of their exponentials ("cascade" attention). Used where it
was found to agree with the model's own attention (see `make_generator`) and is long enough to pay;
GPUs, which would wait for the many small kernels, do without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np
import torch
from torch import Tensor

from rro.policies.local.packed import Attend, Pass
from rro.policies.local.prefix_cache import BLOCK, Block
from rro.policies.local.sampling import Row


@dataclass(slots=True, eq=False)
class _Trunk:
    """Consecutive blocks in one tensor (2 x layers, heads, tokens, size). A row uses a trunk from
    its beginning, up to where its own history branches off."""

    blocks: list[int]
    state: Tensor
    users: int = 0


@dataclass(frozen=True, slots=True)
class _Stretch:
    """What the rows first..last-1, in sorted order, have in common: (2 x layers, heads, tokens,
    size)."""

    first: int
    last: int
    state: Tensor


@dataclass(frozen=True, slots=True)
class _View:
    """One pass: its stretches by sorted token, and the tokens' order and its inverse."""

    work: Pass
    stretches: list[_Stretch]
    order: Tensor
    inverse: Tensor


class SharedPrefixes:
    """Which rows share which beginnings, of `least` tokens or more. Rows `enter` and `leave`;
    `arrange` where they changed; `attention` serves one forward pass."""

    def __init__(self, least: int) -> None:
        self._least = least
        self._trunks: dict[int, _Trunk] = {}  # by their first block
        self._blocks: dict[Row, list[Block]] = {}  # that a row began with
        self._used: dict[
            Row, list[tuple[_Trunk, int]]
        ] = {}  # the trunks a row reads, and how many blocks of each
        self._stretches: list[_Stretch] = []
        self._order = np.empty(0, dtype=np.int64)

    def enter(self, rows: Sequence[Row], blocks: list[Block]) -> int:
        """Rows that begin with these blocks come in; returns how many of the blocks the rows read
        from here: those that other rows had too at the same time. A history that merely grows step
        by step is not worth a trunk."""
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
        """Rows equal to one that is here come in, now that `blocks` are known of them; returns how
        many of those they and the leader read from here from now on."""
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
                trunk = self._trunks[ids[0]] = _Trunk(list(ids), torch.cat(states, 2))
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
        """Sort the rows such that those with a common beginning lie together, and list what each
        stretch of them has in common. Needed whenever the rows or their order changed."""
        chains = [
            tuple(id_ for trunk, count in self._used[row] for id_ in trunk.blocks[:count])
            for row in rows
        ]
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
                state = trunk.state[:, :, begin * BLOCK : end * BLOCK]
                self._stretches.append(_Stretch(inside[0], inside[-1] + 1, state))
                begin = end

    def attention(self, work: Pass) -> Attend:
        """How the tokens of a pass over the arranged rows attend: to the stretches here and to
        their rows' slots."""
        if not self._stretches:
            return work.attend
        place = np.argsort(self._order)  # of each row
        order = np.argsort(place[work.owner], kind="stable")  # of the tokens, by their rows' places
        ends = np.concatenate([[0], np.cumsum(np.bincount(place[work.owner]))])
        stretches = [
            replace(part, first=int(ends[part.first]), last=int(ends[part.last]))
            for part in self._stretches
        ]
        view = _View(work, stretches, torch.from_numpy(order), torch.from_numpy(np.argsort(order)))

        def attend(query: Tensor, scale: float, softcap: float | None) -> Tensor:
            if softcap is not None:
                raise ValueError("attention to shared prefixes has no softcap")
            return _attend(view, query, scale)

        return attend


def _attend(view: _View, query: Tensor, scale: float) -> Tensor:
    """Attention of (tokens, heads, group, size): to the slots first, then each stretch's share of
    it joins in."""
    work, layer, group = view.work, view.work.slots.layer, query.shape[2]
    own = [
        _flash(part.gather(query), *part.read(work.slots), scale, part.mask) for part in work.parts
    ]
    output, weight = (
        _sorted(
            torch.cat(
                [part.scatter(grid, group) for part, grid in zip(work.parts, grids, strict=True)]
            ),
            view.order,
        )
        for grids in zip(*own, strict=True)
    )
    output = output.float()
    asked = _sorted(query, view.order)
    for stretch in view.stretches:
        rows = slice(stretch.first * group, stretch.last * group)
        keys, values = stretch.state[2 * layer], stretch.state[2 * layer + 1]
        more, its_weight = _flash(asked[None, :, rows], keys[None], values[None], scale)
        _join(output[:, rows], weight[:, rows], more[0], its_weight[0])
    return _unsorted(output, view.inverse).to(query.dtype)


def _flash(
    query: Tensor, keys: Tensor, values: Tensor, scale: float, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Attention, and the logarithm of the sum of its exponentials in a last dimension of 1: what
    two of them need to become the attention to both."""
    output, weight = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, keys, values, attn_mask=mask, scale=scale
    )
    return output, weight[..., None]


def _join(output: Tensor, weight: Tensor, more: Tensor, its_weight: Tensor) -> None:
    """Turn an attention and its weight, in place, into those to its keys and others together."""
    both = torch.logaddexp(weight, its_weight)
    output.mul_(torch.exp(weight - both)).add_(more * torch.exp(its_weight - both))
    weight.copy_(both)


def _sorted(tensor: Tensor, order: Tensor) -> Tensor:
    """From (tokens, heads, group, n) to (heads, tokens x group, n), in sorted order."""
    return tensor[order].transpose(0, 1).flatten(1, 2)


def _unsorted(tensor: Tensor, inverse: Tensor) -> Tensor:
    heads, _, size = tensor.shape
    return tensor.view(heads, len(inverse), -1, size).transpose(0, 1)[inverse]
