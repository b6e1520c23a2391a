"""One answer being drawn, how its next token is chosen, and the contract of what draws many of them.

A row's random numbers depend on its seed and the token's number alone, so neither the other rows of a batch nor when it
joined change them. What still changes is the arithmetic (sums depend on the shape of a batch), which flips a token where
two are within rounding of each other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rro.types import SamplingParams

Decode = Callable[[Sequence[int]], str]


@dataclass(slots=True, eq=False)
class Row:
    """One answer: what to draw it from, and what was drawn. `limit` bounds its tokens; `cached` counts the prompt
    tokens that were not computed for it."""

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


def uniforms(rows: Sequence[Row]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """One number in (0, 1) per row, a hash (SplitMix64) of its seed and of how many tokens it has."""
    seeds = np.array([row.seed for row in rows], dtype=np.uint64)
    steps = np.array([len(row.tokens) for row in rows], dtype=np.uint64)
    hashed: np.ndarray[Any, np.dtype[np.uint64]] = _mix(_mix(seeds) + steps) >> np.uint64(32)
    return hashed.astype(np.float64) / 2**32 + 2**-33


def _mix(x: Any) -> Any:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def choose(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """Draw one token per row from logits (rows, vocabulary) by inverting the distribution function; (rows,) ids."""
    if all(row.params.temperature == 0 for row in rows):
        return logits.argmax(-1)
    temperature = torch.tensor([row.params.temperature for row in rows], device=logits.device)[:, None]
    probabilities = torch.softmax(logits / temperature.clamp(min=1e-6), -1)
    if any(row.params.top_p < 1 for row in rows):
        top_p = torch.tensor([row.params.top_p for row in rows], device=logits.device)[:, None]
        ordered, order = probabilities.sort(-1, descending=True)
        outside = ordered.cumsum(-1) - ordered >= top_p
        outside[:, 0] = False
        probabilities = probabilities.masked_fill(outside.scatter(-1, order, outside), 0.0)
    summed = probabilities.cumsum(-1, dtype=torch.float64)
    target = torch.from_numpy(uniforms(rows)).to(logits.device)[:, None] * summed[:, -1:]
    drawn = torch.searchsorted(summed, target, right=True).clamp_(max=logits.shape[-1] - 1)[:, 0]
    return torch.where(temperature[:, 0] == 0, logits.argmax(-1), drawn)


class Generator(ABC):
    """Draws rows. `admit` moves waiting rows in as far as there is room, `step` draws one token for each row inside;
    both return the rows that are done. After an exception, `reset` gives back all rows, tokens kept: those that are not
    done can be admitted again and go on as if nothing had happened. Call them in torch.inference_mode."""

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
        """Look for a stop string at the end of what was drawn; if there is one, cut the row before it."""
        # A token stands for at least one byte, bar special ones; a few more, as a cut character decodes badly.
        tail = max(len(stop.encode()) for stop in row.params.stop) + 4
        if not any(stop in self._decode(row.tokens[-tail:]) for stop in row.params.stop):
            return False
        text = self._decode(row.tokens)
        ends = [text.find(stop) for stop in row.params.stop if stop in text]
        if not ends:
            return False
        row.text = text[: min(ends)]
        keep = next(n for n in range(len(row.tokens) + 1) if len(self._decode(row.tokens[:n])) >= len(row.text))
        del row.tokens[keep:], row.logprobs[keep:]
        return True
