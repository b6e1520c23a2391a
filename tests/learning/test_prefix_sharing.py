"""Token trees: what rows share, and that sharing changes no output."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from rro.learning.prefix_sharing import ATTENTION, SUITABLE, TokenTree, can_share

ROW = st.lists(st.integers(0, 2), min_size=1, max_size=8)
SIZES = {
    "vocab_size": 16, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip


def arrays(rows):
    return [np.array(row, dtype=np.int64) for row in rows]


@given(st.lists(ROW, min_size=1, max_size=6))
def test_every_row_is_a_path(rows):
    """From its first token to its last, each at its position; a node is followed by one token
    only."""
    tree, following = TokenTree(arrays(rows), 0, 1), {}
    for path, row in zip(tree.paths, rows, strict=True):
        assert tree.ids[path[: len(row)]].tolist() == row
        assert tree.positions[path[: len(row)]].tolist() == list(range(len(row)))
        for node, token in zip(path[: len(row)], row[1:], strict=False):
            assert following.setdefault(int(node), token) == token
    flat = tree.paths.flatten()
    used = sorted(set(flat.tolist()))
    assert flat[tree.owners][used].tolist() == used


def test_what_is_shared_is_there_once():
    rows = [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [1, 2, 3, 6], [1, 2, 3, 6, 7], [2, 2]]
    tree = TokenTree(arrays(rows), 0, 1)
    # Where a row leaves the one before it, the last shared token is there again.
    assert tree.ids.tolist() == [1, 2, 3, 4, 5, 3, 6, 6, 7, 2, 2]
    assert len(TokenTree(arrays(rows), 0, 16).ids) == 16


@pytest.mark.parametrize("kind", sorted(SUITABLE))
def test_sharing_changes_no_output_of_a_suitable_model(kind):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SIZES)).eval()
    assert can_share(model)
    rows = arrays([[3, 4, 5, 6, 7], [3, 4, 5, 8], [3, 4, 9, 9, 9, 9]])
    tree = TokenTree(rows, 0, 4)
    with torch.no_grad():
        alone = [model(torch.tensor(row[None])).logits[0] for row in rows]
        model.set_attn_implementation(ATTENTION)
        together = model(
            input_ids=torch.tensor(tree.ids[None]),
            position_ids=torch.tensor(tree.positions[None]),
            paths=torch.tensor(tree.paths),
            owners=torch.tensor(tree.owners),
            use_cache=False,
        ).logits[0]
    for path, row, logits in zip(tree.paths, rows, alone, strict=True):
        torch.testing.assert_close(together[path[: len(row)]], logits, atol=1e-5, rtol=1e-5)


def test_sliding_windows_are_not_shared():
    windows = AutoConfig.for_model(
        "qwen2", **SIZES, use_sliding_window=True, sliding_window=4, max_window_layers=2
    )
    assert not can_share(AutoModelForCausalLM.from_config(windows))
    assert not can_share(AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", n_layer=1)))
