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
class _Seat:
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
        self._buckets: list[list[_Seat]] = []
        share_from = self.options.share_from
        self._shared = SharedPrefixes(share_from) if share_from else None
        self._changed()

    def _changed(self) -> None:
        """Rows joined, left or moved."""
        self._seats = [seat for bucket in self._buckets for seat in bucket]
        self.rows = [seat.row for seat in self._seats]
        self._arranged: list[_Seat] = []

    def reset(self) -> list[Row]:
        """As `Generator` says; the prefix cache is emptied too."""
        inside = self.rows + [row for seat in self._seats for row in seat.duplicates or ()]
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
        room = self.max_rows - sum(1 + len(seat.duplicates or ()) for seat in self._seats)
        new = sum(seat.missing - 1 for seat in self._seats)
        leaders, later = dict[_Ids, list[Row]](), list[Row]()
        pending = [seat.row for seat in self._seats if seat.duplicates is not None]
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
        if not self._seats:
            return []
        seats = self._next_seats()
        tokens = self._new_tokens(seats)
        logits = self._forward(seats, tokens)
        for seat, new in zip(seats, tokens, strict=True):
            seat.computed += len(new)
        sources = [number for number, seat in enumerate(seats) if not seat.missing]
        rows = [seats[number].row for number in sources]
        for number in list(sources):
            if seats[number].duplicates is not None:
                duplicates = self._finish_prompt(seats[number])
                rows += duplicates
                sources += [number] * len(duplicates)
        self.extend(rows, logits[sources])
        return self._leave()

    def _next_seats(self) -> list[_Seat]:
        """Whose tokens the next pass computes: all; if not packed, first each new prompt alone."""
        if self.options.packed:
            return self._seats
        new = [seat for seat in self._seats if seat.duplicates is not None]
        return new[:1] or self._seats

    def _new_tokens(self, seats: Sequence[_Seat]) -> list[Sequence[int]]:
        """The tokens of each seat that the next pass computes."""
        tokens, left = list[Sequence[int]](), self.options.prompt_tokens
        for seat in seats:
            new = min(seat.missing, 1 + left)
            left -= new - 1
            if seat.missing == 1 and seat.row.tokens:
                # the common case, without building all ids
                tokens.append(seat.row.tokens[-1:])
            else:
                tokens.append(seat.row.ids[seat.computed : seat.computed + new])
        return tokens

    def _join(self, row: Row, ids: _Ids, duplicates: list[Row]) -> _Seat:
        """Give a row a slot, with what the prefix cache has of it."""
        known = self.prefixes.match(ids)
        common = self._shared.enter([row], known.blocks) if self._shared else 0
        if row.cached is None:
            row.cached = min(known.tokens, len(row.prompt))
        seat = self._seat(row, BLOCK * common, known.tokens, duplicates)
        self._slots.load(seat.place, known.states[common:])
        return seat

    def _seat(self, row: Row, start: int, computed: int, duplicates: list[Row] | None) -> _Seat:
        """Put a row at the end of the bucket that is long enough for its longest answer."""
        bucket = bucket_of(len(row.prompt) + row.limit - start)
        while len(self._buckets) <= bucket:
            self._buckets.append([])
        seats = self._buckets[bucket]
        seats.append(_Seat(row, (bucket, len(seats)), start, computed, duplicates))
        self._slots.reserve([len(seats) for seats in self._buckets])
        return seats[-1]

    def _finish_prompt(self, leader: _Seat) -> list[Row]:
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
            seat = self._seat(duplicate, leader.start, leader.computed, None)
            self._slots.copy(leader.place, leader.computed - leader.start, seat.place)
        self._changed()
        return duplicates

    def _forward(self, seats: list[_Seat], tokens: list[Sequence[int]]) -> Tensor:
        """Logits (rows, vocabulary) after the last new token of each seat."""
        device = self._layout.device
        work = PackedPass(
            self._slots,
            [seat.place for seat in seats],
            [seat.computed - seat.start for seat in seats],
            [len(new) for new in tokens],
            self._group,
        )
        ids = [
            tokens[owner][number]
            for owner, number in zip(work.owner.tolist(), work.number.tolist(), strict=True)
        ]
        positions = work.positions + np.array([seat.start for seat in seats])[work.owner]
        with replaced_attention(self.model, self._attention(seats, work), self._layout.heads):
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

    def _attention(self, seats: list[_Seat], work: PackedPass) -> Attend:
        if self._shared is None:
            return work.attend
        if seats is not self._arranged:
            self._shared.arrange([seat.row for seat in seats])
            self._arranged = seats
        return self._shared.attention(work)

    def _leave(self) -> list[Row]:
        """Take out the rows that are done: their keys and values go to the prefix cache, and the
        last row of the bucket takes the slot."""
        done = []
        for seat in reversed(self._seats):
            # an abandoned row stays while others wait for its prompt
            if seat.row.finish is None or seat.duplicates:
                continue
            done.append(seat.row)
            # the last token never went through the model
            ids = seat.row.ids[: seat.computed]
            self.prefixes.store(ids, self._slots.reader(seat.place, seat.start), seat.start)
            if self._shared:
                self._shared.leave(seat.row)
            bucket, slot = seat.place
            moved = self._buckets[bucket].pop()
            if moved is not seat:
                self._slots.copy(moved.place, moved.computed - moved.start, seat.place)
                self._buckets[bucket][slot] = moved
                moved.place = seat.place
        if done:
            self._changed()
        return done
