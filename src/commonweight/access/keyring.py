"""API keys. Old clients send ``x-api-key``, new ones ``Authorization: Bearer``; both mean the same key."""

import hmac
from collections.abc import Mapping

from commonweight.messages.errors import AuthenticationError


class Keyring:
    """The key that clients must show; with no key set, everyone may come in."""

    def __init__(self, key: str | None) -> None:
        if key == "":
            raise ValueError("an empty key would let everyone in")
        self._key = key

    def check(self, headers: Mapping[str, str]) -> None:
        """Raise :class:`AuthenticationError` unless the request shows the key.

        If both headers are there, ``x-api-key`` counts.
        """
        if self._key is None:
            return
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        is_bearer = "x-api-key" not in headers and scheme.lower() == "bearer"
        shown = bearer.strip() if is_bearer else headers.get("x-api-key")
        if shown is None:
            raise AuthenticationError("x-api-key header is required")
        # Bytes, because compare_digest takes no text beyond ASCII.
        if not hmac.compare_digest(shown.encode(), self._key.encode()):
            raise AuthenticationError("Invalid bearer token" if is_bearer else "invalid x-api-key")
