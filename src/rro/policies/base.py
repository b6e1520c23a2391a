"""What answers: the contract of a policy. Knows nothing of environments.

The interface is a message list in, sampled assistant messages out, so that a local model, a server
or a script serve alike. Backends gather concurrent calls into batches themselves; callers just
await."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rro.types import Completion, Message, SamplingParams


class Policy(Protocol):
    """`name` identifies the model (and its weights) wherever a price or a pair is recorded.
    `provenance` says what answers: plain values by name, among them `backend`, and whether
    completions hold `token_ids` and can hold `logprobs`. It holds no secrets; a run journals it."""

    name: str

    @property
    def provenance(self) -> Mapping[str, Any]: ...

    async def sample(
        self, messages: Sequence[Message], n: int, params: SamplingParams, seed: int
    ) -> list[Completion]:
        """Draw `n` independent assistant messages after `messages`, which end with a user message.

        Sample i depends on `seed` and i alone, not on what else is in flight, as far as the
        backend's arithmetic allows (floating-point sums change with batch shape; a backend says
        where that matters). A prompt that leaves no room gives completions with finish "context".
        Raises on failure: the caller decides about retries."""
        ...

    async def close(self) -> None:
        """Release threads, memory and connections."""
        ...
