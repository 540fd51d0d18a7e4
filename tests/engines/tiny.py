"""Models of a few hundred kilobytes with random weights, one for every kind of memory that llama.cpp keeps."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf import GGUFWriter, TokenType

WINDOW = 32
"""Tokens that the layers with a sliding window see."""
VOCABULARY = 3 + 256

_WIDTH, _HEADS, _KV_HEADS, _FEED_FORWARD = 64, 4, 2, 96
_HEAD_WIDTH = _WIDTH // _HEADS
_INNER, _STATE, _RANK, _CONVOLUTION = 2 * _WIDTH, 8, 4, 4

Shape = tuple[int, ...]
"""As NumPy has it: rows (outputs) first."""

_ATTENTION: dict[str, Shape] = {
    "attn_q.weight": (_WIDTH, _WIDTH),
    "attn_k.weight": (_KV_HEADS * _HEAD_WIDTH, _WIDTH),
    "attn_v.weight": (_KV_HEADS * _HEAD_WIDTH, _WIDTH),
    "attn_output.weight": (_WIDTH, _WIDTH),
}
_QUERY_KEY_NORMS: dict[str, Shape] = {"attn_q_norm.weight": (_HEAD_WIDTH,), "attn_k_norm.weight": (_HEAD_WIDTH,)}
_NETWORK: dict[str, Shape] = {
    "ffn_norm.weight": (_WIDTH,),
    "ffn_gate.weight": (_FEED_FORWARD, _WIDTH),
    "ffn_up.weight": (_FEED_FORWARD, _WIDTH),
    "ffn_down.weight": (_WIDTH, _FEED_FORWARD),
}
_POST_NORMS: dict[str, Shape] = {"post_attention_norm.weight": (_WIDTH,), "post_ffw_norm.weight": (_WIDTH,)}
_STATE_SPACE: dict[str, Shape] = {
    "ssm_in.weight": (2 * _INNER, _WIDTH),
    "ssm_conv1d.weight": (_INNER, _CONVOLUTION),
    "ssm_conv1d.bias": (_INNER,),
    "ssm_x.weight": (_RANK + 2 * _STATE, _INNER),
    "ssm_dt.weight": (_INNER, _RANK),
    "ssm_dt.bias": (_INNER,),
    "ssm_a": (_INNER, _STATE),
    "ssm_d": (_INNER,),
    "ssm_out.weight": (_WIDTH, _INNER),
}
_STATE_SPACE_NORMS: dict[str, Shape] = {
    "ssm_dt_norm.weight": (_RANK,),
    "ssm_b_norm.weight": (_STATE,),
    "ssm_c_norm.weight": (_STATE,),
}
_SHORT_CONVOLUTION: dict[str, Shape] = {
    "shortconv.conv.weight": (_WIDTH, _CONVOLUTION),
    "shortconv.in_proj.weight": (3 * _WIDTH, _WIDTH),
    "shortconv.out_proj.weight": (_WIDTH, _WIDTH),
}

_LFM2 = [_SHORT_CONVOLUTION | _NETWORK, _ATTENTION | _QUERY_KEY_NORMS | _NETWORK] * 2

_LAYERS: dict[str, list[dict[str, Shape]]] = {
    "llama": [_ATTENTION | _NETWORK] * 2,
    # Five layers with a window, and one that sees everything.
    "gemma3": [_ATTENTION | _QUERY_KEY_NORMS | _POST_NORMS | _NETWORK] * 6,
    "mamba": [_STATE_SPACE] * 2,
    "jamba": [_STATE_SPACE | _STATE_SPACE_NORMS | _NETWORK, _ATTENTION | _NETWORK] * 2,
    "lfm2": _LFM2,
    "lfm2-window": _LFM2,
}

ARCHITECTURES = tuple(_LAYERS)
"""Attention; sliding window; recurrent; hybrid; hybrid with convolutions only; hybrid with a sliding window."""


def write(folder: Path, architecture: str) -> Path:
    """Write the model, the same bytes each time, and return its path."""
    path = folder / f"{architecture}.gguf"
    layers = _LAYERS[architecture]
    name = architecture.removesuffix("-window")
    writer = GGUFWriter(path, name)
    writer.add_context_length(4096)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(len(layers))
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv([_KV_HEADS if "attn_q.weight" in layer else 0 for layer in layers])
    writer.add_key_length(_HEAD_WIDTH)
    writer.add_value_length(_HEAD_WIDTH)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    if name in ("mamba", "jamba"):
        writer.add_ssm_conv_kernel(_CONVOLUTION)
        writer.add_ssm_inner_size(_INNER)
        writer.add_ssm_state_size(_STATE)
        writer.add_ssm_time_step_rank(_RANK)
    if name == "lfm2":
        writer.add_shortconv_l_cache(_CONVOLUTION)
    if architecture in ("gemma3", "lfm2-window"):
        writer.add_sliding_window(WINDOW)
    _add_vocabulary(writer)
    random = np.random.default_rng(0)
    shapes: dict[str, Shape] = {
        "token_embd.weight": (VOCABULARY, _WIDTH),
        "token_embd_norm.weight" if name == "lfm2" else "output_norm.weight": (_WIDTH,),
        "output.weight": (VOCABULARY, _WIDTH),
    }
    for i, layer in enumerate(layers):
        shapes[f"blk.{i}.attn_norm.weight"] = (_WIDTH,)
        shapes |= {f"blk.{i}.{tensor}": shape for tensor, shape in layer.items()}
    for tensor, shape in shapes.items():
        writer.add_tensor(tensor, _weights(random, tensor, shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_vocabulary(writer: GGUFWriter) -> None:
    """A byte a token, after three special ones."""
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))])
    writer.add_token_scores([0.0] * VOCABULARY)
    writer.add_token_types([TokenType.UNKNOWN, *[TokenType.CONTROL] * 2, *[TokenType.BYTE] * 256])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def _weights(random: np.random.Generator, tensor: str, shape: Shape) -> npt.NDArray[np.float32]:
    """Random weights that let what came before matter: attention picks a few tokens, states fade slowly."""
    kind = tensor.split(".", 2)[-1] if tensor.startswith("blk.") else tensor
    values: npt.NDArray[np.floating]
    if kind == "ssm_a":
        values = -np.tile(np.arange(1.0, shape[1] + 1), (shape[0], 1))
    elif kind == "ssm_dt.bias":
        values = np.full(shape, -3.0)
    elif kind in ("attn_q_norm.weight", "attn_k_norm.weight"):
        values = np.full(shape, 1.5)
    elif kind.endswith("norm.weight") or kind == "ssm_d":
        values = np.ones(shape)
    elif kind == "token_embd.weight":
        # Gemma multiplies embeddings by the root of the width.
        values = random.normal(0, 0.125, shape)
    else:
        gain = {"attn_q.weight": 2, "attn_k.weight": 2, "output.weight": 3}.get(kind, 1)
        values = random.normal(0, gain / np.sqrt(shape[-1]), shape)
    return values.astype(np.float32)
