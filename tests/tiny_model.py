"""A tiny random model for tests of the local policy, and what it would say itself."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rro.config import ModelConfig, TinyConfig
from rro.models.loading import build_tiny, load_model
from rro.types import SamplingParams

WORDS = ["search", "click", "red", "shoes", "price", "12.50", "b0912", "item", "page", "buy"]
SAMPLED = SamplingParams(temperature=1.0, max_new_tokens=12, logprobs=True)


def make_tiny(folder: Path) -> tuple[Any, Any]:
    """A random model with grouped heads whose next-token distributions are far from flat, and its
    tokenizer."""
    size = TinyConfig(
        hidden_size=48,
        intermediate_size=96,
        layers=2,
        heads=4,
        kv_heads=2,
        vocabulary=300,
        context=256,
    )
    build_tiny(size, [" ".join(WORDS)] * 3, 0, folder)
    model, tokenizer = load_model(ModelConfig(device="cpu"), folder, train=False)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.mul_(8.0 if "proj" in name else 4.0 if "lm_head" in name else 1.0)
    return model, tokenizer


def expected_logprobs(model: Any, ids: Sequence[int], drawn: Sequence[int]) -> torch.Tensor:
    """What the model itself gives for tokens `drawn` behind `ids`, in one plain forward pass."""
    with torch.no_grad():
        logits = model(torch.tensor([[*ids, *drawn]])).logits[0, len(ids) - 1 : -1]
    return torch.log_softmax(logits.float(), -1).gather(-1, torch.tensor(drawn)[:, None])[:, 0]
