"""Signatures of thinking blocks: the reasoning itself, compressed and authenticated.

Clients return thinking blocks unchanged, often with their text left out (``display: "omitted"``), and a model's
template may need the reasoning again. So the signature carries it and the server keeps no state. It is not secret
from the client, who may know it anyway; but only what this server wrote comes back as the model's own reasoning.
"""

import base64
import binascii
import hmac
import os
import secrets
import zlib
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

# Base64 letters, and a multiple of four of them, so that the whole signature is base64.
_PREFIX = "commonweight/v1/"

# What the code signs, so that a code made with the same key for another purpose is never one for this.
_PURPOSE = b"commonweight/v1/thinking-signature\0"

_CODE_BYTES = 16
_KEY_BYTES = 32
_MOST_BYTES = 64 * 2**20


class TamperedError(ValueError):
    """The signature claims to be ours, and is not what we wrote."""


class BrokenKeyError(ValueError):
    """The key's file does not hold a key."""


class Signer:
    """Writes and reads signatures with one key."""

    def __init__(self, key: bytes) -> None:
        if len(key) != _KEY_BYTES:
            raise ValueError(f"a key has {_KEY_BYTES} bytes, not {len(key)}")
        self._key = key

    def sign(self, reasoning: str) -> str:
        """The signature of a block with this reasoning: base64, never empty.

        Raises:
            ValueError: the reasoning is longer than 64 MiB, which could not be read again.
        """
        data = reasoning.encode()
        if len(data) > _MOST_BYTES:
            raise ValueError(f"reasoning of {len(data)} bytes is too long to sign")
        body = zlib.compress(data)
        return _PREFIX + base64.b64encode(self._code(body) + body).decode()

    def read(self, signature: str) -> str | None:
        """The reasoning; None for a signature of another server or version, which says nothing to us.

        Raises:
            TamperedError: it is ours, but not as we wrote it.
        """
        if not signature.startswith(_PREFIX):
            return None
        signed = _decoded(signature.removeprefix(_PREFIX))
        code, body = signed[:_CODE_BYTES], signed[_CODE_BYTES:]
        if not hmac.compare_digest(code, self._code(body)):
            raise TamperedError("the signature is not authentic")
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(body, _MOST_BYTES + 1)
        if not unpacker.eof:
            raise TamperedError("the signature holds more than we ever sign")
        return data.decode()

    def _code(self, body: bytes) -> bytes:
        return hmac.digest(self._key, _PURPOSE + body, "sha256")[:_CODE_BYTES]


def _decoded(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise TamperedError("the signature is not base64") from error
    # The last letter has bits that decoding drops; they must be as we wrote them, like all the others.
    if base64.b64encode(data).decode() != text:
        raise TamperedError("the signature is not base64 as we write it")
    return data


def load_key(folder: Path) -> bytes:
    """The key of this installation: made at first, then always the same. Only the owner may read its file.

    Raises:
        BrokenKeyError: the file is there, but holds no key.
        OSError: the folder or file cannot be written or read.
    """
    path = folder / "secret.key"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with NamedTemporaryFile(dir=folder) as draft:
            draft.write(secrets.token_bytes(_KEY_BYTES))
            draft.flush()
            os.fsync(draft.fileno())
            # A link appears whole and never replaces: of two processes that start at once one comes first.
            with suppress(FileExistsError):
                path.hardlink_to(draft.name)
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise BrokenKeyError(
            f"{path} should hold {_KEY_BYTES} bytes and holds {len(key)}. Put the right file back, or delete it: "
            "a new key is made then, and reasoning that was signed before is refused."
        )
    return key
