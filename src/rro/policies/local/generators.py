"""Which way of drawing answers a model can have, and the one that any model can have.

`SlotGenerator` (its own file) is for plain attention: rows join and leave between any two tokens
and share the keys and values of equal beginnings. `EqualLengthGenerator` takes any causal LM
(sliding windows, state spaces, hybrids). Neither knows messages."""

from __future__ import annotations

import logging
import os
from collections import deque
from typing import Any

import torch

from rro.errors import UsageError
from rro.policies.local.kv_slots import Layout, plain_layout
from rro.policies.local.prefix_cache import BLOCK, PrefixCache
from rro.policies.local.sampling import Decode, Generator, Row
from rro.policies.local.slot_generator import SlotGenerator
from rro.types import SamplingParams

# a beginning that rows share is read from one place if it has so many tokens; shorter ones do not
# pay
SHARE_TOKENS = 512
_PROBE_TOKENS = 3 * BLOCK + 5


class EqualLengthGenerator(Generator):
    """For any causal LM: a batch of prompts of one length, without padding or prefix reuse, that
    ends before another begins. Slower, but nothing is assumed of what the model keeps."""

    def __init__(self, model: Any, end_ids: frozenset[int], decode: Decode, max_rows: int) -> None:
        super().__init__(model, end_ids, decode, max_rows)
        self._batch: list[Row] = []  # all rows of the batch; `rows` are those not done
        self._state: dict[str, Any] = {}

    def admit(self, waiting: deque[Row]) -> list[Row]:
        if self.rows or not waiting:
            return []
        length = len(waiting[0].ids)
        self._batch = [row for row in waiting if len(row.ids) == length][: self.max_rows]
        for row in self._batch:
            waiting.remove(row)
            row.cached = 0
        self.rows, self._state = list(self._batch), {}
        return self._advance([list(row.ids) for row in self._batch])

    def step(self) -> list[Row]:
        return self._advance([[row.ids[-1]] for row in self._batch]) if self.rows else []

    def _advance(self, tokens: list[list[int]]) -> list[Row]:
        output = self.model(
            input_ids=torch.tensor(tokens, device=self.model.device), use_cache=True, **self._state
        )
        self._state = _state_of(output)
        live = [number for number, row in enumerate(self._batch) if row.finish is None]
        self.extend([self._batch[number] for number in live], output.logits[live, -1])
        done = [row for row in self.rows if row.finish is not None]
        self.rows = [row for row in self.rows if row.finish is None]
        return done


def make_generator(
    model: Any,
    end_ids: frozenset[int],
    decode: Decode,
    max_rows: int,
    max_context: int,
    cache: tuple[int, float],
) -> Generator:
    """The best generator that this model can have, found by trying it on a few tokens: its cache
    must be plain keys and values, and what is drawn through slots must have the probabilities that
    the model itself gives. Call in torch.inference_mode.

    `cache`: how many tokens the prefix cache may keep, and how large a share of the memory it may
    take. Raises UsageError for a model that cannot be sampled token by token at all."""
    ids = [
        (7 * i + 11) % min(200, model.config.get_text_config().vocab_size)
        for i in range(_PROBE_TOKENS)
    ]
    output = model(input_ids=torch.tensor([ids], device=model.device), use_cache=True)
    if not _state_of(output):
        raise UsageError(
            f"{type(model).__name__} gives no cache back, so it cannot be sampled token by token"
        )
    layout = plain_layout(output.get("past_key_values"), max_context)
    if layout is not None:
        for share in (SHARE_TOKENS, None) if layout.device.type == "cpu" else (None,):
            if _agrees(model, ids, layout, share and BLOCK):
                tokens, memory_share = cache
                room = int(memory_share * _memory(layout.device)) // layout.bytes_per_token
                prefixes = PrefixCache(min(tokens, room))
                return SlotGenerator(
                    model, end_ids, decode, max_rows, layout, prefixes, share, max_context
                )
    logging.getLogger(__name__).warning(
        "%s does not keep plain keys and values of its whole context: answers are drawn in batches of equal length, "
        "without reuse of shared prompts",
        type(model).__name__,
    )
    return EqualLengthGenerator(model, end_ids, decode, max_rows)


def _state_of(output: Any) -> dict[str, Any]:
    """What a model wants back at the next token."""
    return {
        name: output[name]
        for name in ("past_key_values", "cache_params")
        if output.get(name) is not None
    }


def _agrees(model: Any, ids: list[int], layout: Layout, share: int | None) -> bool:
    """Whether slots give what the model gives: twins, a padded and a shared prompt, and one that
    grows from the cache."""
    params = SamplingParams(temperature=0.0, logprobs=True)
    prompts = [tuple(ids), tuple(ids), tuple(ids[: BLOCK + 3])]
    try:
        generator = SlotGenerator(
            model,
            frozenset(),
            lambda ids: "",
            4,
            layout,
            PrefixCache(20 * BLOCK),
            share,
            4 * _PROBE_TOKENS,
        )
        rows = _draw(generator, [Row(prompt, params, 0, 2) for prompt in prompts])
        rows += _draw(
            generator, [Row((*rows[0].ids, *ids[number:20]), params, 0, 2) for number in range(2)]
        )
        return all(
            _error(model, row) < (1e-3 if layout.dtype == torch.float32 else 0.3)
            for row in rows[1:]
        )
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return False


def _draw(generator: Generator, rows: list[Row]) -> list[Row]:
    waiting = deque(rows)
    while waiting or generator.rows:
        generator.admit(waiting)
        generator.step()
    return rows


def _error(model: Any, row: Row) -> float:
    """How far a row's log-probabilities are from those of the model itself, at most."""
    logits = (
        model(input_ids=torch.tensor([row.ids[:-1]], device=model.device))
        .logits[0, len(row.prompt) - 1 :]
        .float()
    )
    drawn = torch.tensor(row.tokens, device=model.device)[:, None]
    expected = torch.log_softmax(logits, -1).gather(-1, drawn)[:, 0].cpu()
    return float((torch.tensor(row.logprobs) - expected).abs().max())


def _memory(device: torch.device) -> int:
    """Bytes free on a GPU, or of this machine's memory in all."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
