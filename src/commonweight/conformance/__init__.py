"""A conformance suite for servers of the Messages API: what the contract says, tried on any server over HTTP.

It knows the contract only, and nothing of the rest of this project: what holds here must hold of anybody's server.
"""

from commonweight.conformance.checks import Check, NotApplicableError
from commonweight.conformance.runner import Outcome, run
from commonweight.conformance.sections import SECTIONS
from commonweight.conformance.target import Target, WrongKeyError, open_target

__all__ = ["SECTIONS", "Check", "NotApplicableError", "Outcome", "Target", "WrongKeyError", "open_target", "run"]
