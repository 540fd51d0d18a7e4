"""Comparison of model files with their published SHA-256."""

from pathlib import Path

from commonweight.catalog.checksum import compute_sha256
from commonweight.catalog.hub_cache import find_stated_sha256
from commonweight.catalog.starter import STARTER_SHA256, find_starter


class WrongContentError(OSError):
    """A model file's SHA-256 is not the published one; the message says what to do."""


def check_content(path: Path) -> bool:
    """Compare a file with the SHA-256 that is known of it: the starter's, or the one that the hub stated.

    False if none is known.

    Raises:
        WrongContentError: they differ.
        OSError: the file cannot be read.
    """
    is_starter = path == find_starter()
    known = STARTER_SHA256 if is_starter else find_stated_sha256(path)
    if known is None:
        return False
    if (found := compute_sha256(path)) != known:
        advice = "commonweight pull starter" if is_starter else "delete it, and pull it again"
        raise WrongContentError(f"{path} has changed: its SHA-256 is {found} and should be {known}; {advice}")
    return True
