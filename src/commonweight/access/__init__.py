"""Access control: API keys, scopes, rate limits and the usage ledger."""

from commonweight.access.keyring import Keyring
from commonweight.access.ledger import Ledger
from commonweight.access.limits import Admission, Limiter
from commonweight.access.principal import SCOPES, Limits, Principal, Scope

__all__ = ["SCOPES", "Admission", "Keyring", "Ledger", "Limiter", "Limits", "Principal", "Scope"]
