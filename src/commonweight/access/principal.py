"""Who sent a request, and what they may do."""

from dataclasses import dataclass
from typing import Literal, get_args

from commonweight.messages.errors import PermissionDeniedError

Scope = Literal["models", "batches", "files", "admin"]
"""``models`` answers messages and lists models; ``admin`` sees everybody's figures."""
SCOPES: frozenset[Scope] = frozenset(get_args(Scope))


@dataclass(frozen=True)
class Limits:
    """What one key may use. None: as much as there is."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None


UNLIMITED = Limits()


@dataclass(frozen=True)
class Principal:
    """The sender of a request."""

    tenant: str = ""
    """Whose cached prefixes, batches, files and records these are; nobody else comes near them."""
    key_id: str | None = None
    """None: no key was needed, or it is the one that the operator gave on the command line."""
    scopes: frozenset[Scope] = SCOPES
    limits: Limits = UNLIMITED
    waived: frozenset[str] = frozenset()
    """Principles of the charter that are set aside for this key, as far as the charter lets operators do that."""

    def require(self, scope: Scope) -> None:
        """Raise :class:`PermissionDeniedError` unless the key was made for this."""
        if scope not in self.scopes:
            raise PermissionDeniedError(f"Your API key does not have the scope `{scope}`, which this needs")
