"""The contract of a policy: a list of messages in, sampled assistant messages out.

A local model, a server or a script can fulfil it. Backends gather concurrent calls into batches;
callers just await. Knows nothing of environments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from rro.config import ModelConfig, PolicyConfig
from rro.types import Completion, Message, SamplingParams

if TYPE_CHECKING:
    from rro.models.chat import ChatFormat


class Policy(Protocol):
    """What samples the agent's messages. `name` identifies the model and its weights; it is
    recorded with every process reward and pair."""

    name: str

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Where answers come from, as plain values by name: `backend`, whether completions have
        `token_ids` and can have `logprobs`, and more. A run journals it, so it holds no secrets."""
        ...

    async def sample(
        self, messages: Sequence[Message], n: int, params: SamplingParams, seed: int
    ) -> list[Completion]:
        """Draw `n` independent assistant messages after `messages`, which end with a user message.

        Sample i depends on `seed` and i alone, not on what else is in flight, as far as the
        backend's arithmetic allows (floating-point sums depend on the shape of a batch; each
        backend documents it). A prompt that leaves no room in the context gives completions with
        finish "context". Raises if it fails; the caller retries."""
        ...

    async def close(self) -> None:
        """Release threads, memory and connections."""
        ...


@runtime_checkable
class Updatable(Protocol):
    """A policy that can take over other weights of the same model, so that many rounds need no new
    start."""

    async def update(self, weights: Path, name: str) -> None:
        """Answer with the weights of the checkpoint folder `weights` from now on, under `name`;
        what was cached for the old ones is forgotten. Raises RroError while answers are in flight,
        UsageError where the weights are of another model."""
        ...


@dataclass(frozen=True)
class PolicyContext:
    """What a policy backend knows of the run that opens it.

    `name` is the policy's name in records ("RUN/LABEL"), `label` that of its weights ("base",
    "sft", "rro-1"). `find_weights` returns the folder of the checkpoint, or None for the base
    model; it raises UsageError if there is none yet. `start` is the SFT checkpoint (without SFT:
    the base model), if later weights are LoRA adapters on it. `threads` are CPU threads (None: the
    backend's own choice). `logs` is a folder for the logs of processes that the backend starts.
    `live`: whether the policy stays open from round to round, to take over new weights
    (`Updatable`) where it can."""

    name: str
    label: str
    model: ModelConfig
    settings: PolicyConfig
    find_weights: Callable[[], Path | None]
    start: Path | None
    threads: int | None
    logs: Path
    live: bool = False


def with_thought(completion: Completion, chat: ChatFormat) -> Completion:
    """A completion of token ids with its thought counted, and its finish "thought" where it ended
    inside one."""
    tokens, inside = chat.thought(completion.message)
    if not tokens:
        return completion
    usage = replace(completion.usage, thought_tokens=tokens)
    return replace(completion, usage=usage, finish="thought" if inside else completion.finish)
