"""Converting models: a GGUF file to a model folder in Hugging Face's format, and a model folder to a GGUF file."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType

from commonweight.workshop.export.gguf_file import Array, Field, Tensor, read_fields, write_gguf
from commonweight.workshop.export.layouts import (
    count_permuted_heads,
    find_layout,
    get_layout,
    make_config,
    make_fields,
    make_names,
    permute,
    unpermute,
)
from commonweight.workshop.export.safetensors_file import SafetensorsFile, write_safetensors
from commonweight.workshop.export.settings import ExportError
from commonweight.workshop.export.tokenizers import make_vocabulary, write_tokenizer

WEIGHTS = "model.safetensors"


def write_model_folder(source: Path, folder: Path) -> dict[str, Any]:
    """Write a GGUF file's model in Hugging Face's format, in float32: exactly the numbers of the file's blocks.

    Returns:
        The file's metadata.

    Raises:
        ExportError: it cannot be read, or is of an architecture that is not imported.
    """
    try:
        reader = gguf.GGUFReader(source)
    except (OSError, ValueError) as error:
        raise ExportError(f"{source.name} is no GGUF file that can be read: {error}.") from error
    fields: dict[str, Any] = {field.name: field.value for field in read_fields(reader)}
    fields["general.architecture"] = reader.fields["general.architecture"].contents()
    layout = get_layout(fields["general.architecture"])
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
            tuple(int(size) for size in reversed(found[ours].shape.tolist())),
            partial(_dequantise, found[ours], count_permuted_heads(layout, name, config)),
        )
        for name, ours in names.items()
    }
    write_safetensors(folder / WEIGHTS, tensors, {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    generation = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=1) + "\n")
    write_tokenizer(fields, folder)
    return fields


def write_f16(folder: Path, output: Path, metadata: Mapping[str, Any]) -> None:
    """Write a model folder as a GGUF file: matrices in F16, vectors in F32, as llama.cpp's converter does.

    Args:
        metadata: further keys, whose values are texts or lists of texts.

    Raises:
        ExportError: its architecture, tokenizer or a tensor is not exported.
    """
    try:
        config = json.loads((folder / "config.json").read_bytes())
        weights = SafetensorsFile(folder / WEIGHTS)
    except (OSError, ValueError) as error:
        raise ExportError(f"{folder.name} is no model folder: {error}.") from error
    layout = find_layout(config)
    names = make_names(layout, config["num_hidden_layers"])
    is_tied = bool(config.get("tie_word_embeddings"))
    tensors: list[Tensor] = []
    for name in _order(weights.names, names):
        if is_tied and name == "lm_head.weight":
            continue
        if name not in names:
            raise ExportError(f"The model has the tensor {name}, which is not exported.")
        shape = weights.get_shape(name)
        kind = GGMLQuantizationType.F32 if len(shape) == 1 else GGMLQuantizationType.F16
        heads = count_permuted_heads(layout, name, config)
        tensors.append(Tensor(names[name], shape, kind, partial(_read, weights, name, kind, heads)))
    expected = set(names.values()) - ({"output.weight"} if is_tied else set())
    if missing := expected - {tensor.name for tensor in tensors}:
        raise ExportError(f"The model has no tensor for {min(missing)}.")
    fields = [
        Field("general.type", "model", GGUFValueType.STRING),
        *(_make_field(name, value) for name, value in metadata.items()),
        Field("general.size_label", _label_size(tensors), GGUFValueType.STRING),
        *make_fields(layout, config, config["vocab_size"]),
        Field("general.file_type", 1, GGUFValueType.UINT32),
        *make_vocabulary(folder, config["vocab_size"]),
        Field("general.quantization_version", gguf.GGML_QUANT_VERSION, GGUFValueType.UINT32),
    ]
    write_gguf(output, layout.architecture, fields, tensors)


def _order(found: list[str], names: Mapping[str, str]) -> list[str]:
    """Tensors in the order of the layout, so that it does not depend on who wrote the file."""
    known = [name for name in names if name in set(found)]
    return known + [name for name in found if name not in names]


def _dequantise(tensor: gguf.ReaderTensor, heads: int | None) -> Array:
    data = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
    data = data.reshape(tuple(int(size) for size in reversed(tensor.shape.tolist())))
    return data if heads is None else unpermute(data, heads)


def _read(weights: SafetensorsFile, name: str, kind: GGMLQuantizationType, heads: int | None) -> Array:
    data = weights.read(name)
    if heads is not None:
        data = permute(data, heads)
    return np.ascontiguousarray(data, np.float32 if kind == GGMLQuantizationType.F32 else np.float16)


def _make_field(name: str, value: object) -> Field:
    if isinstance(value, str):
        return Field(name, value, GGUFValueType.STRING)
    if isinstance(value, bool) or not isinstance(value, int | list):
        raise ExportError(f"The metadata {name} is neither a text, a number nor a list of texts.")
    if isinstance(value, int):
        return Field(name, value, GGUFValueType.UINT32)
    return Field(name, [str(item) for item in value], GGUFValueType.ARRAY, GGUFValueType.STRING)


def _label_size(tensors: list[Tensor]) -> str:
    count = sum(int(np.prod(tensor.shape)) for tensor in tensors)
    for unit, size in (("B", 1e9), ("M", 1e6)):
        if count >= size:
            number = count / size
            return f"{number:.1f}{unit}" if number < 10 else f"{number:.0f}{unit}"
    return f"{count / 1e3:.0f}K"
