"""How vLLM is to run: which weights, in what precision, with how much memory, on which threads.
Does not import vLLM.

An engine argument goes by vLLM's own name for it; `policy.vllm.options` has the last word on each.
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
from rro.processes import cores

_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM takes as max_lora_rank
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class Weights:
    """What answers: a whole model (a folder, or a name on the hub), or a LoRA adapter's folder on
    it; and the adapter's rank, 0 without."""

    whole: str
    adapter: Path | None = None
    rank: int = 0


def find_weights(
    config: ModelConfig, checkpoint: Path | None, start: Path | None = None
) -> Weights:
    """What to serve for a checkpoint folder; None is the model that config.name means. `start`: a
    checkpoint that others are served from; if adapters lead from it to this one, they go on top of
    it. Raises UsageError where the checkpoint is not there, or its adapter is none that vLLM can
    load beside its base."""
    from rro.models.loading import whole_and_adapter

    whole, adapter = whole_and_adapter(config, checkpoint)
    if adapter is None and start is not None and checkpoint is not None:
        adapter = adapter_between(start, checkpoint)
        whole = str(start) if adapter else whole
    if adapter is None:
        return Weights(whole)
    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    unfit = [name for name in ("use_dora", "modules_to_save") if settings.get(name)]
    rank = max([settings.get("r") or 0, *(settings.get("rank_pattern") or {}).values()])
    if settings.get("peft_type") != "LORA" or unfit or not 0 < rank <= _RANKS[-1]:
        what = ", ".join(unfit) or f"peft_type {settings.get('peft_type')}, rank {rank}"
        raise UsageError(
            f"{adapter}: vLLM loads no such adapter ({what}): merge it into its base, or use transformers"
        )
    return Weights(whole, adapter, rank)


def lora_options(rank: int) -> dict[str, Any]:
    """Engine arguments for adapters of rank up to `rank`; none for 0. Two are kept loaded: explorer
    and pricer."""
    if not rank:
        return {}
    return {
        "enable_lora": True,
        "max_lora_rank": next(one for one in _RANKS if one >= rank),
        "max_loras": 2,
    }


def engine_options(model: ModelConfig, policy: PolicyConfig, whole: str) -> dict[str, Any]:
    """Engine arguments but those for adapters. `dtype` and `max_model_len` are always among
    them."""
    import torch
    from transformers import AutoConfig

    from rro.models.loading import inference_dtype, resolve_device

    try:
        shape = AutoConfig.from_pretrained(whole).get_text_config()
    except (OSError, ValueError) as error:
        raise UsageError(f"model {whole!r} has no config that can be read: {error}") from None
    device = resolve_device(model.device)
    own = str(inference_dtype(model, torch.device(device))).removeprefix("torch.")
    room = getattr(shape, "max_position_embeddings", None) or policy.max_context or 4096
    options: dict[str, Any] = {
        "model": whole,
        "dtype": own if policy.vllm.dtype == "auto" else policy.vllm.dtype,
        "max_model_len": min(policy.max_context or room, room),
        "max_num_seqs": policy.max_batch,
        "seed": 0,  # of the engine; every request has its own
        "enable_prefix_caching": policy.prefix_cache_tokens > 0,
        "generation_config": "vllm",  # not the model's, which would change the distribution unseen
    }
    if device.type == "cpu":
        options |= _on_cpu(policy, options, shape)
    return options | policy.vllm.options


def _on_cpu(policy: PolicyConfig, options: Mapping[str, Any], shape: Any) -> dict[str, Any]:
    context, batch = options["max_model_len"], 8192
    width = 2 * _kv_heads(shape) * _head_size(shape) * _BYTES[options["dtype"]]
    quarter = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    tokens = max(policy.prefix_cache_tokens, 2 * context)
    return {
        # A request with a seed kills the engine where its prompt comes in chunks: "CPU Generator
        # does not use offset".
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(context, batch),
        "kv_cache_memory_bytes": min(tokens * width * shape.num_hidden_layers, quarter),
        # of 128, as it would be, a longer history computes 48 more tokens again on average
        "block_size": 32,
        # compiling takes longer than it saves, and again for every checkpoint
        "enforce_eager": True,
    }


def _kv_heads(shape: Any) -> int:
    return int(getattr(shape, "num_key_value_heads", None) or shape.num_attention_heads)


def _head_size(shape: Any) -> int:
    return int(getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads)


def environment(threads: int | None) -> dict[str, str]:
    """Environment variables for an engine: what the user has set already is not among them.

    vLLM would bind one thread to each core but one, always beginning with the first: two engines,
    or an engine and a trainer, would sit on the same."""
    wanted = {
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(threads or cores()),
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
    }
    return {name: value for name, value in wanted.items() if name not in os.environ}


def arguments(options: Mapping[str, Any]) -> list[str]:
    """The same as a command line."""
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
