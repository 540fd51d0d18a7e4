"""A decoder with random weights in the Qwen3 layout, which llama.cpp runs."""

from pathlib import Path

import torch
import transformers
from transformers import GenerationConfig, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from commonweight.workshop.training.settings import PretrainSettings


def build_model(settings: PretrainSettings, vocab_size: int, document_end: int, turn_end: int) -> Qwen3ForCausalLM:
    """transformers' own Qwen3: QK-norm, grouped queries, SwiGLU, tied embeddings. The seed sets its weights."""
    torch.manual_seed(settings.seed)
    config = Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=settings.dim,
        intermediate_size=settings.ffn_dim,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.kv_heads,
        head_dim=settings.head_dim,
        max_position_embeddings=settings.context,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=turn_end,
        pad_token_id=document_end,
        dtype="float32",
    )
    model = Qwen3ForCausalLM(config)
    model.generation_config = GenerationConfig(
        eos_token_id=[turn_end, document_end], pad_token_id=document_end, max_length=settings.context
    )
    return model


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """Writes ``config.json``, ``generation_config.json`` and ``model.safetensors``, without any path in them."""
    transformers.utils.logging.disable_progress_bar()
    model.config._name_or_path = ""
    model.config.use_cache = True
    model.save_pretrained(folder)
