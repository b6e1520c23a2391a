"""Rows that begin alike, computed once: a forward pass over the tree of their tokens.

Everything that a Transformer does to one token at a time is done once for each node of the tree;
attention gathers queries, keys and values of each row from its nodes, so it is causal attention as
always, without a mask, and costs what it costs without sharing. Exact up to rounding, gradients
included. Knows neither rows' losses nor how rows are put together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

ATTENTION = "rro_shared_prefixes"
"""Name of the attention for `PreTrainedModel.set_attn_implementation`."""
SUITABLE = frozenset({"llama", "qwen2", "qwen3", "smollm3"})
"""Types of models whose attention is nothing but scaled dot products."""
PAYS_FROM = 50_000_000
"""Parameters of a model above which sharing pays: below, the gathering costs a CPU more than it
saves."""


class TokenTree:
    """Token sequences with their common beginnings once.

    `ids` and `positions`, shape (nodes,), padded to a multiple of `multiple`; `paths`, shape (rows,
    longest), the node of each token of a row, its last node repeated to the end; `owners`, shape
    (nodes,), for each node one place in the flattened `paths` where it stands.

    A node has one next token at most, for which its output is scored: where a row leaves another,
    the last token that they share is a node of its own. Sequences should be sorted; others share
    only what each has in common with the one before it."""

    def __init__(self, rows: Sequence[NDArray[np.int64]], pad: int, multiple: int) -> None:
        longest = max((len(row) for row in rows), default=1)
        width = math.ceil(longest / multiple) * multiple
        self.paths = np.zeros((max(1, len(rows)), width), dtype=np.int64)
        ids, positions, owners, count = list[Any](), list[Any](), list[Any](), 0
        path, previous = np.zeros(0, np.int64), np.zeros(0, np.int64)
        for number, row in enumerate(rows):
            kept = _shared(previous, row)
            new = np.arange(count, count + len(row) - kept)
            path, previous, count = np.concatenate([path[:kept], new]), row, count + len(new)
            ids.append(row[kept:])
            positions.append(np.arange(kept, len(row)))
            owners.append(number * width + positions[-1])
            self.paths[number, : len(row)], self.paths[number, len(row) :] = path, path[-1]
        spare = math.ceil(max(1, count) / multiple) * multiple - count
        self.ids = np.concatenate([*ids, np.full(spare, pad)])
        self.positions = np.concatenate([*positions, np.zeros(spare, np.int64)])
        self.owners = np.concatenate([*owners, np.zeros(spare, np.int64)])


def _shared(previous: NDArray[np.int64], row: NDArray[np.int64]) -> int:
    """How many nodes of the previous row are also this row's."""
    most = min(len(previous), len(row))
    differs = np.flatnonzero(previous[:most] != row[:most])
    common = int(differs[0]) if len(differs) else most
    return common if common == len(row) else max(0, common - 1)


def can_share(model: Any) -> bool:
    """Whether a model's attention can be replaced by that of this module."""
    config = model.config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return config.model_type in SUITABLE and kinds == {"full_attention"}


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    paths: torch.Tensor | None = None,
    owners: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of all rows of a token tree; tensors have the shape (1, heads, nodes, size)."""
    assert paths is not None
    assert owners is not None
    (rows, length), flat = paths.shape, paths.flatten()

    def gathered(states: torch.Tensor) -> torch.Tensor:
        heads, _, size = states.shape[1:]
        whole = states[0].index_select(1, flat).view(heads, rows, length, size)
        return whole.transpose(0, 1)

    output = scaled_dot_product_attention(
        gathered(query),
        gathered(key),
        gathered(value),
        dropout_p=dropout,
        is_causal=True,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return output.transpose(1, 2).flatten(0, 1).index_select(0, owners)[None], None


AttentionInterface.register(ATTENTION, _attend)
