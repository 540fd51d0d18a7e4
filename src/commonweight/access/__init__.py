"""Who may do what."""

from commonweight.access.keyring import Keyring
from commonweight.access.principal import SCOPES, Limits, Principal, Scope

__all__ = ["SCOPES", "Keyring", "Limits", "Principal", "Scope"]
