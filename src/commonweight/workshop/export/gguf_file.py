"""Writing GGUF files tensor by tensor, so that memory holds one at a time."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType

from commonweight.catalog.header import UnreadableModelError, check_header
from commonweight.workshop.export.settings import ExportError

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Field:
    """A key of the metadata with its value and type."""

    name: str
    value: Any
    type: GGUFValueType
    element: GGUFValueType | None = None
    """Type of an array's elements."""


@dataclass(frozen=True)
class Tensor:
    """A tensor to be written."""

    name: str
    shape: tuple[int, ...]
    """In numpy's order: rows first."""
    type: GGMLQuantizationType
    read: Callable[[], Array]
    """Returns its data in this type: packed blocks of bytes where the type has such."""


def write_gguf(path: Path, architecture: str, fields: Iterable[Field], tensors: Sequence[Tensor]) -> None:
    """Write a GGUF file; equal arguments give equal bytes.

    Args:
        fields: metadata without ``general.architecture``.
    """
    writer = gguf.GGUFWriter(path, architecture)
    try:
        for field in fields:
            writer.add_key_value(field.name, field.value, field.type, sub_type=field.element)
        for tensor in tensors:
            block, size = gguf.GGML_QUANT_SIZES[tensor.type]
            count = int(np.prod(tensor.shape))
            writer.add_tensor_info(
                tensor.name,
                _pack_shape(tensor.shape, block, size) if _is_packed(tensor.type) else tensor.shape,
                _get_dtype(tensor.type),
                count // block * size,
                raw_dtype=tensor.type if _is_packed(tensor.type) else None,
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in tensors:
            writer.write_tensor_data(tensor.read())
    finally:
        writer.close()


class _PlainReader(gguf.GGUFReader):
    """Reads through plain arrays: slices of ``np.memmap``, of which a vocabulary takes a million, are slow."""

    @property
    def data(self) -> Array:
        """The file's bytes, mapped."""
        return self._data

    @data.setter
    def data(self, mapped: Array) -> None:
        self._data = mapped.view(np.ndarray)


def open_gguf(path: Path) -> gguf.GGUFReader:
    """Open a file to read, checked first: its header may be anybody's.

    Raises:
        ExportError: it is no GGUF file, or a broken one.
    """
    try:
        check_header(path)
        return _PlainReader(path)
    except (UnreadableModelError, OSError, ValueError, IndexError, KeyError, OverflowError) as error:
        reason = str(error).replace(str(path), path.name).rstrip(".")
        raise ExportError(f"{path.name} is no GGUF file that can be read: {reason}.") from error


def read_architecture(reader: gguf.GGUFReader) -> str:
    """The architecture that a file states.

    Raises:
        ExportError: it states none.
    """
    field = reader.fields.get("general.architecture")
    value = field.contents() if field else None
    if not isinstance(value, str):
        raise ExportError("The file does not say its architecture.")
    return value


def read_fields(reader: gguf.GGUFReader) -> list[Field]:
    """The metadata of a file in its order, without the header's counts and the architecture."""
    return [
        Field(
            field.name,
            field.contents(),
            field.types[0],
            field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None,
        )
        for field in reader.fields.values()
        if not field.name.startswith("GGUF.") and field.name != "general.architecture"
    ]


def _is_packed(kind: GGMLQuantizationType) -> bool:
    return kind not in (GGMLQuantizationType.F32, GGMLQuantizationType.F16)


def _get_dtype(kind: GGMLQuantizationType) -> np.dtype[Any]:
    match kind:
        case GGMLQuantizationType.F32:
            return np.dtype(np.float32)
        case GGMLQuantizationType.F16:
            return np.dtype(np.float16)
        case _:
            return np.dtype(np.uint8)


def _pack_shape(shape: tuple[int, ...], block: int, size: int) -> tuple[int, ...]:
    return (*shape[:-1], shape[-1] // block * size)
