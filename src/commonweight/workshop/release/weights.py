"""Weights of a release: what the headers of GGUF and safetensors files say, and a digest of sampled bytes."""

import hashlib
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from safetensors import SafetensorError, safe_open

from commonweight.catalog.header import UnreadableModelError, check_header
from commonweight.workshop.release.documents import ReleaseError, quote

HEAD = "commonweight.lineage.head"
"""Key of the lineage's head before export, in the metadata of GGUF and safetensors files."""

_BLOCKS, _BLOCK_BYTES = 256, 4096
_EDGE_BYTES = 1 << 20
_MAX_SAFETENSORS_HEADER = 100 << 20
_ARRAY, _STRING, _BOOL = 9, 8, 7
_LAYOUTS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 10: "Q", 11: "q", 12: "d"}


@dataclass(frozen=True)
class WeightsHeader:
    """What a file of weights says of itself."""

    format: Literal["GGUF", "safetensors"]
    metadata: dict[str, str | int | float | bool]
    """Without lists."""
    parameters: int
    """Values of all tensors."""

    @property
    def head(self) -> str | None:
        """The lineage's head before export, as the file states it."""
        value = self.metadata.get(HEAD)
        return value if isinstance(value, str) else None


def read_header(path: Path) -> WeightsHeader:
    """Read the header of a GGUF or safetensors file.

    Raises:
        ReleaseError: it is neither, or damaged.
    """
    return _read_gguf(path) if path.suffix == ".gguf" else _read_safetensors(path)


def digest_sample(path: Path) -> str:
    """SHA-256 of a file's size, both its ends, and blocks at even distances between.

    Finds what replaces a file, and most of what changes much of it; a few changed bytes need the whole digest.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= 2 * _EDGE_BYTES + _BLOCKS * _BLOCK_BYTES:
            digest.update(file.read())
            return digest.hexdigest()
        digest.update(file.read(_EDGE_BYTES))
        for number in range(_BLOCKS):
            file.seek(_EDGE_BYTES + (size - 2 * _EDGE_BYTES - _BLOCK_BYTES) * number // _BLOCKS)
            digest.update(file.read(_BLOCK_BYTES))
        file.seek(size - _EDGE_BYTES)
        digest.update(file.read(_EDGE_BYTES))
    return digest.hexdigest()


def count_sampled_bytes(size: int) -> int:
    """How many bytes of a file of a size :func:`digest_sample` reads."""
    return min(size, 2 * _EDGE_BYTES + _BLOCKS * _BLOCK_BYTES)


def _read_gguf(path: Path) -> WeightsHeader:
    try:
        check_header(path)
        with path.open("rb", buffering=1 << 18) as file:
            file.seek(4 + 4)
            tensors, keys = struct.unpack("<QQ", file.read(16))
            metadata: dict[str, str | int | float | bool] = {}
            for _ in range(keys):
                _read_pair(file, metadata)
            parameters = 0
            for _ in range(tensors):
                _read_bytes(file)
                (dimensions,) = struct.unpack("<I", file.read(4))
                parameters += math.prod(struct.unpack(f"<{dimensions}Q", file.read(8 * dimensions)))
                file.seek(12, 1)
    except (UnreadableModelError, OSError, struct.error, UnicodeDecodeError) as error:
        reason = str(error).replace(str(path), path.name)
        raise ReleaseError(f"{path.name} is not a sound GGUF file: {quote(reason)}.") from error
    return WeightsHeader("GGUF", metadata, parameters)


def _read_pair(file: BinaryIO, metadata: dict[str, str | int | float | bool]) -> None:
    key = _read_bytes(file).decode()
    (kind,) = struct.unpack("<I", file.read(4))
    if kind == _STRING:
        metadata[key] = _read_bytes(file).decode()
    elif kind == _BOOL:
        metadata[key] = file.read(1) != b"\0"
    elif kind == _ARRAY:
        kind, count = struct.unpack("<IQ", file.read(12))
        if kind == _STRING:
            for _ in range(count):
                file.seek(struct.unpack("<Q", file.read(8))[0], 1)
        else:
            file.seek(count * (1 if kind == _BOOL else struct.calcsize(f"<{_LAYOUTS[kind]}")), 1)
    else:
        layout = f"<{_LAYOUTS[kind]}"
        (metadata[key],) = struct.unpack(layout, file.read(struct.calcsize(layout)))


def _read_bytes(file: BinaryIO) -> bytes:
    (length,) = struct.unpack("<Q", file.read(8))
    return file.read(length)


def _read_safetensors(path: Path) -> WeightsHeader:
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
        if length > _MAX_SAFETENSORS_HEADER:
            raise ReleaseError(f"{path.name} is not a sound safetensors file: its header has {length} bytes.")
        with safe_open(path, framework="numpy") as tensors:
            metadata = dict(tensors.metadata() or {})
            parameters = sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    except (SafetensorError, OSError, struct.error, ValueError) as error:
        if isinstance(error, ReleaseError):
            raise
        raise ReleaseError(f"{path.name} is not a sound safetensors file: {quote(error)}.") from error
    return WeightsHeader("safetensors", {**metadata}, parameters)
