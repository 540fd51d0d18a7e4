"""Who may do what."""

from commonweight.access.keyring import Keyring

__all__ = ["Keyring"]
