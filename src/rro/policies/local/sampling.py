"""One answer in a batch, how its next token is chosen, and the contract of a generator, which draws
many answers.

A row's random numbers depend on its seed and the token's number alone, not on the other rows of the
batch. The logits still depend on them a little, because sums depend on the shape of a batch. So
each token of the vocabulary gets a random number of its own (the Gumbel-max trick): another token
wins only if two are within rounding of each other. Inverting the distribution function would let a
small change of one probability move all tokens behind it. Knows neither caches nor messages."""

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
from rro.models.thoughts import ThoughtLimits
from rro.types import SamplingParams

Decode = Callable[[Sequence[int]], str]
# two draws share their random numbers once in so many
_OFFSETS = 2**21


@dataclass(slots=True, eq=False)
class Row:
    """One answer: its prompt, and the tokens drawn so far with their log-probabilities. `limit`:
    its most tokens. `finish`: why it ended. `text`: its text if a stop string ended it. `cached`:
    how many prompt tokens were not computed for it (None: unknown yet). `thoughts`: limits on its
    thought and on what follows."""

    prompt: tuple[int, ...]
    params: SamplingParams
    seed: int
    limit: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: Literal["stop", "length"] | None = None
    text: str | None = None
    cached: int | None = None
    thoughts: ThoughtLimits | None = None

    @property
    def length(self) -> int:
        """Tokens of the prompt and the answer so far."""
        return len(self.prompt) + len(self.tokens)

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids of the prompt and the answer so far."""
        return self.prompt + tuple(self.tokens)


def offsets(rows: Sequence[Row]) -> list[int]:
    """Where each row's next random numbers begin in the table: a hash of its seed and its number of
    tokens."""
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
    """A fixed table of standard Gumbel numbers as (offsets, vocabulary), whose row i begins at
    number i. Fresh numbers for every token of the vocabulary would cost more than all the rest of
    choosing a token."""
    hashed = _mix(np.arange(_OFFSETS + vocabulary - 1, dtype=np.uint64)) >> np.uint64(11)
    gumbel = -np.log(-np.log((hashed.astype(np.float64) + 0.5) / 2**53))
    table = torch.from_numpy(gumbel.astype(np.float32)).to(device)
    return table.as_strided((_OFFSETS, vocabulary), (1, 1))


def choose(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """Draw one token per row from logits (rows, vocabulary), float32; returns ids of shape
    (rows,)."""
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
    """Set all logits to -inf except those of the fewest tokens whose probabilities reach `top_p`
    together."""
    ordered, order = torch.softmax(scaled, -1).sort(-1, descending=True)
    outside = ordered.cumsum(-1) - ordered >= top_p
    outside[:, 0] = False
    return scaled.masked_fill(outside.scatter(-1, order, outside), -torch.inf)


class Generator(ABC):
    """Draws the answers of many rows. `rows` are those that it works on. After an exception,
    `reset` returns all of them with their tokens; those that are not done can be admitted again and
    continue where they were. Call its methods in torch.inference_mode."""

    def __init__(self, model: Any, end_ids: frozenset[int], decode: Decode, max_rows: int) -> None:
        self.model, self.end_ids, self.max_rows = model, end_ids, max_rows
        self.rows: list[Row] = []
        self._decode = decode

    @abstractmethod
    def admit(self, waiting: deque[Row]) -> list[Row]:
        """Take rows from `waiting`, as many as there is room for. Returns those that are done."""

    @abstractmethod
    def step(self) -> list[Row]:
        """Draw one token for each row. Returns those that are done, which leave."""

    def reset(self) -> list[Row]:
        """Forget everything; returns the rows that it worked on."""
        rows, self.rows = self.rows, []
        return rows

    def shrink(self, rows: int) -> None:
        """Work on at most `rows` at once from now on."""
        self.max_rows = rows

    def extend(self, rows: Sequence[Row], logits: Tensor) -> None:
        """Give each row its next token from logits (rows, vocabulary), and set `finish` of those
        that are done."""
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
            elif len(row.tokens) >= row.limit or _is_long(row):
                row.finish = "length"

    def _stopped(self, row: Row) -> bool:
        """Whether the answer ends with a stop string, before which it is then cut."""
        # a token, unless special, stands for at least one byte; a few more because a character that
        # is cut in two does not decode
        tail = max(len(stop.encode()) for stop in row.params.stop) + 4
        if not any(stop in self._decode(row.tokens[-tail:]) for stop in row.params.stop):
            return False
        stop = cut_at_stop(row.tokens, row.params.stop, self._decode)
        if stop is None:
            return False
        keep, row.text = stop
        del row.tokens[keep:], row.logprobs[keep:]
        return True


def _is_long(row: Row) -> bool:
    """Whether its thought, or what follows it, is as long as it may be."""
    return row.thoughts is not None and len(row.tokens) >= row.thoughts.allowed(row.tokens)
