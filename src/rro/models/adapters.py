"""The LoRA adapters that training stores beside the merged weights, and how to stack several in a
row into one.

So a server that holds the SFT policy can serve each iteration's policy as an adapter on it, and two
policies need one server. Knows folders and tensors, neither servers nor training."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# inside a checkpoint folder: the adapter that was trained on the weights that training started from
FOLDER = "adapter"
_STACK = "adapter-on-"


def adapter_between(start: Path, checkpoint: Path) -> Path | None:
    """The folder of one adapter that turns the whole model `start`, a sibling folder or the name of
    a base model, into the one in the folder `checkpoint`; None if no adapters lead there. Several
    in a row are stacked, once, into a folder inside `checkpoint`."""
    chain: list[Path] = []
    at = checkpoint
    while at != start:
        adapter = at / FOLDER
        settings = _settings(adapter)
        if settings is None or adapter in chain:
            return None
        chain.insert(0, adapter)
        base = Path(settings.get("base_model_name_or_path") or "none")
        # siblings by name, as the run folder may have been moved
        at = start if base == start else at.parent / base.name
    if len(chain) < 2:
        return chain[0] if chain else None
    stacked = checkpoint / f"{_STACK}{start.name}"
    if not stacked.is_dir():
        partial = stacked.with_name(stacked.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        stack(chain, partial)
        os.replace(partial, stacked)
    return stacked


def stack(adapters: Sequence[Path], output: Path) -> None:
    """Write to the folder `output` one adapter that equals `adapters` applied one after the other,
    as x A1' B1' s1 + x A2' B2' s2 = x [A1; A2]' [B1 s1, B2 s2]'. Its rank is the sum of theirs.
    They must be plain LoRA on the same modules, as rro trains them."""
    import torch
    from safetensors.torch import load_file, save_file

    settings: list[dict[str, Any]] = [_settings(adapter) or {} for adapter in adapters]
    weights = [load_file(adapter / "adapter_model.safetensors") for adapter in adapters]
    scales = [config["lora_alpha"] / config["r"] for config in settings]
    stacked = {}
    for name in weights[0]:
        parts = [adapter[name].float() for adapter in weights]
        if ".lora_B." in name:
            parts = [part * scale for part, scale in zip(parts, scales, strict=True)]
        stacked[name] = torch.cat(parts, dim=1 if ".lora_B." in name else 0).contiguous()
    output.mkdir(parents=True)
    save_file(stacked, output / "adapter_model.safetensors", metadata={"format": "pt"})
    rank = sum(config["r"] for config in settings)
    whole = settings[0] | {"r": rank, "lora_alpha": rank}
    (output / "adapter_config.json").write_text(json.dumps(whole, indent=1), encoding="utf-8")


def _settings(adapter: Path) -> dict[str, Any] | None:
    """PEFT's configuration of an adapter; None if there is no such folder."""
    try:
        settings: dict[str, Any] = json.loads(
            (adapter / "adapter_config.json").read_text(encoding="utf-8")
        )
    except OSError:
        return None
    return settings
