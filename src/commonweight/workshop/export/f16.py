"""Writing a model folder as a GGUF file in F16, as llama.cpp's converter does. Needs no torch."""

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType

from commonweight.workshop.export.gguf_file import Array, Field, Tensor, write_gguf
from commonweight.workshop.export.layouts import (
    count_permuted_heads,
    find_layout,
    make_fields,
    make_names,
    permute,
)
from commonweight.workshop.export.safetensors_file import WEIGHTS, SafetensorsFile
from commonweight.workshop.export.settings import ExportError
from commonweight.workshop.export.vocabulary import make_vocabulary

F16_FILE_TYPE = 1
_KEY = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)+")
_BASE_MODEL = re.compile(r"general\.base_model\.(\d+)\.\w+")


def write_f16(folder: Path, output: Path, metadata: Mapping[str, str]) -> None:
    """Write a model folder as a GGUF file: matrices in F16, vectors in F32.

    Args:
        metadata: further keys; of base models ``general.base_model.0.name`` and the like, which are counted here.

    Raises:
        ExportError: its architecture, tokenizer or a tensor is not exported.
    """
    config = read_config(folder)
    layout = find_layout(config)
    try:
        weights = SafetensorsFile(folder / WEIGHTS)
    except OSError as error:
        raise ExportError(f"The model has no {WEIGHTS}; weights in several files are not exported.") from error
    names = make_names(layout, config["num_hidden_layers"])
    if config.get("tie_word_embeddings"):
        names.pop("lm_head.weight")
    found = [name for name in weights.names if name in names or name != "lm_head.weight"]
    if unknown := set(found) - names.keys():
        raise ExportError(f"The model has the tensor {min(unknown)}, which is not exported.")
    if missing := names.keys() - set(found):
        raise ExportError(f"The model has no tensor {min(missing)}.")
    tensors: list[Tensor] = []
    for name, exported in names.items():  # the layout's order, whoever wrote the file
        shape = weights.get_shape(name)
        kind = GGMLQuantizationType.F32 if len(shape) == 1 else GGMLQuantizationType.F16
        heads = count_permuted_heads(layout, name, config)
        tensors.append(Tensor(exported, shape, kind, partial(_read, weights, name, kind, heads)))
    vocab_size = tensors[0].shape[0]
    count = sum(int(np.prod(tensor.shape)) for tensor in tensors)
    own = [
        Field("general.type", "model", GGUFValueType.STRING),
        Field("general.size_label", gguf.size_label(count, count, 0, 0), GGUFValueType.STRING),
        *make_fields(layout, config, vocab_size),
        Field("general.file_type", F16_FILE_TYPE, GGUFValueType.UINT32),
        *make_vocabulary(folder, vocab_size),
        Field("general.quantization_version", gguf.GGML_QUANT_VERSION, GGUFValueType.UINT32),
    ]
    given = _make_given(metadata, {"general.architecture", *(field.name for field in own)})
    write_gguf(output, layout.architecture, [own[0], *given, *own[1:]], tensors)


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a model folder.

    Raises:
        ExportError: there is none.
    """
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise ExportError("The model's config.json is missing, or is not JSON.") from error
    if not isinstance(config, dict):
        raise ExportError("The model's config.json is no object.")
    return config


def _read(weights: SafetensorsFile, name: str, kind: GGMLQuantizationType, heads: int | None) -> Array:
    data = weights.read(name)
    dtype = np.float32 if kind == GGMLQuantizationType.F32 else np.float16
    with np.errstate(over="ignore"):  # said below, with its name
        converted = np.ascontiguousarray(data, dtype)
    if not np.isfinite(converted).all():
        raise ExportError(f"The tensor {name} holds values that are not finite in {kind.name}.")
    return converted if heads is None else permute(converted, heads)


def _make_given(metadata: Mapping[str, str], taken: set[str]) -> list[Field]:
    for name, value in metadata.items():
        if not _KEY.fullmatch(name) or name in taken:
            raise ExportError(f"The metadata {name!r} is no key that can be given.")
        if not isinstance(value, str):
            raise ExportError(f"The metadata {name} is no text.")
    fields = [Field(name, value, GGUFValueType.STRING) for name, value in metadata.items()]
    bases = {int(match[1]) for name in metadata if (match := _BASE_MODEL.fullmatch(name))}
    if bases != set(range(len(bases))):
        raise ExportError("The metadata of base models is not numbered from 0 on.")
    if bases:
        fields.insert(0, Field("general.base_model.count", len(bases), GGUFValueType.UINT32))
    return fields
