"""Models that were trained elsewhere: the weights of a run, merged and checked, as a model folder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from commonweight.workshop.training.adapter import merge_adapter
from commonweight.workshop.training.adapter_files import ADAPTER, ADAPTER_CONFIG, ADAPTER_WEIGHTS
from commonweight.workshop.training.model import save_model
from commonweight.workshop.training.run_files import (
    RunFiles,
    check_shapes,
    find_last,
    read_history,
    read_json,
    read_shapes,
)
from commonweight.workshop.training.settings import TrainingError
from commonweight.workshop.training.tokenizer import copy_tokenizer
from commonweight.workshop.training.trainer import METRICS, load_model, write_metrics


def import_run(run: RunFiles, base: Path, output: Path, report: Callable[[str], None]) -> dict[str, float]:
    """Write the model folder of a run: its whole model, or its adapter merged into the model that it began with.

    Returns:
        What its log says, as far as it does: steps, epochs, tokens and the lowest held-out loss.

    Raises:
        TrainingError: the weights do not fit the model, or are not finite, or the log cannot be read.
    """
    history = read_history(run)
    model = merge_adapter(base, run.folder) if run.is_adapter else _load_weights(base, run)
    if run.is_adapter:
        _copy_adapter(run.folder, output / ADAPTER)
    if history:
        write_metrics(history, output / METRICS)
    copy_tokenizer(base, output)
    save_model(model, output)
    report(f"an {'adapter' if run.is_adapter else 'entire model'} of a run elsewhere: {', '.join(run.weights)}")
    losses = [entry["eval_loss"] for entry in history if isinstance(entry.get("eval_loss"), float)]
    found = {
        "steps": find_last(history, "step"),
        "epochs": find_last(history, "epoch"),
        "tokens": find_last(history, "num_tokens", "num_input_tokens_seen"),
        "eval_loss": min(losses, default=None),
    }
    return {name: value for name, value in found.items() if value is not None}


def _load_weights(base: Path, run: RunFiles) -> PreTrainedModel:
    model = load_model(base)
    paths = [run.folder / name for name in run.weights]
    expected = read_shapes(sorted(base.glob("*.safetensors")))
    check_shapes(read_shapes(paths), expected, is_tied=model.config.tie_word_embeddings)
    for path in paths:
        tensors = load_file(path)
        for name, tensor in tensors.items():
            if not bool(torch.isfinite(tensor).all()):
                raise TrainingError(f"{name} of the run holds numbers that are not finite")
        model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=False)
    return model


def _copy_adapter(run: Path, folder: Path) -> None:
    """The adapter as the run wrote it, without the path of the model that it was trained on."""
    folder.mkdir(exist_ok=True)
    shutil.copyfile(run / ADAPTER_WEIGHTS, folder / ADAPTER_WEIGHTS)
    config = read_json(run / ADAPTER_CONFIG) | {"base_model_name_or_path": None}
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
