"""Layouts of decoders that are exported: names and metadata in Hugging Face's format and in GGUF.

Source: llama.cpp, ``convert_hf_to_gguf.py`` and its tensor names (``gguf.tensor_mapping``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np
from gguf import GGUFValueType

from commonweight.workshop.export.gguf_file import Array, Field
from commonweight.workshop.export.settings import ExportError

_INNER = (
    "input_layernorm",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "post_attention_layernorm",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


@dataclass(frozen=True)
class Layout:
    """A decoder's layout."""

    architecture: str
    """In GGUF."""
    hf_class: str
    """``architectures`` of its ``config.json``."""
    model_type: str
    arch: gguf.MODEL_ARCH
    is_permuted: bool
    """Whether llama.cpp wants the rows of query and key weights in another order (rotary halves interleaved)."""


LAYOUTS = (
    Layout("llama", "LlamaForCausalLM", "llama", gguf.MODEL_ARCH.LLAMA, is_permuted=True),
    Layout("qwen3", "Qwen3ForCausalLM", "qwen3", gguf.MODEL_ARCH.QWEN3, is_permuted=False),
)

_SIZES = (
    *("num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size"),
    *("max_position_embeddings", "rms_norm_eps"),
)


def find_layout(config: Mapping[str, Any]) -> Layout:
    """The layout of a model by its configuration.

    Raises:
        ExportError: it has none that is exported here, or uses a feature of it that is not.
    """
    names = config.get("architectures") or ["(none)"]
    layout = next((one for one in LAYOUTS if one.hf_class == names[0]), None)
    if layout is None:
        known = " and ".join(one.hf_class for one in LAYOUTS)
        raise ExportError(f"Models of the architecture {names[0]} are not exported; {known} are.")
    if missing := [key for key in _SIZES if not isinstance(config.get(key), int | float)]:
        raise ExportError(f"The model's configuration has no number {missing[0]}.")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    unsupported = {
        "attention_bias": bool(config.get("attention_bias")),
        "mlp_bias": bool(config.get("mlp_bias")),
        "use_sliding_window": bool(config.get("use_sliding_window")),
        "rope_type": rope.get("rope_type", rope.get("type", "default")) != "default",
        "hidden_act": config.get("hidden_act", "silu") != "silu",
    }
    if used := [name for name, is_used in unsupported.items() if is_used]:
        raise ExportError(f"The model's configuration sets {', '.join(used)} to what is not exported.")
    return layout


def get_layout(architecture: str) -> Layout:
    """The layout of a GGUF file's architecture.

    Raises:
        ExportError: it is not imported here.
    """
    layout = next((one for one in LAYOUTS if one.architecture == architecture), None)
    if layout is None:
        known = " and ".join(one.architecture for one in LAYOUTS)
        raise ExportError(f"GGUF files of the architecture {architecture} are not imported; {known} are.")
    return layout


def check_metadata(layout: Layout, fields: Mapping[str, Any]) -> None:
    """Check that a GGUF file uses nothing of its architecture that is not imported.

    Raises:
        ExportError: it does, or does not say its sizes.
    """
    a = layout.architecture
    sizes = ("block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count")
    for key in (*sizes, "attention.layer_norm_rms_epsilon"):
        if not isinstance(fields.get(f"{a}.{key}"), int | float):
            raise ExportError(f"The file has no number {a}.{key}.")
    if not isinstance(fields.get("tokenizer.ggml.tokens"), list):
        raise ExportError("The file has no vocabulary.")
    for key, plain in (("rope.scaling.type", "none"), ("expert_count", 0), ("attention.sliding_window", 0)):
        if fields.get(f"{a}.{key}", plain) != plain:
            raise ExportError(f"The file sets {a}.{key} to {fields[f'{a}.{key}']}, which is not imported.")


