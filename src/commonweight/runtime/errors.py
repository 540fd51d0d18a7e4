"""Errors that an operator can put right."""


class UserError(Exception):
    """A mistake in settings or environment; the message says how to put it right."""
