"""Adapters: written in peft's layout, and merged into the weights that they were trained on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import (
    LoraConfig,
    PeftConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from commonweight.workshop.training.adapter_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    AdapterFiles,
    digest_weights,
)
from commonweight.workshop.training.effective_config import to_json
from commonweight.workshop.training.model import save_model
from commonweight.workshop.training.settings import TrainingError
from commonweight.workshop.training.tokenizer import copy_tokenizer
from commonweight.workshop.training.trainer import load_model

BASE = "base_weights"
"""Key of the digest of the base's weights. The only one: safetensors writes several in any order."""
_MERGED_WAYS = (True, False, "gaussian", "orthogonal")
"""Values of ``init_lora_weights`` that leave the base's weights as they are."""


def write_adapter(model: PeftModel, folder: Path, base: Path, base_id: str | None) -> None:
    """Writes the adapter of a trained model in float16.

    Args:
        base: the model folder that it was trained on.
        base_id: its name at its publisher; None: its digest stands for it.
    """
    digest = digest_weights(base)
    tensors = {
        name: tensor.detach().to("cpu", torch.float16).contiguous()
        for name, tensor in get_peft_model_state_dict(model, save_embedding_layers=False).items()
    }
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise TrainingError(f"the adapter's {name} does not fit into float16: lower the learning rate")
    config: dict[str, Any] = to_json(model.peft_config["default"])
    config.pop("runtime_config", None)
    config |= {"base_model_name_or_path": base_id or f"sha256:{digest}", "inference_mode": True}
    folder.mkdir(exist_ok=True)
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    save_file(tensors, folder / ADAPTER_WEIGHTS, {BASE: digest})


def merge_adapter(base: Path, adapter: Path) -> PreTrainedModel:
    """A model folder's model with an adapter in its weights.

    Products of float16 numbers are summed in float64, where the sums of any adapter of sane size are exact: the
    merged weights are the same on every machine.

    Raises:
        TrainingError: the adapter cannot be read, or is of another model.
    """
    stated = read_base_digest(adapter / ADAPTER_WEIGHTS)
    if stated is not None and stated != (found := digest_weights(base)):
        raise TrainingError(f"the adapter is of a model whose weights have the digest {stated}, not {found}")
    config = read_config(adapter)
    try:
        tensors = load_file(adapter / ADAPTER_WEIGHTS)
        model = get_peft_model(load_model(base), config)
    except (ValueError, SafetensorError) as error:
        raise TrainingError(f"the adapter does not fit the model: {error}") from error
    _check_tensors(tensors, get_peft_model_state_dict(model, save_embedding_layers=False))
    set_peft_model_state_dict(model, tensors)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.double()
    return model.merge_and_unload(safe_merge=True).float()


def run_adapter(
    adapter: AdapterFiles, model: Path, output: Path, report: Callable[[str], None]
) -> dict[str, float | str]:
    """Merges an adapter into a model folder and writes another."""
    merged = merge_adapter(model, adapter.folder)
    copy_tokenizer(model, output)
    save_model(merged, output)
    size = adapter.weights.stat().st_size
    report(f"adapter: {size:,} bytes merged into {merged.num_parameters():,} parameters")
    return {"adapter_bytes": float(size), "parameters": float(merged.num_parameters())}


def read_config(folder: Path) -> LoraConfig:
    """The configuration of an adapter, if it is one that can be merged."""
    try:
        config = PeftConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"the adapter's {ADAPTER_CONFIG} cannot be read") from error
    if not isinstance(config, LoraConfig):
        raise TrainingError(f"the adapter is of the type {config.peft_type}, and only LoRA is merged")
    if config.init_lora_weights not in _MERGED_WAYS:
        raise TrainingError(
            f"the adapter began with init_lora_weights {config.init_lora_weights!r}, which changes the base's"
            " weights: convert it to plain LoRA with peft first"
        )
    if config.layer_replication:
        raise TrainingError("the adapter repeats layers (layer_replication), which cannot be merged")
    config.base_model_name_or_path = None  # peft would print it beside the path of the model
    return config


def read_base_digest(path: Path) -> str | None:
    """The digest of the weights that an adapter was trained on, where its file states one."""
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get(BASE)
    except SafetensorError as error:
        raise TrainingError(
            f"the adapter's {path.name} cannot be read: it is torn or no safetensors file"
        ) from error


def _check_tensors(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name in sorted(found.keys() | expected.keys()):
        if name not in expected:
            raise TrainingError(f"the adapter has {name}, which its configuration or the model does not have")
        if name not in found:
            raise TrainingError(f"the adapter lacks {name}, which its configuration asks for in this model")
        shapes = list(found[name].shape), list(expected[name].shape)
        if shapes[0] != shapes[1]:
            raise TrainingError(f"the adapter's {name} has the shape {shapes[0]}, and the model wants {shapes[1]}")
        if not torch.isfinite(found[name]).all():
            raise TrainingError(f"the adapter's {name} holds numbers that are not finite")
