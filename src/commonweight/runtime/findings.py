"""Results of checks, and the checks of folders, which need nothing heavy."""

import logging
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import platformdirs
from rich.filesize import decimal

from commonweight.runtime.data import DataFolder
from commonweight.runtime.errors import UserError

log = logging.getLogger(__name__)

MIN_FREE_BYTES, LOW_FREE_BYTES = 64 << 20, 2 << 30
"""Bytes of a disk: with less nothing works for long, and with less than the second it soon may not."""

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """Result of a check."""

    subject: str
    status: Status
    text: str
    advice: str = ""
    """What to do about it."""


def require(finding: Finding) -> None:
    """Raise :class:`UserError` if a check failed.

    Raises:
        UserError: it did.
    """
    said = "; ".join(filter(None, (finding.text, finding.advice)))
    if finding.status == "fail":
        raise UserError(f"{finding.subject}: {said}")
    if finding.status == "warn":
        log.warning("%s: %s", finding.subject, said)


def check_folder(subject: str, path: Path, remedy: str) -> Finding:
    """Check whether a folder can be written to, or made, and has space. ``remedy``: advice besides."""
    existing = next(place for place in (path, *path.parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            free = shutil.disk_usage(existing).free
    except OSError as error:
        return Finding(subject, "fail", f"cannot write to {path}: {error.strerror}", remedy)
    text = f"{path}, {decimal(free)} free"
    if free < LOW_FREE_BYTES:
        return Finding(
            subject, "fail" if free < MIN_FREE_BYTES else "warn", text, f"make space there, or {remedy}"
        )
    return Finding(subject, "ok", text)


def check_data_folder(data: DataFolder) -> Finding:
    """Check the folder of keys, batches and files."""
    return check_folder("data folder", data.path, "choose another with --data")


def check_cache_folder() -> Finding:
    """Check the folder of cached prefixes. Without it a server runs all the same."""
    found = check_folder("cache folder", platformdirs.user_cache_path("commonweight"), "set --cache-disk 0")
    return replace(found, status="warn") if found.status == "fail" else found
