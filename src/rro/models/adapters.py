"""The LoRA adapters that training stores beside the merged weights: how to stack several in a row
into one, and how to merge them again elsewhere.

So a server that holds the SFT policy can serve each iteration's policy as an adapter on it, and two
policies need one server; and replicas that have one round's weights need the next round's adapter
alone. Knows folders and tensors, neither servers nor training."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# inside a checkpoint folder: the adapter that was trained on the weights that training started from
FOLDER = "adapter"
_STACK = "adapter-on-"
_WEIGHTS = "adapter_model.safetensors"


def adapter_between(start: Path, checkpoint: Path) -> Path | None:
    """The folder of one adapter that turns the whole model `start`, a sibling folder or the name of
    a base model, into the one in the folder `checkpoint`; None if no adapters lead there. Several
    in a row are stacked, once, into a folder inside `checkpoint`."""
    chain: list[Path] = []
    at = checkpoint
    while at != start:
        adapter = at / FOLDER
        base = _trained_on(at, start)
        if base is None or adapter in chain:
            return None
        chain.insert(0, adapter)
        at = base
    if len(chain) < 2:
        return chain[0] if chain else None
    stacked = checkpoint / f"{_STACK}{start.name}"
    if not stacked.is_dir():
        partial = stacked.with_name(stacked.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        stack(chain, partial)
        os.replace(partial, stacked)
    return stacked


def adapter_on(start: Path, checkpoint: Path) -> Path | None:
    """The folder of the adapter that was trained on the sibling folder `start` and merged into the
    folder `checkpoint`, if `merge` can do that again; None if there is none."""
    adapter = checkpoint / FOLDER
    if _trained_on(checkpoint, start) != start:
        return None
    names = {name for file in _weight_files(checkpoint) for name in _names(file)}
    return adapter if {*map(_merged_name, _names(adapter / _WEIGHTS))} <= names else None


def merge(adapters: Sequence[Path], checkpoint: Path) -> None:
    """Merge adapters, one after the other, into the whole model in folder `checkpoint`, whose files
    of weights are written anew. As PEFT merges them after a training, on a CPU to the bit. They
    must be plain LoRA, as rro trains them."""
    from safetensors.torch import load_file, save_file

    for file in _weight_files(checkpoint):
        weights = load_file(file)
        for adapter in adapters:
            for name, change in _changes(adapter):
                if name in weights:
                    weights[name] = weights[name] + change
        written = file.with_name(file.name + ".new")
        save_file(weights, written, metadata={"format": "pt"})
        os.replace(written, file)


def stack(adapters: Sequence[Path], output: Path) -> None:
    """Write to the folder `output` one adapter that equals `adapters` applied one after the other,
    as x A1' B1' s1 + x A2' B2' s2 = x [A1; A2]' [B1 s1, B2 s2]'. Its rank is the sum of theirs.
    They must be plain LoRA on the same modules, as rro trains them."""
    import torch
    from safetensors.torch import load_file, save_file

    settings: list[dict[str, Any]] = [_settings(adapter) or {} for adapter in adapters]
    weights = [load_file(adapter / _WEIGHTS) for adapter in adapters]
    scales = [config["lora_alpha"] / config["r"] for config in settings]
    stacked = {}
    for name in weights[0]:
        parts = [adapter[name].float() for adapter in weights]
        if ".lora_B." in name:
            parts = [part * scale for part, scale in zip(parts, scales, strict=True)]
        stacked[name] = torch.cat(parts, dim=1 if ".lora_B." in name else 0).contiguous()
    output.mkdir(parents=True)
    save_file(stacked, output / _WEIGHTS, metadata={"format": "pt"})
    rank = sum(config["r"] for config in settings)
    whole = settings[0] | {"r": rank, "lora_alpha": rank}
    (output / "adapter_config.json").write_text(json.dumps(whole, indent=1), encoding="utf-8")


def _trained_on(checkpoint: Path, start: Path) -> Path | None:
    """What a checkpoint's adapter was trained on: `start`, or a sibling; None if it has none."""
    settings = _settings(checkpoint / FOLDER)
    if settings is None:
        return None
    base = Path(settings.get("base_model_name_or_path") or "none")
    # siblings by name, as the run folder may have been moved
    return start if base == start else checkpoint.parent / base.name


def _weight_files(checkpoint: Path) -> list[Path]:
    return sorted(checkpoint.glob("model*.safetensors"))


def _names(file: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(file, "pt") as tensors:
        names: list[str] = list(tensors.keys())
    return names


def _merged_name(name: str) -> str:
    """The name of the weights that a tensor of an adapter is for."""
    plain = name.replace(".lora_A.", ".").replace(".lora_B.", ".")
    return name if plain == name else plain.removeprefix("base_model.model.")


def _changes(adapter: Path) -> Iterator[tuple[str, Any]]:
    """What a plain LoRA adds to weights, by their names."""
    from safetensors.torch import load_file

    settings, parts = _settings(adapter) or {}, load_file(adapter / _WEIGHTS)
    scale = settings["lora_alpha"] / settings["r"]
    for name in parts:
        if ".lora_A." in name:
            product = parts[name.replace(".lora_A.", ".lora_B.")] @ parts[name]
            change = product.T if settings.get("fan_in_fan_out") else product
            yield _merged_name(name), change * scale


def _settings(adapter: Path) -> dict[str, Any] | None:
    """PEFT's configuration of an adapter; None if there is no such folder."""
    try:
        settings: dict[str, Any] = json.loads(
            (adapter / "adapter_config.json").read_text(encoding="utf-8")
        )
    except OSError:
        return None
    return settings
