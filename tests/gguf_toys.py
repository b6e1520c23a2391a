"""Small GGUF files, written as llama.cpp's converter writes a Llama with a byte-level BPE."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

# of a layer: Transformers' names and GGUF's
_LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_WHOLE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
}


def write_gguf(
    path: Path,
    model: Any,
    tokenizer: Any,
    *,
    output: torch.Tensor | None = None,
    extra: dict[str, torch.Tensor] | None = None,
    left_out: str = "",
    **fields: Any,
) -> Path:
    """Write a Llama in float32. `output`: its output matrix, where the file has one of its own;
    `extra`: more tensors; `left_out`: a tensor's name; `fields`: metadata in place of its own,
    with __ for points."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in {**_metadata(model.config), **fields}.items():
        key = key.replace("__", ".")
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_uint32(key, value)
    _add_tokenizer(writer, tokenizer)
    tensors = dict(_tensors(model)) | (extra or {})
    if output is not None:
        tensors["output.weight"] = output
    tensors.pop(left_out, None)
    for name, tensor in tensors.items():
        writer.add_tensor(name, np.ascontiguousarray(tensor.detach().float().numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _metadata(config: Any) -> dict[str, Any]:
    return {
        "llama__block_count": config.num_hidden_layers,
        "llama__context_length": config.max_position_embeddings,
        "llama__embedding_length": config.hidden_size,
        "llama__feed_forward_length": config.intermediate_size,
        "llama__attention__head_count": config.num_attention_heads,
        "llama__attention__head_count_kv": config.num_key_value_heads,
        "llama__attention__layer_norm_rms_epsilon": config.rms_norm_eps,
        "llama__rope__freq_base": float(config.rope_parameters["rope_theta"]),
        "llama__rope__dimension_count": config.hidden_size // config.num_attention_heads,
        "llama__vocab_size": config.vocab_size,
    }


def _add_tokenizer(writer: Any, tokenizer: Any) -> None:
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    added = {str(token): token.special for token in tokenizer.added_tokens_decoder.values()}
    kinds = [
        gguf.TokenType.NORMAL
        if token not in added
        else (gguf.TokenType.CONTROL if added[token] else gguf.TokenType.USER_DEFINED)
        for token, _ in vocabulary
    ]
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)


def _tensors(model: Any) -> Any:
    weights, config = model.state_dict(), model.config
    for ours, theirs in _WHOLE.items():
        yield theirs, weights[ours]
    for layer in range(config.num_hidden_layers):
        for ours, theirs in _LAYER.items():
            tensor = weights[f"model.layers.{layer}.{ours}.weight"]
            if theirs == "attn_q":
                tensor = _interleaved(tensor, config.num_attention_heads)
            if theirs == "attn_k":
                tensor = _interleaved(tensor, config.num_key_value_heads)
            yield f"blk.{layer}.{theirs}.weight", tensor


def _interleaved(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """llama.cpp rotates neighbours, Transformers halves."""
    rows, columns = tensor.shape
    return tensor.view(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
