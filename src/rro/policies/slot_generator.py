"""Continuous batching for models with plain attention: rows join and leave between any two tokens."""

from __future__ import annotations

from collections import deque
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from rro.policies.kv_slots import KeyValueSlots, Layout
from rro.policies.prefix_cache import BLOCK, Block, PrefixCache
from rro.policies.sampling import Decode, Generator, Row
from rro.policies.shared_prefix import SharedPrefixes

_PREFILL_TOKENS = 4096  # at most, per forward pass: bounds the memory of a long first prompt
_WASTE_TOKENS = 64  # of padding, that are cheaper than another forward pass

_Ids = tuple[int, ...]


class SlotGenerator(Generator):
    """Every row has a slot of keys and values. New sequences are computed aside, on top of what the prefix cache knows
    of them; then their rows move in. With `share`, a beginning that several rows had is not copied into their slots but
    read from one place."""

    def __init__(
        self,
        model: Any,
        end_ids: frozenset[int],
        decode: Decode,
        max_rows: int,
        layout: Layout,
        prefixes: PrefixCache,
        share: bool,
    ) -> None:
        super().__init__(model, end_ids, decode, max_rows)
        self._prefixes, self._layout, self._share = prefixes, layout, share
        self._joining: list[Row] = []
        self._clear()

    def _clear(self) -> None:
        self._slots = KeyValueSlots(self._layout, self.max_rows)
        self._aside = KeyValueSlots(self._layout, self.max_rows)
        self._starts: list[int] = []  # by slot: the tokens before this one are shared
        self._shared = SharedPrefixes() if self._share else None
        self._arranged = False

    def reset(self) -> list[Row]:
        inside = [*self.rows, *(row for row in self._joining if row not in self.rows)]
        self.rows, self._joining = [], []
        self._prefixes.clear()
        self._clear()
        return inside

    def shrink(self, rows: int) -> None:
        super().shrink(rows)
        self._prefixes.halve()

    def admit(self, waiting: deque[Row]) -> list[Row]:
        self._joining = [waiting.popleft() for _ in range(min(len(waiting), self.max_rows - len(self.rows)))]
        pending: dict[_Ids, list[Row]] = {}
        for row in self._joining:
            pending.setdefault(row.ids, []).append(row)
        while pending:
            found = self._next_group(list(pending))
            logits, computed = self._prefill(found)
            self._move_in({ids: pending.pop(ids) for ids in found}, logits, computed)
        self._joining = []
        return self._leave()

    def step(self) -> list[Row]:
        if not self.rows:
            return []
        if self._shared and not self._arranged:
            self._shared.arrange(self.rows)
            self._arranged = True
        last = [[row.tokens[-1]] for row in self.rows]
        positions = [[row.length - 1 - start] for row, start in zip(self.rows, self._starts, strict=True)]
        with self._shared.reading(self.model, self._slots) if self._shared else nullcontext():
            self.extend(self.rows, self._forward(self._slots, last, positions, self._starts))
        return self._leave()

    def _next_group(self, sequences: list[_Ids]) -> dict[_Ids, list[Block]]:
        """Which sequences to compute next, with the blocks known of each: of about one length, and of those that
        begin with the same unknown block only one, as the others will find it in the cache."""
        claimed, found = set(), {}
        for ids in sequences:
            blocks = self._prefixes.match(ids)
            key = self._prefixes.next_key(ids, blocks)
            if key is None or key not in claimed:
                claimed.add(key)
                found[ids] = blocks
        new = {ids: len(ids) - BLOCK * len(blocks) for ids, blocks in found.items()}
        order = sorted(found, key=lambda ids: -new[ids])
        group: dict[_Ids, list[Block]] = {}
        longest, waste = new[order[0]], 0
        for ids in order:
            waste += longest - new[ids]
            if group and (waste > _WASTE_TOKENS or longest * (len(group) + 1) > _PREFILL_TOKENS):
                break
            group[ids] = found[ids]
        return group

    def _prefill(self, found: dict[_Ids, list[Block]]) -> tuple[Tensor, int]:
        """Compute what is new of each sequence, once, in row i of `_aside` for the i-th; logits (sequences, vocabulary),
        and how many tokens were computed of each."""
        self._aside.reserve(len(found), max(map(len, found)))
        for slot, blocks in enumerate(found.values()):
            self._aside.load(slot, [block.state for block in blocks])
        # All end at the same column: a row with more known tokens computes some again, a shorter one is padded in front.
        new = max(len(ids) - BLOCK * len(blocks) for ids, blocks in found.items())
        tokens = [[*[ids[0]] * (new - len(ids)), *ids[-new:]] for ids in found]
        positions = [list(range(len(ids) - new, len(ids))) for ids in found]
        return self._forward(self._aside, tokens, positions, [0] * len(found)), new

    def _move_in(self, group: dict[_Ids, list[Row]], logits: Tensor, computed: int) -> None:
        """Give each row of the computed sequences a slot, and its first token."""
        first, sources = len(self.rows), []
        for number, (ids, rows) in enumerate(group.items()):
            blocks = self._prefixes.store(ids, self._aside.reader(number, 0))
            common = self._shared.enter(rows, blocks) if self._shared else []
            for row in rows:
                if row.cached is None:  # its twins' prompt is computed with that of the first
                    row.cached = max(0, len(ids) - computed) if row is rows[0] else len(row.prompt)
                self._place(row, BLOCK * len(common), number, len(ids))
                sources.append(number)
        self._arranged = False
        self.extend(self.rows[first:], logits[sources])

    def _place(self, row: Row, start: int, source: int, length: int) -> None:
        """Let a row in whose tokens from `start` on are in row `source` of `_aside`."""
        self._slots.reserve(len(self.rows) + 1, length - start + 1)
        self._slots.copy_from(self._aside, source, start, length, len(self.rows))
        self.rows.append(row)
        self._starts.append(start)

    def _forward(
        self, slots: KeyValueSlots, tokens: list[list[int]], positions: list[list[int]], starts: list[int]
    ) -> Tensor:
        """Logits (rows, vocabulary) behind the last of `tokens`, which lie at `positions` of the first rows of `slots`."""
        device = self._layout.device
        where = torch.tensor(positions, device=device)
        slots.aim(where, max(row[-1] for row in positions) + 1)
        logits: Tensor = self.model(
            input_ids=torch.tensor(tokens, device=device),
            attention_mask=slots.mask,
            position_ids=(where + torch.tensor(starts, device=device)[:, None]).clamp(min=0),
            past_key_values=slots,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits[:, -1]

    def _leave(self) -> list[Row]:
        """Take out the rows that are done: their keys and values go to the prefix cache, the last row moves up."""
        done = []
        for slot in range(len(self.rows) - 1, -1, -1):
            row, start = self.rows[slot], self._starts[slot]
            if row.finish is None:
                continue
            done.append(row)
            computed = row.ids[:-1]  # the last token never went through the model
            self._prefixes.store(computed, self._slots.reader(slot, start), start)
            if self._shared:
                self._shared.leave(row)
            mover, mover_start = self.rows.pop(), self._starts.pop()
            if mover is not row:
                self.rows[slot], self._starts[slot] = mover, mover_start
                self._slots.copy_from(self._slots, len(self.rows), 0, mover.length - mover_start, slot)
            self._arranged = False
        return done