def make_fields(layout: Layout, config: Mapping[str, Any], vocab_size: int) -> list[Field]:
    """The metadata of a model's shape."""
    a = layout.architecture
    heads = int(config["num_attention_heads"])
    head_dim = int(config.get("head_dim") or config["hidden_size"] // heads)
    rope = config.get("rope_parameters") or {}
    integers = {
        f"{a}.block_count": config["num_hidden_layers"],
        f"{a}.context_length": config["max_position_embeddings"],
        f"{a}.embedding_length": config["hidden_size"],
        f"{a}.feed_forward_length": config["intermediate_size"],
        f"{a}.attention.head_count": heads,
        f"{a}.attention.head_count_kv": config.get("num_key_value_heads") or heads,
        f"{a}.attention.key_length": head_dim,
        f"{a}.attention.value_length": head_dim,
        f"{a}.vocab_size": vocab_size,
        f"{a}.rope.dimension_count": head_dim,
    }
    floats = {
        f"{a}.rope.freq_base": rope.get("rope_theta", config.get("rope_theta", 10000.0)),
        f"{a}.attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
    }
    return [
        *(Field(name, int(value), GGUFValueType.UINT32) for name, value in integers.items()),
        *(Field(name, float(value), GGUFValueType.FLOAT32) for name, value in floats.items()),
    ]


def make_config(layout: Layout, fields: Mapping[str, Any], *, is_tied: bool) -> dict[str, Any]:
    """``config.json`` of a model by the metadata of its GGUF file."""
    a = layout.architecture
    heads = fields[f"{a}.attention.head_count"]
    hidden = fields[f"{a}.embedding_length"]
    return {
        "architectures": [layout.hf_class],
        "model_type": layout.model_type,
        "hidden_size": hidden,
        "intermediate_size": fields[f"{a}.feed_forward_length"],
        "num_hidden_layers": fields[f"{a}.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": fields.get(f"{a}.attention.head_count_kv", heads),
        "head_dim": fields.get(f"{a}.attention.key_length", hidden // heads),
        "max_position_embeddings": fields[f"{a}.context_length"],
        # Stored in float32; the shortest decimal that gives it again is what was meant.
        "rms_norm_eps": float(str(np.float32(fields[f"{a}.attention.layer_norm_rms_epsilon"]))),
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": float(fields.get(f"{a}.rope.freq_base", 10000.0)),
        },
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": is_tied,
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "bos_token_id": fields.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": fields.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": fields.get("tokenizer.ggml.padding_token_id"),
        "dtype": "float32",
    }


def make_names(layout: Layout, layers: int) -> dict[str, str]:
    """Names of tensors in GGUF by those in Hugging Face's format."""
    known = gguf.get_tensor_name_map(layout.arch, layers)
    hf_names = ["model.embed_tokens", "model.norm", "lm_head"]
    inner = [*_INNER, *(("self_attn.q_norm", "self_attn.k_norm") if layout.architecture == "qwen3" else ())]
    hf_names += [f"model.layers.{layer}.{name}" for layer in range(layers) for name in inner]
    return {f"{name}.weight": f"{known.get_name(name)}.weight" for name in hf_names}


def permute(data: Array, heads: int) -> Array:
    """Rows of a query or key matrix in llama.cpp's order: the two halves of each head interleaved."""
    return data.reshape(heads, 2, len(data) // heads // 2, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape)


def unpermute(data: Array, heads: int) -> Array:
    """Undo :func:`permute`."""
    return data.reshape(heads, len(data) // heads // 2, 2, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape)


def count_permuted_heads(layout: Layout, name: str, config: Mapping[str, Any]) -> int | None:
    """Heads of a matrix whose rows llama.cpp wants in another order; None: in the same order."""
    if not layout.is_permuted:
        return None
    if name.endswith("q_proj.weight"):
        return int(config["num_attention_heads"])
    if name.endswith("k_proj.weight"):
        return int(config.get("num_key_value_heads") or config["num_attention_heads"])
    return None
