"""Safetensors files, tensor by tensor: reading views of F32, F16 and BF16, and writing F32 without holding all."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from commonweight.workshop.export.gguf_file import Array
from commonweight.workshop.export.settings import ExportError

WEIGHTS = "model.safetensors"
"""Its name in a model folder."""

_MAX_HEADER_BYTES = 100 * 2**20
_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


class SafetensorsFile:
    """The tensors of a file by name, read when they are asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        header, self._start = _read_header(path)
        header.pop("__metadata__", None)
        self._entries: dict[str, dict[str, Any]] = header
        if path.stat().st_size < self._start + max((one["data_offsets"][1] for one in header.values()), default=0):
            raise ExportError(f"{path.name} is cut off.")

    @property
    def names(self) -> list[str]:
        """Names of the tensors, sorted."""
        return sorted(self._entries)

    def read(self, name: str) -> Array:
        """A tensor in float32, or in float16 where the file has it so.

        Raises:
            ExportError: it is in a type that is not read.
        """
        entry = self._entries[name]
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None:
            raise ExportError(f"{self._path.name} holds {name} in {entry['dtype']}; F32, F16 and BF16 are read.")
        begin, end = entry["data_offsets"]
        count = (end - begin) // dtype.itemsize
        data: Array = np.memmap(self._path, dtype, "r", self._start + begin, (count,))
        data = data.reshape(entry["shape"])
        if entry["dtype"] == "BF16":
            data = (data.astype(np.uint32) << 16).view(np.float32)
        return data

    def get_shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return tuple(self._entries[name]["shape"])


def write_safetensors(
    path: Path,
    tensors: Mapping[str, tuple[tuple[int, ...], Callable[[], Array]]],
    metadata: Mapping[str, str],
) -> None:
    """Write tensors in float32.

    Args:
        tensors: shape and reader of each, in the order in which they are written.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, (shape, _) in tensors.items():
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    with path.open("wb") as file:
        file.write(_encode_header(header))
        for _, read in tensors.values():
            file.write(np.ascontiguousarray(read(), dtype="<f4").data)


def copy_with_metadata(source: Path, target: Path, metadata: Mapping[str, str]) -> None:
    """Copy a file with further metadata; its tensors stay as they are."""
    header, start = _read_header(source)
    header["__metadata__"] = {**header.get("__metadata__", {}), **metadata}
    with source.open("rb") as old, target.open("wb") as new:
        new.write(_encode_header(header))
        old.seek(start)
        shutil.copyfileobj(old, new, 1 << 20)


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a file, and where its tensors start."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > _MAX_HEADER_BYTES:
            raise ExportError(f"{path.name} is no safetensors file: its header is too long.")
        try:
            header = json.loads(file.read(size))
        except ValueError as error:
            raise ExportError(f"{path.name} is no safetensors file: its header is not JSON.") from error
    if not isinstance(header, dict):
        raise ExportError(f"{path.name} is no safetensors file: its header is no object.")
    return header, 8 + size


def _encode_header(header: Mapping[str, object]) -> bytes:
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    return len(encoded).to_bytes(8, "little") + encoded
