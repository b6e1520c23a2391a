"""Continuous batching for models with plain attention: rows join and leave between any two
tokens."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rro.policies.local.kv_slots import KeyValueSlots, Layout, shelf_of
from rro.policies.local.packed import Pass, attending
from rro.policies.local.prefix_cache import BLOCK, PrefixCache
from rro.policies.local.sampling import Decode, Generator, Row
from rro.policies.local.shared_prefix import SharedPrefixes

# at most, that a forward pass computes of prompts: bounds its memory, and how long all others wait
_PROMPT_TOKENS = 512

_Ids = tuple[int, ...]


@dataclass(slots=True, eq=False)
class _Seat:
    """A row in a slot. Tokens before `start` are shared, not in the slot; those before `known` went
    through the model. `twins` wait for the same prompt; None: it is computed."""

    row: Row
    place: tuple[int, int]  # shelf and slot
    start: int
    known: int
    twins: list[Row] | None

    @property
    def unknown(self) -> int:
        return self.row.length - self.known


class SlotGenerator(Generator):
    """Every row has a slot of keys and values. A new row finds there what the prefix cache knows of
    it; the rest of its prompt goes through the model in one pass with the next token of all others.
    With `share`, a beginning that several rows had is not copied into their slots but read from one
    place, if it has that many tokens."""

    def __init__(
        self,
        model: Any,
        end_ids: frozenset[int],
        decode: Decode,
        max_rows: int,
        layout: Layout,
        prefixes: PrefixCache,
        share: int | None,
        context: int,
    ) -> None:
        super().__init__(model, end_ids, decode, max_rows)
        self._prefixes, self._layout, self._share, self._context = prefixes, layout, share, context
        self._group = model.config.get_text_config().num_attention_heads // layout.heads
        self._clear()

    def _clear(self) -> None:
        self._slots = KeyValueSlots(self._layout, self.max_rows, self._context)
        self._shelves: list[list[_Seat]] = []
        self._shared = SharedPrefixes(self._share) if self._share else None
        self._changed()

    def _changed(self) -> None:
        """Rows came, went or moved."""
        self._seats = [seat for shelf in self._shelves for seat in shelf]
        self.rows = [seat.row for seat in self._seats]
        self._arranged = False

    def reset(self) -> list[Row]:
        inside = self.rows + [twin for seat in self._seats for twin in seat.twins or ()]
        self._prefixes.clear()
        self._clear()
        return inside

    def shrink(self, rows: int) -> None:
        super().shrink(rows)
        self._prefixes.halve()

    def admit(self, waiting: deque[Row]) -> list[Row]:
        """Equal sequences come in together. Of others that begin with the same unknown block only
        one does: the rest will find it in the cache."""
        room = self.max_rows - sum(1 + len(seat.twins or ()) for seat in self._seats)
        new = sum(seat.unknown - 1 for seat in self._seats)
        leaders, later = dict[_Ids, _Seat](), list[Row]()
        claimed = {
            self._prefixes.next_key(seat.row.ids) for seat in self._seats if seat.twins is not None
        }
        while waiting and room and new < _PROMPT_TOKENS:
            row = waiting.popleft()
            ids = row.ids
            if ids in leaders:
                leaders[ids].twins.append(row)  # type: ignore[union-attr]
            elif (key := self._prefixes.next_key(ids)) is not None and key in claimed:
                later.append(row)
                continue
            else:
                leaders[ids] = self._let_in(row, ids)
                new += leaders[ids].unknown
                claimed.add(key)
            room -= 1
        waiting.extendleft(reversed(later))
        if leaders:
            self._changed()
        return []

    def step(self) -> list[Row]:
        if not self._seats:
            return []
        tokens, seats = self._new_tokens(), self._seats
        logits = self._forward(tokens)
        for seat, new in zip(seats, tokens, strict=True):
            seat.known += len(new)
        sources = [number for number, seat in enumerate(seats) if not seat.unknown]
        rows = [seats[number].row for number in sources]
        for number in list(sources):
            if seats[number].twins is not None:
                twins = self._finish_prompt(seats[number])
                rows += twins
                sources += [number] * len(twins)
        self.extend(rows, logits[sources])
        return self._leave()

    def _new_tokens(self) -> list[Sequence[int]]:
        """Of each row the tokens that the next pass computes."""
        tokens, left = list[Sequence[int]](), _PROMPT_TOKENS
        for seat in self._seats:
            new = min(seat.unknown, 1 + left)
            left -= new - 1
            drawn = seat.unknown == 1 and seat.row.tokens
            tokens.append(
                seat.row.tokens[-1:] if drawn else seat.row.ids[seat.known : seat.known + new]
            )
        return tokens

    def _let_in(self, row: Row, ids: _Ids) -> _Seat:
        """Give a row a slot, with what is known of it."""
        known = self._prefixes.match(ids)
        common = self._shared.enter([row], known.blocks) if self._shared else 0
        if row.cached is None:
            row.cached = min(known.tokens, len(row.prompt))
        seat = self._add(row, BLOCK * common, known.tokens, [])
        self._slots.load(seat.place, known.states[common:])
        return seat

    def _add(self, row: Row, start: int, known: int, twins: list[Row] | None) -> _Seat:
        """Put a row at the end of the shelf that is long enough for all that it can become."""
        shelf = shelf_of(len(row.prompt) + row.limit - start)
        while len(self._shelves) <= shelf:
            self._shelves.append([])
        seats = self._shelves[shelf]
        seats.append(_Seat(row, (shelf, len(seats)), start, known, twins))
        self._slots.reserve([len(shelf) for shelf in self._shelves])
        return seats[-1]

    def _finish_prompt(self, leader: _Seat) -> list[Row]:
        """Keep the keys and values of a prompt that is computed, and let in those that waited for
        it."""
        row, start, twins = leader.row, leader.start, leader.twins or []
        self._prefixes.store(row.ids, self._slots.reader(leader.place, start), start)
        leader.twins = None
        if twins and self._shared:
            leader.start = BLOCK * self._shared.follow(
                row, twins, self._prefixes.match(row.ids).blocks
            )
            self._slots.shift(leader.place, leader.start - start, leader.known - start)
        for twin in twins:
            if twin.cached is None:
                twin.cached = len(twin.prompt)
            seat = self._add(twin, leader.start, leader.known, None)
            self._slots.copy(leader.place, leader.known - leader.start, seat.place)
        self._changed()
        return twins

    def _forward(self, tokens: list[Sequence[int]]) -> Tensor:
        """Logits (rows, vocabulary) behind the last of each row's new tokens."""
        seats, device = self._seats, self._layout.device
        places = [seat.place[0] for seat in seats], [seat.known - seat.start for seat in seats]
        work = Pass(self._slots, *places, [len(new) for new in tokens], self._group)
        if self._shared and not self._arranged:
            self._shared.arrange(self.rows)
            self._arranged = True
        attend = self._shared.attention(work) if self._shared else work.attend
        ids = [
            tokens[owner][number]
            for owner, number in zip(work.owner.tolist(), work.number.tolist(), strict=True)
        ]
        positions = work.positions + np.array([seat.start for seat in seats])[work.owner]
        with attending(self.model, attend, self._layout.heads):
            logits: Tensor = self.model(
                input_ids=torch.tensor([ids], device=device),
                attention_mask=torch.empty(
                    1, 1, 1, 1, device=device
                ),  # so that the model makes none: `attend` has its own
                position_ids=torch.from_numpy(positions)[None].to(device),
                past_key_values=self._slots,
                use_cache=True,
                logits_to_keep=len(tokens),
            ).logits
        return logits[0]

    def _leave(self) -> list[Row]:
        """Take out the rows that are done: their keys and values go to the prefix cache, the last
        of the shelf moves up."""
        done = []
        for seat in reversed(self._seats):
            if (
                seat.row.finish is None or seat.twins
            ):  # one that was abandoned, but others wait for its prompt
                continue
            done.append(seat.row)
            # The last token never went through the model.
            self._prefixes.store(
                seat.row.ids[: seat.known], self._slots.reader(seat.place, seat.start), seat.start
            )
            if self._shared:
                self._shared.leave(seat.row)
            shelf, slot = seat.place
            mover = self._shelves[shelf].pop()
            if mover is not seat:
                self._slots.copy(mover.place, mover.known - mover.start, seat.place)
                self._shelves[shelf][slot] = mover
                mover.place = seat.place
        if done:
            self._changed()
        return done
