"""About how much memory and disk a recipe takes, from the size of its model: the largest parts,
each at its largest. Pure arithmetic; docs/gpu.md says what each figure counts."""

from __future__ import annotations

from dataclasses import dataclass

from rro.config import Config, TrainingConfig
from rro.models.sizes import ModelSize, Shape

# Of the weights while one trains: itself, the optimiser's state and the last checkpoint.
_COPIES = 3
_FLOAT32, _BFLOAT16 = 4, 2
# Bytes a trained parameter: weight, gradient and AdamW's two moments in float32.
_TRAINED = 16
# Bytes that a layer keeps for the backward pass of a token: for each value of the hidden width, in
# bfloat16 autocast and in float32; and where attention scores are capped, as norms are more then.
_HIDDEN, _HIDDEN_CAPPED = (35, 41), (99, 105)
# For each value of the feed-forward width, by the bytes of a computed value.
_INTERMEDIATE = 4
# Copies of the logits in float32: themselves, their log-softmax and its gradient.
_LOGITS = 3


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes: weights with gradients and the optimiser's state; activations, None where the model's
    dimensions are not known."""

    states: int
    activations: int | None


def training_memory(
    config: Config, options: TrainingConfig, size: ModelSize, sides: int, messages: int
) -> TrainingMemory:
    """What a training takes whose rows are all `options.max_length` tokens long. `sides`: rows of
    a forward pass for each of `micro_batch`; `messages` of a row carry loss at most."""
    states = _TRAINED * size.parameters
    if config.model.lora is not None:
        adapters = _adapters(size.shape, config.model.lora.rank) if size.shape else 0
        states = _FLOAT32 * size.parameters + _TRAINED * adapters
    if not _is_exact(config, options):  # autocast keeps a copy of the weights
        states += _BFLOAT16 * size.parameters
    if size.shape is None:
        return TrainingMemory(states, None)
    rows = sides * min(options.micro_batch, options.batch_size)
    loss = min(options.max_length, messages * config.policy.max_new_tokens)
    logits = _LOGITS * _FLOAT32 * rows * loss * size.shape.vocabulary
    return TrainingMemory(states, rows * _kept(config, options, size.shape) + logits)


def _kept(config: Config, options: TrainingConfig, shape: Shape) -> int:
    """What the layers keep of a row for the backward pass."""
    exact, tokens = _is_exact(config, options), options.max_length
    value = _FLOAT32 if exact else _BFLOAT16
    hidden, scores = _HIDDEN[exact], 0
    if shape.softcap:
        hidden, scores = _HIDDEN_CAPPED[exact], 2 * shape.heads * tokens
    layer = hidden * shape.hidden + _INTERMEDIATE * value * shape.intermediate + scores
    if options.gradient_checkpointing:
        return tokens * (shape.layers * _FLOAT32 * shape.hidden + layer)
    return tokens * shape.layers * layer


def _is_exact(config: Config, options: TrainingConfig) -> bool:
    """Whether a training computes in float32, as far as the recipe says."""
    return options.precision == "float32" or config.model.name == "tiny"


def _adapters(shape: Shape, rank: int) -> int:
    """Parameters of LoRA on all linear layers."""
    queries, keys = shape.heads * shape.head, shape.kv_heads * shape.head
    ends = 2 * (shape.hidden + queries) + 2 * (shape.hidden + keys)
    ends += 3 * (shape.hidden + shape.intermediate)
    return shape.layers * rank * ends


def sampling_memory(config: Config, size: ModelSize) -> tuple[int, int | None]:
    """Bytes of the weights that sample, and of the keys and values where `max_batch` sequences and
    the prefix cache are full; None where the model's dimensions are not known. Each replica takes
    as much."""
    policy, shape = config.policy, size.shape
    exact = config.model.dtype == "float32" or config.model.name == "tiny"
    value = _FLOAT32 if exact else _BFLOAT16
    weights = value * size.parameters * (2 if config.explore.pricing == "sft" else 1)
    if shape is None:
        return weights, None
    context = min(policy.max_context or shape.context, shape.context)
    tokens = policy.max_batch * context + policy.prefix_cache_tokens
    return weights, value * shape.kv_values * tokens


def disk(config: Config, size: ModelSize) -> int:
    """Bytes of the checkpoints, in float32: those that are kept, two on the way, and what a
    training writes meanwhile."""
    rounds = config.rounds
    kept = rounds.count // rounds.evaluate_every + min(2, rounds.count - 1)
    return _FLOAT32 * size.parameters * (1 + kept + _COPIES)


def described(count: int) -> str:
    """A number of bytes as text."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
