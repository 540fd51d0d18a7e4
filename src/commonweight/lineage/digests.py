"""Digests of files, folders and JSON values: the identities that records hold."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from commonweight.lineage.errors import WorkshopError

RECORD = "record.json"
"""File of an output folder that describes it; the SHA-256 of its bytes is the output's identity."""
OBSERVED = "observed.json"
"""File of an output folder with what differs between two runs of the same work: times, host, speeds."""


class LineageError(WorkshopError):
    """A record, a chain or a folder is not as it should be; the message is one sentence."""


def encode_json(value: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """One byte string per JSON value: keys sorted, no spaces, UTF-8.

    Raises:
        ValueError: a number is NaN or infinite, which JSON does not have.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_bytes(data: bytes) -> str:
    """SHA-256 in lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def digest_json(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """SHA-256 of a JSON value, whatever the order of its keys."""
    return digest_bytes(encode_json(value))


def digest_file(path: Path) -> str:
    """SHA-256 of a file's content, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file under a folder by its relative path, without the record and what was observed.

    Raises:
        LineageError: a link, or a file that is no regular file.
    """
    return {str(path.relative_to(folder).as_posix()): digest_file(path) for path in _list_files(folder)}


def digest_content(files: Mapping[str, str]) -> str:
    """The one digest of a folder's content: of its files' paths and digests."""
    return digest_json(dict(files))


def _list_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise LineageError(f"{path.relative_to(folder)} is a link; outputs hold regular files only.")
        if path.is_dir():
            continue
        if not path.is_file():
            raise LineageError(f"{path.relative_to(folder)} is not a regular file.")
        if path.parent != folder or path.name not in (RECORD, OBSERVED):
            yield path
