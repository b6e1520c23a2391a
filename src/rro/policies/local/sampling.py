"""One answer being drawn, how its next token is chosen, and the contract of what draws many of
them.

A row's random numbers depend on its seed and the token's number alone, so neither the other rows of
a batch nor when it joined change them. What still changes is the arithmetic (sums depend on the
shape of a batch). So each token of the vocabulary gets its own random number (the Gumbel-max
trick): another token wins only where two are within rounding of each other. Inverting the
distribution function would let a small change of one probability move all those behind it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rro.models.stop_strings import cut_at_stop
from rro.types import SamplingParams

Decode = Callable[[Sequence[int]], str]
_OFFSETS = 2**21  # two draws share their random numbers once in this many


@dataclass(slots=True, eq=False)
class Row:
    """One answer: what to draw it from, and what was drawn. `limit` bounds its tokens; `cached`
    counts the prompt tokens that were not computed for it."""

    prompt: tuple[int, ...]
    params: SamplingParams
    seed: int
    limit: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: Literal["stop", "length"] | None = None
    text: str | None = None  # where a stop string ended it
    cached: int | None = None

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.tokens)

    @property
    def ids(self) -> tuple[int, ...]:
        return self.prompt + tuple(self.tokens)


def offsets(rows: Sequence[Row]) -> list[int]:
    """Where each row's random numbers begin in the table: a hash of its seed and of how many tokens
    it has."""
    seeds = np.array([row.seed for row in rows], dtype=np.uint64)
    steps = np.array([len(row.tokens) for row in rows], dtype=np.uint64)
    hashed: list[int] = (_mix(_mix(seeds) + steps) % np.uint64(_OFFSETS)).tolist()
    return hashed


def _mix(x: Any) -> Any:
    """SplitMix64, a hash of 64-bit integers that is the same everywhere."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@lru_cache(maxsize=4)
def _gumbel(vocabulary: int, device: torch.device) -> Tensor:
    """A fixed table of standard Gumbel numbers, seen as (offsets, vocabulary): row i begins at its
    i-th number. Making fresh numbers for every token of the vocabulary would cost more than the
    rest of the choice."""
    hashed = _mix(np.arange(_OFFSETS + vocabulary - 1, dtype=np.uint64)) >> np.uint64(11)
    gumbel = -np.log(-np.log((hashed.astype(np.float64) + 0.5) / 2**53))
    table = torch.from_numpy(gumbel.astype(np.float32)).to(device)
    return table.as_strided((_OFFSETS, vocabulary), (1, 1))


def choose(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """Draw one token per row from logits (rows, vocabulary), float32; ids of shape (rows,)."""
    if all(row.params.temperature == 0 for row in rows):
        return logits.argmax(-1)
    temperature = torch.tensor([row.params.temperature for row in rows], device=logits.device)[
        :, None
    ]
    scaled = logits / temperature.clamp(min=1e-6)
    if any(row.params.top_p < 1 for row in rows):
        scaled = _keep_top_p(
            scaled, torch.tensor([row.params.top_p for row in rows], device=logits.device)[:, None]
        )
    where = torch.tensor(offsets(rows), device=logits.device)
    noise = _gumbel(logits.shape[-1], logits.device)[where]
    return torch.where(temperature == 0, logits, scaled + noise).argmax(-1)


def _keep_top_p(scaled: Tensor, top_p: Tensor) -> Tensor:
    """Rule out all but the fewest tokens whose probabilities reach `top_p`."""
    ordered, order = torch.softmax(scaled, -1).sort(-1, descending=True)
    outside = ordered.cumsum(-1) - ordered >= top_p
    outside[:, 0] = False
    return scaled.masked_fill(outside.scatter(-1, order, outside), -torch.inf)


class Generator(ABC):
    """Draws rows. `admit` moves waiting rows in as far as there is room, `step` draws one token for
    each row inside; both return the rows that are done. After an exception, `reset` gives back all
    rows, tokens kept: those that are not done can be admitted again and go on as if nothing had
    happened. Call them in torch.inference_mode."""

    def __init__(self, model: Any, end_ids: frozenset[int], decode: Decode, max_rows: int) -> None:
        self.model, self.end_ids, self.max_rows = model, end_ids, max_rows
        self.rows: list[Row] = []
        self._decode = decode

    @abstractmethod
    def admit(self, waiting: deque[Row]) -> list[Row]: ...

    @abstractmethod
    def step(self) -> list[Row]: ...

    def reset(self) -> list[Row]:
        """Forget all state; returns the rows that were inside."""
        rows, self.rows = self.rows, []
        return rows

    def shrink(self, rows: int) -> None:
        """Take at most `rows` at once from now on."""
        self.max_rows = rows

    def extend(self, rows: Sequence[Row], logits: Tensor) -> None:
        """Give each row its next token from logits (rows, vocabulary)."""
        logits = logits.float()
        chosen = choose(logits, rows)
        logprobs: list[float] = []
        if any(row.params.logprobs for row in rows):
            logprobs = torch.log_softmax(logits, -1).gather(-1, chosen[:, None])[:, 0].tolist()
        for number, (row, token) in enumerate(zip(rows, chosen.tolist(), strict=True)):
            row.tokens.append(token)
            if row.params.logprobs:
                row.logprobs.append(logprobs[number])
            if token in self.end_ids or (row.params.stop and self._stopped(row)):
                row.finish = "stop"
            elif len(row.tokens) >= row.limit:
                row.finish = "length"

    def _stopped(self, row: Row) -> bool:
        """Look for a stop string at the end of what was drawn; if there is one, cut the row before
        it."""
        # A token stands for at least one byte, bar special ones; a few more, as a cut character
        # decodes badly.
        tail = max(len(stop.encode()) for stop in row.params.stop) + 4
        if not any(stop in self._decode(row.tokens[-tail:]) for stop in row.params.stop):
            return False
        found = cut_at_stop(row.tokens, row.params.stop, self._decode)
        if found is None:
            return False
        keep, row.text = found
        del row.tokens[keep:], row.logprobs[keep:]
        return True
