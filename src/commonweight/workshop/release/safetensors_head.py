"""The lineage's head in a safetensors file: added to its metadata in a way that can be undone byte for byte."""

import hashlib
import json
import shutil
import struct
from pathlib import Path
from typing import Any

from commonweight.workshop.release.documents import ReleaseError
from commonweight.workshop.release.weights import HEAD

_METADATA = "__metadata__"
_MAX_HEADER = 100 << 20
_CHUNK = 1 << 20


def copy_with_head(source: Path, target: Path, head: str) -> None:
    """Copy a file and add the head to its metadata.

    Raises:
        ReleaseError: the file is damaged, states a head already, or is not written as safetensors writes.
    """
    data = _read_header(source)
    header = _decode(data, source.name)
    if HEAD in header.get(_METADATA, {}) or _encode(header) != data:
        raise ReleaseError(f"{source.name} has a header to which no lineage head can be added.")
    changed = _encode({_METADATA: {**header.get(_METADATA, {}), HEAD: head}, **_without_metadata(header)})
    with source.open("rb") as old, target.open("wb") as new:
        old.seek(8 + len(data))
        new.write(struct.pack("<Q", len(changed)) + changed)
        shutil.copyfileobj(old, new, _CHUNK)


def digest_without_head(path: Path) -> str:
    """SHA-256 of the file that a lineage head was added to.

    Raises:
        ReleaseError: the file is damaged.
    """
    data = _read_header(path)
    header = _decode(data, path.name)
    metadata = {key: value for key, value in header.get(_METADATA, {}).items() if key != HEAD}
    original = _encode(({_METADATA: metadata} if metadata else {}) | _without_metadata(header))
    digest = hashlib.sha256(struct.pack("<Q", len(original)) + original)
    with path.open("rb") as file:
        file.seek(8 + len(data))
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _read_header(path: Path) -> bytes:
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        data = file.read(length) if 0 < length <= _MAX_HEADER else b""
    if not data or len(data) != length:
        raise ReleaseError(f"{path.name} is not a sound safetensors file.")
    return data


def _decode(data: bytes, name: str) -> dict[str, Any]:
    try:
        header = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ReleaseError(f"{name} is not a sound safetensors file.") from error
    if not isinstance(header, dict) or not isinstance(header.get(_METADATA, {}), dict):
        raise ReleaseError(f"{name} is not a sound safetensors file.")
    return header


def _encode(header: dict[str, Any]) -> bytes:
    data = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return data + b" " * (-len(data) % 8)


def _without_metadata(header: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in header.items() if key != _METADATA}
