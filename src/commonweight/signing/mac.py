"""Message authentication codes (HMAC-SHA256) of one key for several purposes.

Every code covers the name of its purpose, so that a code made for one purpose is never valid for another.
"""

import hmac
from enum import Enum


class Purpose(Enum):
    """Purpose of a code; the value is hashed in front of the data. Changing one voids all its codes."""

    THINKING_SIGNATURE = "thinking-signature"
    """Signatures of thinking blocks, which clients send back."""
    GUARD_BUNDLE = "guard-bundle"
    """Digests of compiled charters that this installation trusts."""
    GUARD_TEXT = "guard-text"
    """Texts that the guard saw: names of their scores, and digests on record."""
    CACHE_SALT = "cache-salt"
    """Salts that keep the prefix caches of tenants apart on remote engines."""
    SESSION = "session"
    """Names of conversations for remote engines, which say nothing about their content."""
    EVALUATION = "evaluation"
    """Names of texts that a guard was measured on, which say nothing about their content."""


def compute_mac(key: bytes, purpose: Purpose, data: bytes) -> bytes:
    """Compute the code of data: 32 bytes."""
    return hmac.digest(key, f"commonweight/v1/{purpose.value}\0".encode() + data, "sha256")
