"""Which generator a model can use, and the one that any model can.

`SlotGenerator` is for models with plain attention: rows join and leave between any two tokens and
share the keys and values of equal beginnings. `EqualLengthGenerator` takes any causal LM (sliding
windows, state spaces, hybrids). Knows token ids, not messages."""

from __future__ import annotations

import logging
import os
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch

from rro.errors import UsageError
from rro.policies.local.kv_slots import Layout, plain_layout
from rro.policies.local.prefix_cache import BLOCK, PrefixCache
from rro.policies.local.sampling import Decode, Generator, Row
from rro.policies.local.slot_generator import SlotGenerator, SlotOptions
from rro.types import SamplingParams

# tokens from which on a beginning that several rows have is read from one place; for shorter ones
# that costs more than it saves
SHARE_FROM = 512
_PROBE_TOKENS = 3 * BLOCK + 5


@dataclass(frozen=True, slots=True)
class GeneratorOptions:
    """`max_rows`: answers that are drawn together. `max_context`: tokens of prompt and answer
    together. `cache_tokens`: tokens in the prefix cache, which takes at most `memory_share` of the
    memory. The switches are those of `TransformersPolicy`."""

    max_rows: int
    max_context: int
    cache_tokens: int = 200_000
    memory_share: float = 0.25
    shared_prefixes: bool = True
    packed_passes: bool = True


class EqualLengthGenerator(Generator):
    """For any causal LM: draws a batch of prompts of one length, without padding or reuse of
    prefixes, to its end before the next batch. Slower, but assumes nothing of the model's cache."""

    def __init__(self, model: Any, end_ids: frozenset[int], decode: Decode, max_rows: int) -> None:
        super().__init__(model, end_ids, decode, max_rows)
        # all rows of the batch; `rows` are those not done
        self._batch: list[Row] = []
        self._state: dict[str, Any] = {}

    def admit(self, waiting: deque[Row]) -> list[Row]:
        """As `Generator` says; nothing joins before the batch is done."""
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
        """As `Generator` says."""
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
    model: Any, end_ids: frozenset[int], decode: Decode, options: GeneratorOptions
) -> Generator:
    """The fastest generator that is right for this model, found by trying it on a few tokens: the
    model's cache must be plain keys and values, and tokens drawn through slots must have the
    log-probabilities that the model itself gives. Call it in torch.inference_mode.

    Raises UsageError for a model that cannot be sampled token by token at all."""
    vocabulary = min(200, model.config.get_text_config().vocab_size)
    ids = [(7 * i + 11) % vocabulary for i in range(_PROBE_TOKENS)]
    output = model(input_ids=torch.tensor([ids], device=model.device), use_cache=True)
    if not _state_of(output):
        raise UsageError(
            f"{type(model).__name__} returns no cache, so it cannot be sampled token by token"
        )
    layout = plain_layout(output.get("past_key_values"), options.max_context)
    if layout is not None:
        can_share = options.shared_prefixes and layout.device.type == "cpu"
        for share_from in (SHARE_FROM, None) if can_share else (None,):
            if _agrees(model, ids, layout, share_from and BLOCK):
                slots = SlotOptions(options.max_context, share_from, options.packed_passes)
                prefixes = PrefixCache(_cache_tokens(layout, options))
                return SlotGenerator(
                    model, end_ids, decode, options.max_rows, layout, prefixes, slots
                )
    logging.getLogger(__name__).warning(
        "%s does not keep plain keys and values of its whole context: answers are drawn in batches "
        "of equal length, without reuse of shared prompts",
        type(model).__name__,
    )
    return EqualLengthGenerator(model, end_ids, decode, options.max_rows)


def _cache_tokens(layout: Layout, options: GeneratorOptions) -> int:
    room = int(options.memory_share * _memory(layout.device)) // layout.bytes_per_token
    return min(options.cache_tokens, room)


def _state_of(output: Any) -> dict[str, Any]:
    """The parts of an output that the model needs to compute the next token."""
    return {
        name: output[name]
        for name in ("past_key_values", "cache_params")
        if output.get(name) is not None
    }


def _agrees(model: Any, ids: list[int], layout: Layout, share_from: int | None) -> bool:
    """Whether slots give the model's own log-probabilities, for equal prompts, a padded, a shared
    and a cached one."""
    params = SamplingParams(temperature=0.0, logprobs=True)
    prompts = [tuple(ids), tuple(ids), tuple(ids[: BLOCK + 3])]
    try:
        options = SlotOptions(4 * _PROBE_TOKENS, share_from)
        generator = SlotGenerator(
            model, frozenset(), lambda ids: "", 4, layout, PrefixCache(20 * BLOCK), options
        )
        rows = _draw(generator, [Row(prompt, params, 0, 2) for prompt in prompts])
        rows += _draw(
            generator, [Row((*rows[0].ids, *ids[number:20]), params, 0, 2) for number in range(2)]
        )
        tolerance = 1e-3 if layout.dtype == torch.float32 else 0.3
        return all(_error(model, row) < tolerance for row in rows[1:])
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
    """The largest difference of a row's log-probabilities from the model's own."""
    logits = (
        model(input_ids=torch.tensor([row.ids[:-1]], device=model.device))
        .logits[0, len(row.prompt) - 1 :]
        .float()
    )
    drawn = torch.tensor(row.tokens, device=model.device)[:, None]
    expected = torch.log_softmax(logits, -1).gather(-1, drawn)[:, 0].cpu()
    return float((torch.tensor(row.logprobs) - expected).abs().max())


def _memory(device: torch.device) -> int:
    """Bytes: free ones of a GPU, or this machine's memory."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
