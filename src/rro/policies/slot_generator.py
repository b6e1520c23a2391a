"""Continuous batching for models with plain attention: rows join and leave between any two tokens."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rro.policies.kv_slots import KeyValueSlots, Layout
from rro.policies.packed import Pass, attending
from rro.policies.prefix_cache import BLOCK, PrefixCache
from rro.policies.sampling import Decode, Generator, Row
from rro.policies.shared_prefix import SharedPrefixes

_PROMPT_TOKENS = 512  # at most, that a forward pass computes of prompts: bounds its memory, and how long all others wait

_Ids = tuple[int, ...]


class SlotGenerator(Generator):
    """Every row has a slot of keys and values. A new row finds there what the prefix cache knows of it; the rest of its prompt
    goes through the model in one pass with the next token of all others. With `share`, a beginning that several rows had
    is not copied into their slots but read from one place, if it has that many tokens."""

    def __init__(
        self,
        model: Any,
        end_ids: frozenset[int],
        decode: Decode,
        max_rows: int,
        layout: Layout,
        prefixes: PrefixCache,
        share: int | None,
    ) -> None:
        super().__init__(model, end_ids, decode, max_rows)
        self._prefixes, self._layout, self._share = prefixes, layout, share
        self._group = model.config.get_text_config().num_attention_heads // layout.heads
        self._clear()

    def _clear(self) -> None:
        self._slots = KeyValueSlots(self._layout, self.max_rows)
        self._starts: list[int] = []  # by slot: the tokens before this one are shared
        self._known: list[int] = []  # by slot: the tokens before this one went through the model
        self._twins: dict[Row, list[Row]] = {}  # those that wait for the prompt of a row in a slot, by that row
        self._shared = SharedPrefixes(self._share) if self._share else None
        self._arranged = False

    def reset(self) -> list[Row]:
        inside = [*self.rows, *(twin for twins in self._twins.values() for twin in twins)]
        self.rows = []
        self._prefixes.clear()
        self._clear()
        return inside

    def shrink(self, rows: int) -> None:
        super().shrink(rows)
        self._prefixes.halve()

    def admit(self, waiting: deque[Row]) -> list[Row]:
        """Equal sequences come in together. Of others that begin with the same unknown block only one does: the rest will
        find it in the cache."""
        room = self.max_rows - len(self.rows) - sum(map(len, self._twins.values()))
        new = sum(row.length - known - 1 for row, known in zip(self.rows, self._known, strict=True))
        leaders, later = dict[_Ids, Row](), list[Row]()
        claimed = {self._prefixes.next_key(row.ids) for row in self._twins}
        while waiting and room and new < _PROMPT_TOKENS:
            row = waiting.popleft()
            ids = row.ids
            if ids in leaders:
                self._twins[leaders[ids]].append(row)
            elif (key := self._prefixes.next_key(ids)) is not None and key in claimed:
                later.append(row)
                continue
            else:
                new += self._seat(row, ids)
                leaders[ids], self._twins[row] = row, []
                claimed.add(key)
            room -= 1
        waiting.extendleft(reversed(later))
        return []

    def step(self) -> list[Row]:
        if not self.rows:
            return []
        tokens = self._new_tokens()
        logits = self._forward(tokens)
        self._known = [known + len(new) for known, new in zip(self._known, tokens, strict=True)]
        sources = [slot for slot, row in enumerate(self.rows) if self._known[slot] == row.length]
        rows = [self.rows[slot] for slot in sources]
        for slot, row in list(zip(sources, rows, strict=True)):
            if row in self._twins:
                twins = self._finish_prompt(slot)
                rows += twins
                sources += [slot] * len(twins)
        self.extend(rows, logits[sources])
        return self._leave()

    def _new_tokens(self) -> list[Sequence[int]]:
        """Of each row the tokens that the next pass computes."""
        tokens, left = list[Sequence[int]](), _PROMPT_TOKENS
        for row, known in zip(self.rows, self._known, strict=True):
            new = min(row.length - known, 1 + left)
            left -= new - 1
            tokens.append(row.tokens[-1:] if known == row.length - 1 and row.tokens else row.ids[known : known + new])
        return tokens

    def _seat(self, row: Row, ids: _Ids) -> int:
        """Give a row the next slot, with what is known of it; returns how many tokens are to be computed."""
        known = self._prefixes.match(ids)
        common = self._shared.enter([row], known.blocks) if self._shared else 0
        start = BLOCK * common
        self._slots.reserve(len(self.rows) + 1, len(ids) - start + 1)
        self._slots.load(len(self.rows), known.states[common:])
        if row.cached is None:
            row.cached = min(known.tokens, len(row.prompt))
        self._append(row, start, known.tokens)
        return len(ids) - known.tokens

    def _append(self, row: Row, start: int, known: int) -> None:
        self.rows.append(row)
        self._starts.append(start)
        self._known.append(known)
        self._arranged = False

    def _finish_prompt(self, slot: int) -> list[Row]:
        """Keep the keys and values of a prompt that is computed, and let in those that waited for it."""
        leader, before = self.rows[slot], self._starts[slot]
        start = before
        self._prefixes.store(leader.ids, self._slots.reader(slot, start), start)
        twins = self._twins.pop(leader)
        if twins and self._shared:
            blocks = self._prefixes.match(leader.ids).blocks
            start = self._starts[slot] = BLOCK * self._shared.follow(leader, twins, blocks)
            self._slots.shift(slot, start - before, leader.length - before)
        for twin in twins:
            if twin.cached is None:
                twin.cached = len(twin.prompt)
            self._slots.reserve(len(self.rows) + 1, leader.length - start + 1)
            self._slots.copy(slot, leader.length - start, len(self.rows))
            self._append(twin, start, leader.length)
        return twins

    def _forward(self, tokens: list[Sequence[int]]) -> Tensor:
        """Logits (rows, vocabulary) behind the last of each row's new tokens."""
        device = self._layout.device
        firsts = [known - start for known, start in zip(self._known, self._starts, strict=True)]
        work = Pass(self._slots, firsts, [len(new) for new in tokens], self._group)
        if self._shared and not self._arranged:
            self._shared.arrange(self.rows)
            self._arranged = True
        attend = self._shared.attention(work) if self._shared else work.attend
        starts = np.array(self._starts)[work.owner]
        ids = [tokens[owner][number] for owner, number in zip(work.owner.tolist(), work.number.tolist(), strict=True)]
        with attending(self.model, attend, self._layout.heads):
            logits: Tensor = self.model(
                input_ids=torch.tensor([ids], device=device),
                attention_mask=torch.empty(1, 1, 1, 1, device=device),  # ours to apply; without one the model would make it
                position_ids=torch.from_numpy(work.positions + starts)[None].to(device),
                past_key_values=self._slots,
                use_cache=True,
                logits_to_keep=len(tokens),
            ).logits
        return logits[0]

    def _leave(self) -> list[Row]:
        """Take out the rows that are done: their keys and values go to the prefix cache, the last row moves up."""
        done = []
        for slot in range(len(self.rows) - 1, -1, -1):
            row, start = self.rows[slot], self._starts[slot]
            if row.finish is None or self._twins.get(row):  # one that was abandoned, but others wait for its prompt
                continue
            done.append(row)
            self._twins.pop(row, None)
            # The last token never went through the model.
            self._prefixes.store(row.ids[: self._known[slot]], self._slots.reader(slot, start), start)
            if self._shared:
                self._shared.leave(row)
            mover, mover_start, mover_known = self.rows.pop(), self._starts.pop(), self._known.pop()
            if mover is not row:
                self.rows[slot], self._starts[slot], self._known[slot] = mover, mover_start, mover_known
                self._slots.copy(len(self.rows), mover_known - mover_start, slot)
            self._arranged = False
        return done
