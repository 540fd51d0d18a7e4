"""Errors that an operator can fix."""


class UserError(Exception):
    """A mistake in settings or environment; the message says how to fix it."""
