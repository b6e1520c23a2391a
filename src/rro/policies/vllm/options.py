"""vLLM's settings: which weights it serves, in what precision, with how much memory and how many
threads.

Does not import vLLM. Engine arguments have vLLM's own names; `policy.vllm.options` overrides each.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rro.config import ModelConfig, PolicyConfig
from rro.errors import UsageError
from rro.models.adapters import adapter_between
from rro.policies.vllm.settings import VllmConfig
from rro.processes import cores

# the values that vLLM accepts for max_lora_rank
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class ServedWeights:
    """A whole model (a folder, or a name on the hub), the folder of a LoRA adapter on it (or None),
    and the adapter's rank (0 without one)."""

    whole: str
    adapter: Path | None = None
    rank: int = 0


def find_weights(
    config: ModelConfig, checkpoint: Path | None, start: Path | None = None
) -> ServedWeights:
    """What to serve for a checkpoint folder (None: the model that config.name means). If adapters
    lead from the checkpoint `start` to this one, they are served on top of `start`. Raises
    UsageError if the checkpoint does not exist or vLLM cannot load its adapter."""
    from rro.models.loading import find_sources

    whole, _, adapter = find_sources(config, checkpoint)
    if adapter is None and start is not None and checkpoint is not None:
        adapter = adapter_between(start, checkpoint)
        whole = str(start) if adapter else whole
    if adapter is None:
        return ServedWeights(whole)
    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    unsupported = [name for name in ("use_dora", "modules_to_save") if settings.get(name)]
    rank = max([settings.get("r") or 0, *(settings.get("rank_pattern") or {}).values()])
    if settings.get("peft_type") != "LORA" or unsupported or not 0 < rank <= _RANKS[-1]:
        reason = ", ".join(unsupported) or f"peft_type {settings.get('peft_type')}, rank {rank}"
        raise UsageError(
            f"{adapter}: vLLM cannot load this adapter ({reason}): merge it into its base, or set "
            'policy.backend = "transformers"'
        )
    return ServedWeights(whole, adapter, rank)


def lora_options(rank: int) -> dict[str, Any]:
    """Engine arguments for adapters of rank up to `rank`; none for 0. Two stay loaded: those of the
    policy that explores and of the one whose rollouts estimate process rewards."""
    if not rank:
        return {}
    return {
        "enable_lora": True,
        "max_lora_rank": next(allowed for allowed in _RANKS if allowed >= rank),
        "max_loras": 2,
    }


def server_options(
    model: ModelConfig, policy: PolicyConfig, vllm: VllmConfig, whole: str
) -> dict[str, Any]:
    """All engine arguments except those for adapters, always with `dtype` and `max_model_len`, for
    the model `whole` (a folder or a name). Raises UsageError if its config cannot be read."""
    import torch
    from transformers import AutoConfig

    from rro.models.loading import inference_dtype, resolve_device

    try:
        shape = AutoConfig.from_pretrained(whole).get_text_config()
    except (OSError, ValueError) as error:
        raise UsageError(f"the config of model {whole!r} cannot be read: {error}") from None
    device = resolve_device(model.device)
    dtype = str(inference_dtype(model, torch.device(device))).removeprefix("torch.")
    context = getattr(shape, "max_position_embeddings", None) or policy.max_context or 4096
    options: dict[str, Any] = {
        "model": whole,
        "dtype": dtype if vllm.dtype == "auto" else vllm.dtype,
        "max_model_len": min(policy.max_context or context, context),
        "max_num_seqs": policy.max_batch,
        # of the server; every request has its own
        "seed": 0,
        "enable_prefix_caching": policy.prefix_cache_tokens > 0,
        # not the model's, which would change the distribution unnoticed
        "generation_config": "vllm",
    }
    if device.type == "cpu":
        options |= _on_cpu(policy, options, shape)
    return options | vllm.options


def _on_cpu(policy: PolicyConfig, options: Mapping[str, Any], shape: Any) -> dict[str, Any]:
    context, batch = options["max_model_len"], 8192
    heads = shape.num_attention_heads
    kv_heads = getattr(shape, "num_key_value_heads", None) or heads
    head_size = getattr(shape, "head_dim", None) or shape.hidden_size // heads
    width = 2 * kv_heads * head_size * _BYTES[options["dtype"]]
    quarter = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    tokens = max(policy.prefix_cache_tokens, 2 * context)
    return {
        # a request with a seed crashes the engine if its prompt comes in chunks ("CPU Generator
        # does not use offset")
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(context, batch),
        "kv_cache_memory_bytes": min(tokens * width * shape.num_hidden_layers, quarter),
        # with the default of 128, a longer history recomputes 48 more tokens on average
        "block_size": 32,
        # compiling takes longer than it saves, and again for every checkpoint
        "enforce_eager": True,
    }


def environment(threads: int | None) -> dict[str, str]:
    """Environment variables for a server with `threads` threads (None: one for each core), except
    those that the user has set. By itself vLLM binds its threads to the first cores: two servers,
    or a server and a trainer, would share the same ones."""
    defaults = {
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(threads or cores()),
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
    }
    return {name: value for name, value in defaults.items() if name not in os.environ}


def command_line(options: Mapping[str, Any]) -> list[str]:
    """Engine arguments as words of a command line."""
    words: list[str] = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, Mapping):
            words += [f"--{flag}", json.dumps(value)]
        elif isinstance(value, list | tuple):
            words += [f"--{flag}", *map(str, value)]
        elif value is not None:
            words += [f"--{flag}", str(value)]
    return words
