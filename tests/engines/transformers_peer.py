"""The tiny Llama for transformers: the weights of its GGUF under their names and in their order there."""

from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader


def load(path: Path) -> Any:
    """A ``LlamaForCausalLM`` in float32 with the weights of a GGUF of the architecture ``llama``."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    reader = GGUFReader(path)
    tensors = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    facts = {name.removeprefix("llama."): field.contents() for name, field in reader.fields.items()}
    heads, (kv_heads, *_) = facts["attention.head_count"], facts["attention.head_count_kv"]
    config = LlamaConfig(
        vocab_size=facts["vocab_size"],
        hidden_size=facts["embedding_length"],
        intermediate_size=facts["feed_forward_length"],
        num_hidden_layers=facts["block_count"],
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=facts["attention.key_length"],
        rms_norm_eps=facts["attention.layer_norm_rms_epsilon"],
        max_position_embeddings=facts["context_length"],
        tie_word_embeddings=False,
        attn_implementation="eager",
    )
    weights = {
        "model.embed_tokens.weight": tensors["token_embd.weight"],
        "model.norm.weight": tensors["output_norm.weight"],
        "lm_head.weight": tensors["output.weight"],
    }
    for layer in range(facts["block_count"]):
        for ours, theirs in _NAMES.items():
            data = tensors[f"blk.{layer}.{ours}.weight"]
            if ours in ("attn_q", "attn_k"):
                data = _halved(data, heads if ours == "attn_q" else kv_heads)
            weights[f"model.layers.{layer}.{theirs}.weight"] = data
    model = LlamaForCausalLM(config).eval()
    model.load_state_dict({name: torch.from_numpy(data) for name, data in weights.items()})
    return model


_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def _halved(data: "np.ndarray[Any, Any]", heads: int) -> "np.ndarray[Any, Any]":
    """Rotary pairs as halves of a head, as transformers has them; GGUF has the two next to each other."""
    return data.reshape(heads, -1, 2, data.shape[1]).swapaxes(1, 2).reshape(data.shape).copy()
