"""Importing a base model: from its GGUF file to a model folder in Hugging Face's format. Needs no torch."""

import hashlib
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from commonweight.catalog.starter import STARTER_SHA256, find_starter
from commonweight.workshop.export.gguf_file import Array, open_gguf, read_architecture, read_fields
from commonweight.workshop.export.layouts import (
    check_metadata,
    count_permuted_heads,
    get_layout,
    make_config,
    make_names,
    unpermute,
)
from commonweight.workshop.export.safetensors_file import WEIGHTS, write_safetensors
from commonweight.workshop.export.settings import ExportError, ImportSettings
from commonweight.workshop.export.vocabulary import write_tokenizer

STARTER = "starter"


def find_base(settings: ImportSettings, folder: Path) -> Path:
    """The file of a base model; relative paths start at ``folder``.

    Raises:
        ExportError: it is not there.
    """
    if settings.location != STARTER:
        path = folder / settings.location
        if not path.is_file():
            raise ExportError(f"The base model {settings.location} is not there.")
        return path
    starter = find_starter()
    if starter is None:
        raise ExportError("The starter model is not installed: commonweight pull gets it.")
    return starter


def run_import(
    settings: ImportSettings, source: Path, output: Path, report: Callable[[str], None]
) -> dict[str, float | str]:
    """Write the model folder of a base model.

    Raises:
        ExportError: the file is another one than the settings say, or is not imported.
    """
    begin = time.monotonic()
    expected = settings.sha256 or (STARTER_SHA256 if settings.location == STARTER else None)
    if expected is not None and (found := _digest(source)) != expected:
        raise ExportError(f"The base model {source.name} has the SHA-256 {found}, not {expected}.")
    fields = write_model_folder(source, output, settings.licence)
    size = (output / WEIGHTS).stat().st_size
    report(f"import: {source.name}, {fields['general.architecture']}, {size:,} bytes of weights in float32")
    return {"seconds": time.monotonic() - begin, "bytes": float(size)}


def write_model_folder(source: Path, folder: Path, licence: str | None = None) -> dict[str, Any]:
    """Write a GGUF file's model in Hugging Face's format, in float32: exactly the numbers that its blocks hold.

    Args:
        licence: what the file must not contradict.

    Returns:
        The file's metadata.

    Raises:
        ExportError: it cannot be read, or is of an architecture that is not imported.
    """
    reader = open_gguf(source)
    fields: dict[str, Any] = {field.name: field.value for field in read_fields(reader)}
    fields["general.architecture"] = read_architecture(reader)
    stated = fields.get("general.license")
    if licence is not None and stated is not None and str(stated).casefold() != licence.casefold():
        raise ExportError(f"{source.name} says that its licence is {str(stated)[:100]}, and the recipe {licence}.")
    layout = get_layout(fields["general.architecture"])
    check_metadata(layout, fields)
    found = {tensor.name: tensor for tensor in reader.tensors}
    config = make_config(layout, fields, is_tied="output.weight" not in found)
    names = make_names(layout, config["num_hidden_layers"])
    if config["tie_word_embeddings"]:
        names.pop("lm_head.weight")
    if missing := set(names.values()) - found.keys():
        raise ExportError(f"{source.name} has no tensor {min(missing)}.")
    if unknown := found.keys() - set(names.values()):
        raise ExportError(f"{source.name} has the tensor {min(unknown)}, which is not imported.")
    tensors = {
        name: (
            _get_shape(found[ours]),
            partial(_dequantise, found[ours], count_permuted_heads(layout, name, config)),
        )
        for name, ours in names.items()
    }
    write_tokenizer(fields, folder)
    _write_json(folder / "config.json", config)
    ends = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    _write_json(
        folder / "generation_config.json", {key: value for key, value in ends.items() if value is not None}
    )
    write_safetensors(folder / WEIGHTS, tensors, {"format": "pt"})
    return fields


def _get_shape(tensor: gguf.ReaderTensor) -> tuple[int, ...]:
    return tuple(int(size) for size in reversed(tensor.shape.tolist()))


def _dequantise(tensor: gguf.ReaderTensor, heads: int | None) -> Array:
    data = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
    data = data.reshape(_get_shape(tensor))
    return data if heads is None else unpermute(data, heads)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
