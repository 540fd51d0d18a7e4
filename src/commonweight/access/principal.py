"""Principal of a request: tenant, key, scopes and limits."""

from dataclasses import dataclass
from typing import Literal, get_args

from commonweight.messages.errors import PermissionDeniedError

Scope = Literal["models", "batches", "files", "admin"]
"""``models`` covers messages and the list of models; ``admin`` the figures of all tenants."""
SCOPES: frozenset[Scope] = frozenset(get_args(Scope))


@dataclass(frozen=True)
class Limits:
    """Limits of one key. None: unlimited."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None


UNLIMITED = Limits()


@dataclass(frozen=True)
class Principal:
    """Authenticated sender of a request."""

    tenant: str = ""
    """Owner of cached prefixes, batches, files and records; they are invisible to other tenants."""
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
