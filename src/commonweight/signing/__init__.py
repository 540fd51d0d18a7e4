"""Signing: the installation's key, authentication codes by purpose, and signed texts that clients carry."""

from commonweight.signing.key import BrokenKeyError, load_key
from commonweight.signing.mac import Purpose, compute_mac
from commonweight.signing.signer import Signer, TamperedError

__all__ = ["BrokenKeyError", "Purpose", "Signer", "TamperedError", "compute_mac", "load_key"]
