"""Continuous batching for models with plain attention: rows join and leave between any two tokens.

Knows token ids, slots and the prefix cache, neither messages nor threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rro.policies.local.kv_slots import KeyValueSlots, Layout, bucket_of
from rro.policies.local.packed_pass import Attend, PackedPass, replaced_attention
from rro.policies.local.prefix_cache import BLOCK, PrefixCache
from rro.policies.local.sampling import Decode, Generator, Row
from rro.policies.local.shared_prefix import SharedPrefixes

_Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SlotOptions:
    """`max_context`: tokens of prompt and answer together. `share_from`: a beginning that several
    rows have is read from one place if it has so many tokens (None: never; see `SharedPrefixes`).
    `packed`: a new prompt goes through the model together with the next token of all other rows,
    not in a pass of its own. `prompt_tokens`: at most so many tokens of prompts a pass, which
    bounds its memory and how long the other rows wait."""

    max_context: int
    share_from: int | None = None
    packed: bool = True
    prompt_tokens: int = 512


@dataclass(slots=True, eq=False)
class _Active:
    """A row in a slot. Tokens before `start` are shared, not in the slot; those before `computed`
    have gone through the model. `duplicates` are rows that wait for the same prompt; None: it is
    computed."""

    row: Row
    # bucket and slot
    place: tuple[int, int]
    start: int
    computed: int
    duplicates: list[Row] | None

    @property
    def missing(self) -> int:
        """Tokens that have not gone through the model."""
        return self.row.length - self.computed


class SlotGenerator(Generator):
    """Every row has a slot of keys and values. A new row starts with what the prefix cache has of
    it; the rest of its prompt goes through the model in one pass with the next token of all
    others."""

    def __init__(
        self,
        model: Any,
        end_ids: frozenset[int],
        decode: Decode,
        max_rows: int,
        layout: Layout,
        prefixes: PrefixCache,
        options: SlotOptions,
    ) -> None:
        super().__init__(model, end_ids, decode, max_rows)
        self.options, self.prefixes, self._layout = options, prefixes, layout
        self._group = model.config.get_text_config().num_attention_heads // layout.heads
        self._clear()

    def _clear(self) -> None:
        self._slots = KeyValueSlots(self._layout, self.max_rows, self.options.max_context)
        self._buckets: list[list[_Active]] = []
        share_from = self.options.share_from
        self._shared = SharedPrefixes(share_from) if share_from else None
        self._changed()

    def _changed(self) -> None:
        """Rows joined, left or moved."""
        self._active = [entry for bucket in self._buckets for entry in bucket]
        self.rows = [entry.row for entry in self._active]
        self._arranged: list[_Active] = []

    def reset(self) -> list[Row]:
        """As `Generator` says; the prefix cache is emptied too."""
        inside = self.rows + [row for entry in self._active for row in entry.duplicates or ()]
        self.prefixes.clear()
        self._clear()
        return inside

    def shrink(self, rows: int) -> None:
        """As `Generator` says; the prefix cache may hold half as much from now on."""
        super().shrink(rows)
        self.prefixes.halve()

    def admit(self, waiting: deque[Row]) -> list[Row]:
        """As `Generator` says. Rows with equal ids join together; of rows that begin with the same
        unknown block only one joins, and the others will find that block in the cache."""
        room = self.max_rows - sum(1 + len(entry.duplicates or ()) for entry in self._active)
        new = sum(entry.missing - 1 for entry in self._active)
        leaders, later = dict[_Ids, list[Row]](), list[Row]()
        pending = [entry.row for entry in self._active if entry.duplicates is not None]
        claimed = {self.prefixes.next_key(row.ids) for row in pending}
        while waiting and room and new < self.options.prompt_tokens:
            row = waiting.popleft()
            ids = row.ids
            if ids in leaders:
                leaders[ids].append(row)
            elif (key := self.prefixes.next_key(ids)) is not None and key in claimed:
                later.append(row)
                continue
            else:
                leaders[ids] = []
                new += self._join(row, ids, leaders[ids]).missing
                claimed.add(key)
            room -= 1
        waiting.extendleft(reversed(later))
        if leaders:
            self._changed()
        return []

    def step(self) -> list[Row]:
        """As `Generator` says; rows whose prompt needs more passes get no token yet."""
        if not self._active:
            return []
        active = self._next_active()
        tokens = self._new_tokens(active)
        logits = self._forward(active, tokens)
        for entry, new in zip(active, tokens, strict=True):
            entry.computed += len(new)
        sources = [number for number, entry in enumerate(active) if not entry.missing]
        rows = [active[number].row for number in sources]
        for number in list(sources):
            if active[number].duplicates is not None:
                duplicates = self._finish_prompt(active[number])
                rows += duplicates
                sources += [number] * len(duplicates)
        self.extend(rows, logits[sources])
        return self._leave()

    def _next_active(self) -> list[_Active]:
        """Whose tokens the next pass computes: all; if not packed, first each new prompt alone."""
        if self.options.packed:
            return self._active
        new = [entry for entry in self._active if entry.duplicates is not None]
        return new[:1] or self._active

    def _new_tokens(self, active: Sequence[_Active]) -> list[Sequence[int]]:
        """The tokens of each row that the next pass computes."""
        tokens, left = list[Sequence[int]](), self.options.prompt_tokens
        for entry in active:
            new = min(entry.missing, 1 + left)
            left -= new - 1
            if entry.missing == 1 and entry.row.tokens:
                # the common case, without building all ids
                tokens.append(entry.row.tokens[-1:])
            else:
                tokens.append(entry.row.ids[entry.computed : entry.computed + new])
        return tokens

    def _join(self, row: Row, ids: _Ids, duplicates: list[Row]) -> _Active:
        """Give a row a slot, with what the prefix cache has of it."""
        known = self.prefixes.match(ids)
        common = self._shared.enter([row], known.blocks) if self._shared else 0
        if row.cached is None:
            row.cached = min(known.tokens, len(row.prompt))
        entry = self._add(row, BLOCK * common, known.tokens, duplicates)
        self._slots.load(entry.place, known.states[common:])
        return entry

    def _add(self, row: Row, start: int, computed: int, duplicates: list[Row] | None) -> _Active:
        """Put a row at the end of the bucket that is long enough for its longest answer."""
        bucket = bucket_of(len(row.prompt) + row.limit - start)
        while len(self._buckets) <= bucket:
            self._buckets.append([])
        entries = self._buckets[bucket]
        entries.append(_Active(row, (bucket, len(entries)), start, computed, duplicates))
        self._slots.reserve([len(entries) for entries in self._buckets])
        return entries[-1]

    def _finish_prompt(self, leader: _Active) -> list[Row]:
        """Store the keys and values of a prompt that is computed, and let the rows join that waited
        for it. Returns these."""
        row, start, duplicates = leader.row, leader.start, leader.duplicates or []
        self.prefixes.store(row.ids, self._slots.reader(leader.place, start), start)
        leader.duplicates = None
        if duplicates and self._shared:
            blocks = self.prefixes.match(row.ids).blocks
            leader.start = BLOCK * self._shared.follow(row, duplicates, blocks)
            self._slots.shift(leader.place, leader.start - start, leader.computed - start)
        for duplicate in duplicates:
            if duplicate.cached is None:
                duplicate.cached = len(duplicate.prompt)
            entry = self._add(duplicate, leader.start, leader.computed, None)
            self._slots.copy(leader.place, leader.computed - leader.start, entry.place)
        self._changed()
        return duplicates

    def _forward(self, active: list[_Active], tokens: list[Sequence[int]]) -> Tensor:
        """Logits (rows, vocabulary) after the last new token of each row."""
        device = self._layout.device
        work = PackedPass(
            self._slots,
            [entry.place for entry in active],
            [entry.computed - entry.start for entry in active],
            [len(new) for new in tokens],
            self._group,
        )
        ids = [
            tokens[owner][number]
            for owner, number in zip(work.owner.tolist(), work.number.tolist(), strict=True)
        ]
        positions = work.positions + np.array([entry.start for entry in active])[work.owner]
        with replaced_attention(self.model, self._attention(active, work), self._layout.heads):
            logits: Tensor = self.model(
                input_ids=torch.tensor([ids], device=device),
                # so that the model makes no mask: the replaced attention has its own
                attention_mask=torch.empty(1, 1, 1, 1, device=device),
                position_ids=torch.from_numpy(positions)[None].to(device),
                past_key_values=self._slots,
                use_cache=True,
                logits_to_keep=len(tokens),
            ).logits
        return logits[0]

    def _attention(self, active: list[_Active], work: PackedPass) -> Attend:
        if self._shared is None:
            return work.attend
        if active is not self._arranged:
            self._shared.arrange([entry.row for entry in active])
            self._arranged = active
        return self._shared.attention(work)

    def _leave(self) -> list[Row]:
        """Take out the rows that are done: their keys and values go to the prefix cache, and the
        last row of the bucket takes the slot."""
        done = []
        for entry in reversed(self._active):
            # an abandoned row stays while others wait for its prompt
            if entry.row.finish is None or entry.duplicates:
                continue
            done.append(entry.row)
            # the last token never went through the model
            ids = entry.row.ids[: entry.computed]
            self.prefixes.store(ids, self._slots.reader(entry.place, entry.start), entry.start)
            if self._shared:
                self._shared.leave(entry.row)
            bucket, slot = entry.place
            moved = self._buckets[bucket].pop()
            if moved is not entry:
                self._slots.copy(moved.place, moved.computed - moved.start, entry.place)
                self._buckets[bucket][slot] = moved
                moved.place = entry.place
        if done:
            self._changed()
        return done
