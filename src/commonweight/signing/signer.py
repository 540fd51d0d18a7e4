"""Signed texts: a text, compressed and authenticated, that a client carries and sends back unchanged.

The server keeps no state for them. They are not secret from the client; but only what this installation signed is
read again.
"""

import base64
import binascii
import hmac
import zlib

from commonweight.signing.key import KEY_BYTES
from commonweight.signing.mac import Purpose, compute_mac

# Base64 letters, and a multiple of four of them, so that the whole signature is base64.
_PREFIX = "commonweight/v1/"

_MAC_BYTES = 16
_MAX_TEXT_BYTES = 64 * 2**20


class TamperedError(ValueError):
    """The signature has our format, but not our code."""


class Signer:
    """Signs texts for one purpose, and reads them back."""

    def __init__(self, key: bytes, purpose: Purpose) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
        self._key = key
        self._purpose = purpose

    def sign(self, text: str) -> str:
        """Make the signature that carries a text: base64, never empty.

        Raises:
            ValueError: the text is longer than 64 MiB, which could not be read again.
        """
        data = text.encode()
        if len(data) > _MAX_TEXT_BYTES:
            raise ValueError(f"a text of {len(data)} bytes is too long to sign")
        body = zlib.compress(data)
        return _PREFIX + base64.b64encode(self._compute_mac(body) + body).decode()

    def read(self, signature: str) -> str | None:
        """Read the text; None for a signature of another server or version, which cannot be read.

        Raises:
            TamperedError: it is ours, but not as we wrote it.
        """
        if not signature.startswith(_PREFIX):
            return None
        signed = _decode(signature.removeprefix(_PREFIX))
        mac, body = signed[:_MAC_BYTES], signed[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._compute_mac(body)):
            raise TamperedError("the signature is not authentic")
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(body, _MAX_TEXT_BYTES + 1)
        if not unpacker.eof:
            raise TamperedError("the signature holds more than we ever sign")
        return data.decode()

    def _compute_mac(self, body: bytes) -> bytes:
        return compute_mac(self._key, self._purpose, body)[:_MAC_BYTES]


def _decode(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise TamperedError("the signature is not base64") from error
    # The last letter has bits that decoding drops; they must be as we wrote them, like all the others.
    if base64.b64encode(data).decode() != text:
        raise TamperedError("the signature is not base64 as we write it")
    return data
