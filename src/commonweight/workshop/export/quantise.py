"""Quantising GGUF files: from F16 to Q8_0 and Q4_K_M, with llama.cpp's choice of type for each tensor.

Needs no engine and no torch: a quantised file is a function of the F16 file, which ``verify`` computes again.
Source of the choices: llama.cpp, ``src/llama-quant.cpp``.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import gguf
import libgguf
import numpy as np
from gguf import GGMLQuantizationType

from commonweight.workshop.export.gguf_file import (
    Array,
    Field,
    Tensor,
    open_gguf,
    read_architecture,
    read_fields,
    write_gguf,
)
from commonweight.workshop.export.settings import ExportError

_FILE_TYPES = {"Q8_0": 7, "Q4_K_M": 15}
"""llama.cpp's numbers for them."""
_ROWS_AT_ONCE = 4096
# Where a row is no multiple of a K-quant's block of 256.
_FALLBACKS = {
    GGMLQuantizationType.Q4_K: GGMLQuantizationType.Q5_0,
    GGMLQuantizationType.Q5_K: GGMLQuantizationType.Q5_1,
    GGMLQuantizationType.Q6_K: GGMLQuantizationType.Q8_0,
}


def requantise(f16_path: Path, kind: str, output: Path) -> None:
    """Quantise an F16 file; the bytes written depend on its bytes alone.

    Raises:
        ExportError: the kind is not known, or the file cannot be read or is not in F16.
    """
    if kind not in _FILE_TYPES:
        raise ExportError(f"{kind} is no quantisation that is made here; there are {' and '.join(_FILE_TYPES)}.")
    reader = open_gguf(f16_path)
    architecture = read_architecture(reader)
    fields = [
        Field(field.name, _FILE_TYPES[kind], field.type) if field.name == "general.file_type" else field
        for field in read_fields(reader)
    ]
    model = _describe(reader, architecture)
    tensors: list[Tensor] = []
    for tensor in reader.tensors:
        shape = tuple(int(size) for size in reversed(tensor.shape.tolist()))
        if tensor.tensor_type == GGMLQuantizationType.F32:
            tensors.append(Tensor(tensor.name, shape, GGMLQuantizationType.F32, partial(_read, tensor.data)))
            continue
        if tensor.tensor_type != GGMLQuantizationType.F16:
            raise ExportError(f"{f16_path.name} holds {tensor.name} in {tensor.tensor_type.name}, not in F16.")
        is_matrix = len(shape) > 1
        chosen = _fit(choose_type(tensor.name, kind, model), shape[-1]) if is_matrix else tensor.tensor_type
        tensors.append(Tensor(tensor.name, shape, chosen, _make_quantiser(tensor.data, chosen)))
    write_gguf(output, architecture, fields, tensors)


@dataclass(frozen=True)
class QuantisedModel:
    """What types depend on beside the names of tensors."""

    layers: int
    is_tied: bool
    """Whether the embeddings are the output, too."""
    is_llama_70b: bool = False
    """Whether llama.cpp takes it for a Llama of 70 billion parameters, by its layers and grouped queries."""


def choose_type(name: str, kind: str, model: QuantisedModel) -> GGMLQuantizationType:
    """The type of a matrix by its name, before it is known whether its rows fit."""
    if kind == "Q8_0":
        return GGMLQuantizationType.Q8_0
    if name == ("token_embd.weight" if model.is_tied else "output.weight"):
        return GGMLQuantizationType.Q6_K
    block = re.fullmatch(r"blk\.(\d+)\.(attn_v|ffn_down)\.weight", name)
    if block and _uses_more_bits(int(block[1]), model.layers):
        return GGMLQuantizationType.Q6_K
    if block and block[2] == "attn_v" and model.is_llama_70b:
        return GGMLQuantizationType.Q5_K
    return GGMLQuantizationType.Q4_K


def _uses_more_bits(layer: int, layers: int) -> bool:
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def _fit(chosen: GGMLQuantizationType, row: int) -> GGMLQuantizationType:
    if row % gguf.GGML_QUANT_SIZES[chosen][0] == 0:
        return chosen
    fallback = _FALLBACKS.get(chosen)
    if fallback is not None and row % gguf.GGML_QUANT_SIZES[fallback][0] == 0:
        return fallback
    return GGMLQuantizationType.F16


def _make_quantiser(data: Array, chosen: GGMLQuantizationType) -> Callable[[], Array]:
    return partial(_read, data) if chosen == GGMLQuantizationType.F16 else partial(_quantise, data, chosen)


def _read(data: Array) -> Array:
    return np.ascontiguousarray(data)


def _quantise(data: Array, chosen: GGMLQuantizationType) -> Array:
    parts = [
        libgguf.quantize_rows(np.ascontiguousarray(data[start : start + _ROWS_AT_ONCE], dtype=np.float32), chosen)
        for start in range(0, len(data), _ROWS_AT_ONCE)
    ]
    return np.concatenate(parts)


def _describe(reader: gguf.GGUFReader, architecture: str) -> QuantisedModel:
    def get(key: str) -> object:
        field = reader.fields.get(f"{architecture}.{key}")
        return field.contents() if field else None

    layers = get("block_count")
    if not isinstance(layers, int):
        raise ExportError(f"The file has no number {architecture}.block_count.")
    is_grouped = get("attention.head_count") != get("attention.head_count_kv")
    return QuantisedModel(
        layers=layers,
        is_tied=all(tensor.name != "output.weight" for tensor in reader.tensors),
        is_llama_70b=architecture == "llama" and layers == 80 and is_grouped,
    )
