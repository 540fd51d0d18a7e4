"""Who may do what, and how much; and what they did."""

from commonweight.access.keyring import Keyring
from commonweight.access.ledger import Ledger
from commonweight.access.limits import Admission, Limiter
from commonweight.access.principal import SCOPES, Limits, Principal, Scope

__all__ = ["SCOPES", "Admission", "Keyring", "Ledger", "Limiter", "Limits", "Principal", "Scope"]
