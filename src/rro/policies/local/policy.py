"""A local Transformers model as a policy.

Callers await `sample`; a worker thread draws all current requests in one batch, which they join and
leave at any token. `generators.py` knows how tokens are drawn, `rro.models.chat` how messages
become tokens."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from rro.errors import PolicyError, RroError
from rro.models.chat import ChatFormat
from rro.models.loading import take_over
from rro.policies.base import with_thought
from rro.policies.local.generators import GeneratorOptions, make_generator
from rro.policies.local.sampling import Row
from rro.seeds import derive_seed
from rro.types import Completion, Message, SamplingParams, Source, Usage


@dataclass(eq=False)
class _Request:
    """One call of `sample`: its prompt, its rows, and the future that its caller awaits."""

    messages: Sequence[Message]
    rows: list[Row]
    future: asyncio.Future[list[Completion]]
    loop: asyncio.AbstractEventLoop
    started: float = field(default_factory=time.perf_counter)

    def answer(self, completions: list[Completion]) -> None:
        """Give the caller its completions; called in the caller's loop."""
        if not self.future.done():
            self.future.set_result(completions)

    def fail(self, error: Exception) -> None:
        """Raise `error` in the caller; called from any thread."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(
                lambda: None if self.future.done() else self.future.set_exception(error)
            )

    def abandon(self) -> None:
        """The caller waits no more: its rows leave at the next token."""
        for row in self.rows:
            row.finish = row.finish or "length"


class TransformersPolicy:
    """Samples from a causal LM with a chat template, as `rro.policies.base.Policy` says.

    A completion's `token_ids` are the sampled ones, with the end-of-turn token if it was sampled.
    Any other control token ends the message, too, and is not part of it.
    If a stop string ended it, they are the fewest that cover its text (the last may hold the first
    letters of the stop string). Its log-probabilities are natural logarithms in float32, of the
    model at temperature 1. `usage.seconds` is its share of the request's wall time.

    Sample i of a request is decided by derive_seed(seed, i) alone, up to rounding: batches of other
    shapes add in another order, so another token may win if two are within rounding of each other
    (almost never in float32, sometimes in bfloat16)."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        name: str,
        *,
        max_batch: int = 64,
        prefix_cache_tokens: int = 200_000,
        max_context: int | None = None,
        device: str | torch.device | None = None,
        memory_share: float = 0.25,
        shared_prefixes: bool = True,
        packed_passes: bool = True,
    ) -> None:
        """`max_batch`: answers drawn together. `prefix_cache_tokens`: tokens of past histories
        whose keys and values are kept (0: none). `max_context`: tokens of prompt and answer
        together (None: as many as the model was made for). `device`: where to move the model (None:
        it stays). `memory_share`: the share of the memory that the kept tokens may take.

        Two switches, for measurements: `shared_prefixes` reads a long beginning that several
        answers have in common once for all (on CPUs), `packed_passes` computes new prompts in the
        same forward passes as the next tokens of other answers.

        Raises UsageError for an unusable chat template."""
        self.name = name
        self._format = ChatFormat(tokenizer, ends=_ends(model))
        self._model = (model if device is None else model.to(device)).eval()
        limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**31
        self._max_context = min(max_context or limit, limit)
        self.provenance = _provenance(self._model, self._max_context)
        options = GeneratorOptions(
            max_batch,
            self._max_context,
            prefix_cache_tokens,
            memory_share,
            shared_prefixes,
            packed_passes,
        )
        with torch.inference_mode():
            self._generator = make_generator(
                self._model, self._format.end_ids, self._format.decode, options
            )
        self._incoming: deque[_Request] = deque()
        self._waiting: deque[Row] = deque()
        self._requests: dict[Row, _Request] = {}
        self._wake, self._closed = threading.Condition(), False
        self._thread = threading.Thread(target=self._work, name=f"policy {name}", daemon=True)
        self._thread.start()

    @property
    def in_flight(self) -> int:
        """How many requests are not answered yet."""
        return len({*self._requests.values(), *self._incoming})

    async def sample(
        self, messages: Sequence[Message], n: int, params: SamplingParams, seed: int
    ) -> list[Completion]:
        """Draw `n` answers. Raises UsageError for messages that the chat template cannot express,
        PolicyError if the model failed, RroError if the policy is closed."""
        prompt = tuple(self._format.encode(messages, add_generation_prompt=True).ids)
        room = min(params.max_new_tokens, self._max_context - len(prompt))
        if room < 1:
            empty = Message("assistant", "", Source.POLICY, ())
            return [
                Completion(empty, "context", self.name, logprobs=() if params.logprobs else None)
            ] * n
        if n < 1:
            return []
        loop = asyncio.get_running_loop()
        limits = self._format.limits(messages, params)
        rows = [
            Row(prompt, params, derive_seed(seed, number), room, thoughts=limits)
            for number in range(n)
        ]
        request = _Request(messages, rows, loop.create_future(), loop)
        with self._wake:
            if self._closed:
                raise RroError(f"policy {self.name} is closed")
            self._incoming.append(request)
            self._wake.notify()
        try:
            return await request.future
        except asyncio.CancelledError:
            request.abandon()
            raise

    async def update(self, weights: Path, name: str) -> None:
        """As `Updatable.update` says."""
        if self.in_flight:
            raise RroError(f"policy {self.name} is answering: its weights cannot change now")
        await asyncio.to_thread(take_over, self._model, weights)
        self._generator.reset()
        self.name = name

    async def close(self) -> None:
        """Fail what is in flight, and end the worker thread."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        with torch.inference_mode():
            while self._collect():
                try:
                    self._deliver(self._generator.admit(self._waiting))
                    self._deliver(self._generator.step())
                # whatever a model raises fails the requests in this batch, not the worker
                except Exception as error:
                    self._recover(error)
        for request in {*self._requests.values(), *self._incoming}:
            request.fail(RroError(f"policy {self.name} was closed before it answered"))
        self._generator.reset()

    def _collect(self) -> bool:
        """Take new requests; waits for one if there is nothing to do. Returns False when the policy
        is closed."""
        with self._wake:
            while not (self._closed or self._incoming or self._waiting or self._generator.rows):
                self._wake.wait()
            while self._incoming and not self._closed:
                request = self._incoming.popleft()
                self._requests.update(dict.fromkeys(request.rows, request))
                self._waiting.extend(request.rows)
        abandoned = [row for row in self._waiting if row.finish is not None]
        for row in abandoned:
            self._waiting.remove(row)
            self._requests.pop(row, None)
        return not self._closed

    def _deliver(self, done: Sequence[Row]) -> None:
        """Answer the requests whose last row is done; all of one event loop at once, because waking
        it costs more than an answer."""
        answers = defaultdict[asyncio.AbstractEventLoop, list[tuple[_Request, list[Completion]]]](
            list
        )
        for row in done:
            request = self._requests.pop(row, None)
            if request is not None and all(other.finish is not None for other in request.rows):
                seconds = (time.perf_counter() - request.started) / len(request.rows)
                answers[request.loop].append(
                    (request, [self._completion(request, other, seconds) for other in request.rows])
                )
        for loop, own in answers.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_answer, own)

    def _completion(self, request: _Request, row: Row, seconds: float) -> Completion:
        keep, ended = self._format.cut(row.tokens, bool(request.messages[0].tools))
        message = self._format.answer(request.messages, tuple(row.tokens[:keep]), row.text)
        usage = Usage(
            policy_calls=1,
            prompt_tokens=len(row.prompt),
            cached_tokens=row.cached or 0,
            generated_tokens=len(row.tokens),
            seconds=seconds,
        )
        logprobs = tuple(row.logprobs[:keep]) if row.params.logprobs else None
        finish = "stop" if ended else row.finish or "length"
        return with_thought(Completion(message, finish, self.name, usage, logprobs), self._format)

    def _recover(self, error: Exception) -> None:
        """Out of memory: continue with half as many rows, each where it was. Anything else: fail
        the requests whose rows were in the batch."""
        inside = self._generator.reset()
        self._deliver([row for row in inside if row.finish is not None])
        rows = [row for row in inside if row.finish is None]
        if _out_of_memory(error) and len(rows) > 1:
            self._generator.shrink(len(rows) // 2)
            self._waiting.extendleft(reversed(rows))
        else:
            self._fail(rows, error)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _fail(self, rows: Sequence[Row], error: Exception) -> None:
        if _out_of_memory(error):
            size = max((len(row.prompt) for row in rows), default=0)
            reason = (
                f"out of memory with one prompt of {size} tokens: lower policy.max_context or "
                "policy.prefix_cache_tokens"
            )
        else:
            reason = f"{type(error).__name__}: {error}"
        for request in {self._requests[row] for row in rows if row in self._requests}:
            failure = PolicyError(f"policy {self.name} failed: {reason}")
            failure.__cause__ = error
            request.fail(failure)
            request.abandon()
            for row in request.rows:
                self._requests.pop(row, None)


def _ends(model: Any) -> Sequence[int]:
    """The ids that end an answer by the model's own configuration."""
    ids = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return [ids] if isinstance(ids, int) else ids or []


def _provenance(model: Any, context: int) -> Mapping[str, Any]:
    return MappingProxyType(
        {
            "backend": "transformers",
            "token_ids": True,
            "logprobs": True,
            "device": str(model.device),
            "dtype": str(model.dtype).removeprefix("torch."),
            "context": context,
        }
    )


def _answer(answers: Sequence[tuple[_Request, list[Completion]]]) -> None:
    for request, completions in answers:
        request.answer(completions)


def _out_of_memory(error: Exception) -> bool:
    return isinstance(
        error, torch.OutOfMemoryError | MemoryError
    ) or "can't allocate memory" in str(error)
