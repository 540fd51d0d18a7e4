"""Conformance suite for servers of the Messages API, run over HTTP against any of them.

It depends on the contract only, and on nothing else of this project.
"""

from commonweight.conformance.checks import Check, NotApplicableError
from commonweight.conformance.runner import Outcome, run
from commonweight.conformance.sections import SECTIONS
from commonweight.conformance.target import Target, WrongKeyError, open_target

__all__ = ["SECTIONS", "Check", "NotApplicableError", "Outcome", "Target", "WrongKeyError", "open_target", "run"]
