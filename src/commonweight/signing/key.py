"""The installation's secret key: created on first use, then read from its file."""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

KEY_BYTES = 32


class BrokenKeyError(ValueError):
    """The key file does not hold a key."""


def load_key(folder: Path) -> bytes:
    """Read the key in a data folder; create it, and the folder, if need be. Only the owner may read its file.

    Raises:
        BrokenKeyError: the file is there, but holds no key.
        OSError: the folder or file cannot be written or read.
    """
    path = folder / "secret.key"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with NamedTemporaryFile(dir=folder) as draft:
            draft.write(secrets.token_bytes(KEY_BYTES))
            draft.flush()
            os.fsync(draft.fileno())
            # A link appears whole and never replaces: of two processes that start at once one comes first.
            with suppress(FileExistsError):
                path.hardlink_to(draft.name)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise BrokenKeyError(
            f"{path} should hold {KEY_BYTES} bytes and holds {len(key)}. Put the right file back, or delete it: "
            "a new key is made then, and reasoning that was signed before is refused."
        )
    return key
